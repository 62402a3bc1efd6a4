//! YAML text to a value, within a budget; the only place that knows the YAML library.
//!
//! YAML 1.1 booleans and octals are understood, as by upstream's reader. Aliases, nesting and nodes
//! are bounded so that a small body cannot become a large object.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options};

use super::{DecodeError, Finding};

/// Nodes of one body. The largest JSON body (3 MB) has fewer.
const NODES_MAX: usize = 1_000_000;
const DEPTH_MAX: usize = 128;
/// Events that aliases may add.
const ALIAS_EVENTS_MAX: usize = 100_000;

/// Parses one YAML document. A repeated key is a finding and its last value counts.
pub(super) fn parse(text: &[u8]) -> Result<(Value, Vec<Finding>), DecodeError> {
    match serde_saphyr::from_slice_with_options(text, options(DuplicateKeyPolicy::Error)) {
        Ok(value) => Ok((value, Vec::new())),
        Err(Error::DuplicateMappingKey { key, location }) => {
            let finding = Finding::DuplicateKey {
                line: location.line(),
                key: key.unwrap_or_default(),
            };
            let value =
                serde_saphyr::from_slice_with_options(text, options(DuplicateKeyPolicy::LastWins))
                    .map_err(|error| DecodeError::Yaml(error.to_string()))?;
            Ok((value, vec![finding]))
        }
        Err(error) => Err(DecodeError::Yaml(error.to_string())),
    }
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
            max_documents: 1,
        },
        duplicate_keys: duplicate_keys,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_EVENTS_MAX,
        },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}
