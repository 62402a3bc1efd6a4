//! Names of map elements, in memory and in the file that outlives the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the run directory.
pub const NAMES_FILE: &str = "names.json";

/// Whose an element of `svc` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
    /// Empty for an unnamed port.
    pub port_name: String,
}

/// Whose an element of `be` is. Empty strings where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendName {
    pub namespace: String,
    pub pod: String,
    pub node: String,
}

/// All names of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameTable {
    /// Name of the node itself; empty when the writer did not know.
    pub node: String,
    pub services: BTreeMap<u32, ServiceName>,
    pub backends: BTreeMap<u32, BackendName>,
}

impl NameTable {
    /// Reads the file.
    /// # Errors
    /// `NotFound` when no agent has ever written it; `InvalidData` when it is no names file.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
    }

    /// Replaces the file in one step: a reader sees the old one or the new one.
    /// # Errors
    /// The file system's error.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_file_and_an_unknown_field_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAMES_FILE);
        let mut table = NameTable {
            node: "node-1".into(),
            ..NameTable::default()
        };
        let name = ServiceName {
            namespace: "default".into(),
            name: "web".into(),
            port_name: String::new(),
        };
        table.services.insert(3, name);
        table.write(&path).unwrap();
        assert_eq!(NameTable::read(&path).unwrap(), table);
        fs::write(&path, r#"{"services":{},"later":1}"#).unwrap();
        assert_eq!(NameTable::read(&path).unwrap(), NameTable::default());
    }
}
