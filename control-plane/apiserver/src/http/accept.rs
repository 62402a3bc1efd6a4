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

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// JSON.
    Json,
    /// Kubernetes protobuf.
    Protobuf,
}

/// What can be written of the thing asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// JSON and protobuf.
    Both,
    /// JSON only: the kind has no message. Its metadata has.
    JsonOnly,
}

/// The client's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) format: Format,
    pub(crate) codec: Codec,
}

impl Accept {
    /// Plain JSON: what a client gets that does not say.
    pub(crate) const PLAIN: Self = Self {
        format: Format::Plain,
        codec: Codec::Json,
    };
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const OFFERED: &str = "application/json, application/vnd.kubernetes.protobuf";
const OFFERED_JSON: &str = "application/json";

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
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    }

    fn is_json(&self) -> bool {
        matches!(self.media, JSON | "application/*" | "*/*")
    }

    /// Thousandths of the weight (RFC 9110, section 12.4.2); 1000 when it is not told.
    fn weight(&self) -> u32 {
        let Some(text) = self.param("q") else {
            return 1000;
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let thousandths: u32 = format!("{part:0<3.3}").parse().unwrap_or(0);
        match whole.parse::<u32>() {
            Ok(0) => thousandths,
            Ok(_) => 1000,
            Err(_) => 0,
        }
    }

    fn accept(&self, offer: Offer) -> Option<Accept> {
        let codec = match self.media {
            _ if self.is_json() => Codec::Json,
            PROTOBUF => Codec::Protobuf,
            _ => return None,
        };
        let format = self.format()?;
        match (codec, format, offer) {
            (Codec::Json, _, _)
            | (Codec::Protobuf, Format::Plain, Offer::Both)
            | (Codec::Protobuf, Format::Metadata(_), _) => Some(Accept { format, codec }),
            // Cells are any JSON, which has no message (as upstream).
            (Codec::Protobuf, Format::Table(_), _)
            | (Codec::Protobuf, Format::Plain, Offer::JsonOnly) => None,
        }
    }

    fn format(&self) -> Option<Format> {
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

/// The clauses, best first.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .map(Clause::parse)
        .collect();
    // Stable: among equals the client's order counts.
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.weight()));
    clauses
}

impl Accept {
    /// The best clause that we can write; JSON when the client does not say.
    ///
    /// # Errors
    /// 406 when there is none.
    pub(crate) fn of(headers: &HeaderMap, offer: Offer) -> Result<Self, StatusError> {
        if !headers.contains_key(ACCEPT) {
            return Ok(Self::PLAIN);
        }
        let clauses = clauses(headers);
        if clauses.is_empty() {
            return Ok(Self::PLAIN);
        }
        clauses
            .iter()
            .filter(|clause| clause.weight() > 0)
            .find_map(|clause| clause.accept(offer))
            .ok_or_else(|| {
                StatusError::not_acceptable(match offer {
                    Offer::Both => OFFERED,
                    Offer::JsonOnly => OFFERED_JSON,
                })
            })
    }

    /// How a Status is written, whatever the answer would have been: an error is told also to a
    /// client that accepts nothing of ours.
    pub(crate) fn of_status(headers: &HeaderMap) -> Codec {
        let wanted = clauses(headers)
            .iter()
            .find_map(|clause| match clause.media {
                _ if clause.is_json() => Some(Codec::Json),
                PROTOBUF => Some(Codec::Protobuf),
                _ => None,
            });
        wanted.unwrap_or(Codec::Json)
    }

    /// The version of `as=<kind>;g=apidiscovery.k8s.io` that the client wants first, if it wants
    /// that before plain JSON.
    pub(crate) fn discovery(headers: &HeaderMap) -> bool {
        for clause in clauses(headers) {
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

    fn of(text: &str, offer: Offer) -> Result<(Codec, Format), u16> {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert(ACCEPT, text.parse().unwrap());
        }
        Accept::of(&headers, offer)
            .map(|accept| (accept.codec, accept.format))
            .map_err(|error| error.code)
    }

    #[test]
    fn the_best_form_that_we_write_is_chosen() {
        use Codec::{Json, Protobuf};
        let pb = "application/vnd.kubernetes.protobuf";
        let both = [
            ("", Ok((Json, Format::Plain))),
            ("*/*", Ok((Json, Format::Plain))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Ok((Protobuf, Format::Plain)),
            ),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Ok((Protobuf, Format::Plain)),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok((Json, Format::Table("v1"))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok((Json, Format::Plain)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok((Json, Format::Metadata("v1"))),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/json",
                Ok((Json, Format::Plain)),
            ),
            (
                "application/json;q=0.5, application/vnd.kubernetes.protobuf;q=0.9",
                Ok((Protobuf, Format::Plain)),
            ),
            ("application/json;q=0", Err(406)),
            ("text/html", Err(406)),
        ];
        for (accept, expected) in both {
            assert_eq!(of(accept, Offer::Both), expected, "{accept}");
        }
        let metadata = format!("{pb};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        let json_only = [
            (pb, Err(406)),
            (metadata.as_str(), Ok((Protobuf, Format::Metadata("v1")))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Ok((Json, Format::Plain)),
            ),
        ];
        for (accept, expected) in json_only {
            assert_eq!(of(accept, Offer::JsonOnly), expected, "{accept}");
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
