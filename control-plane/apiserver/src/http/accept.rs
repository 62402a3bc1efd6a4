//! The Accept header: which of the forms that we write the client wants most.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

use crate::status::StatusError;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The object as it is.
    Plain,
    /// `meta.k8s.io` Table in this version.
    Table(&'static str),
    /// `meta.k8s.io` PartialObjectMetadata (or a list of it) in this version.
    Metadata(&'static str),
}

/// The client's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) format: Format,
}

const OFFERED: &str = "application/json, application/json;as=Table;g=meta.k8s.io;v=v1, \
                       application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let params = parts.filter_map(|part| part.split_once('=')).collect();
        Self { media, params }
    }

    fn param(&self, name: &str) -> Option<&'a str> {
        self.params
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }

    fn is_json(&self) -> bool {
        matches!(self.media, "application/json" | "application/*" | "*/*")
    }

    fn format(&self) -> Option<Format> {
        if !self.is_json() {
            return None;
        }
        let Some(kind) = self.param("as") else {
            return Some(Format::Plain);
        };
        if self.param("g") != Some("meta.k8s.io") {
            return None;
        }
        let version = match self.param("v") {
            Some("v1") => "v1",
            Some("v1beta1") => "v1beta1",
            _ => return None,
        };
        match kind {
            "Table" => Some(Format::Table(version)),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => {
                Some(Format::Metadata(version))
            }
            _ => None,
        }
    }
}

fn clauses(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .collect()
}

impl Accept {
    /// The first clause that we can write; JSON when the client does not say.
    ///
    /// # Errors
    /// 406 when there is none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, StatusError> {
        let clauses = clauses(headers);
        if clauses.is_empty() {
            return Ok(Self {
                format: Format::Plain,
            });
        }
        clauses
            .iter()
            .find_map(|clause| Clause::parse(clause).format())
            .map(|format| Self { format })
            .ok_or_else(|| StatusError::not_acceptable(OFFERED))
    }

    /// The version of `as=<kind>;g=apidiscovery.k8s.io` that the client wants first, if it wants
    /// that before plain JSON.
    pub(crate) fn discovery(headers: &HeaderMap) -> bool {
        for clause in clauses(headers) {
            let clause = Clause::parse(clause);
            if !clause.is_json() {
                continue;
            }
            let aggregated = clause.param("as") == Some("APIGroupDiscoveryList")
                && clause.param("g") == Some("apidiscovery.k8s.io");
            match (aggregated, clause.param("v")) {
                (true, Some("v2")) => return true,
                (true, _) => {}
                (false, _) if clause.param("as").is_none() => return false,
                (false, _) => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert(ACCEPT, text.parse().unwrap());
        }
        Accept::of(&headers)
            .map(|accept| accept.format)
            .map_err(|error| error.code)
    }

    #[test]
    fn the_first_form_that_we_write_is_chosen() {
        let cases = [
            ("", Ok(Format::Plain)),
            ("*/*", Ok(Format::Plain)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Ok(Format::Plain),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok(Format::Table("v1")),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok(Format::Metadata("v1")),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/json",
                Ok(Format::Plain),
            ),
            ("application/vnd.kubernetes.protobuf", Err(406)),
            ("text/html", Err(406)),
        ];
        for (accept, expected) in cases {
            assert_eq!(of(accept), expected, "{accept}");
        }
    }

    #[test]
    fn aggregated_discovery_is_given_when_it_is_asked_for_first() {
        let ask = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            Accept::discovery(&headers)
        };
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert!(ask(&format!("{aggregated},application/json")));
        assert!(!ask("application/json"));
        assert!(!ask(&format!("application/json,{aggregated}")));
    }
}
