//! The Accept header: which of the forms that we write the client wants most.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, USER_AGENT};

use super::Query;
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
    /// Text.
    Text(Layout),
    /// Kubernetes protobuf.
    Protobuf,
}

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// JSON.
    Json,
    /// JSON for people: indented.
    JsonPretty,
    /// YAML.
    Yaml,
}

impl Codec {
    /// JSON is indented for `?pretty=true`, and for programs that show it to people unless they say
    /// `?pretty=false`.
    pub(crate) fn for_reader(self, headers: &HeaderMap, query: &Query) -> Self {
        let shows = || {
            let agent = headers
                .get(USER_AGENT)
                .and_then(|value| value.to_str().ok());
            let agent = agent.unwrap_or_default();
            SHOWING_AGENTS.iter().any(|known| agent.starts_with(known))
        };
        let wanted = || match query.get("pretty") {
            Some(text) => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
            None => shows(),
        };
        match self {
            Self::Text(Layout::Json) if wanted() => Self::Text(Layout::JsonPretty),
            codec => codec,
        }
    }
}

/// Beginnings of the user agents of browsers and of command line tools.
const SHOWING_AGENTS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// What can be written of the thing asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// JSON, YAML and protobuf.
    All,
    /// JSON and YAML: the kind has no message. Its metadata has.
    Text,
}

impl Offer {
    /// The media types of answers, as refusals name them.
    const fn media_types(self) -> &'static str {
        match self {
            Self::All => "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            Self::Text => "application/json, application/yaml",
        }
    }

    /// The media types of watches: YAML is no stream.
    const fn stream_media_types(self) -> &'static str {
        match self {
            Self::All => {
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
            }
            Self::Text => "application/json;stream=watch",
        }
    }
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
        codec: Codec::Text(Layout::Json),
    };
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

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
        let codec = self.codec()?;
        if self
            .param("stream")
            .is_some_and(|stream| !matches!(stream, "" | "watch"))
        {
            return None;
        }
        let format = self.format()?;
        match (codec, format, offer) {
            (Codec::Text(_), _, _)
            | (Codec::Protobuf, Format::Plain, Offer::All)
            | (Codec::Protobuf, Format::Metadata(_), _) => Some(Accept { format, codec }),
            // Cells are any JSON, which has no message (as upstream).
            (Codec::Protobuf, Format::Table(_), _)
            | (Codec::Protobuf, Format::Plain, Offer::Text) => None,
        }
    }

    fn codec(&self) -> Option<Codec> {
        Some(match self.media {
            _ if self.is_json() && self.param("pretty") == Some("1") => {
                Codec::Text(Layout::JsonPretty)
            }
            _ if self.is_json() => Codec::Text(Layout::Json),
            YAML => Codec::Text(Layout::Yaml),
            PROTOBUF => Codec::Protobuf,
            _ => return None,
        })
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
            .ok_or_else(|| StatusError::not_acceptable(offer.media_types()))
    }

    /// As [`Self::of`] for a stream.
    ///
    /// # Errors
    /// 406 when there is none; YAML is no stream.
    pub(crate) fn of_stream(headers: &HeaderMap, offer: Offer) -> Result<Self, StatusError> {
        match Self::of(headers, offer) {
            Ok(accept) if accept.codec != Codec::Text(Layout::Yaml) => Ok(accept),
            _ => Err(StatusError::not_acceptable(offer.stream_media_types())),
        }
    }

    /// How a Status is written, whatever the answer would have been: an error is told also to a
    /// client that accepts nothing of ours.
    pub(crate) fn of_status(headers: &HeaderMap) -> Codec {
        let wanted = clauses(headers).iter().find_map(Clause::codec);
        wanted.unwrap_or(Codec::Text(Layout::Json))
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
        use Codec::Protobuf;
        const JSON: Codec = Codec::Text(Layout::Json);
        let pb = "application/vnd.kubernetes.protobuf";
        let both = [
            ("", Ok((JSON, Format::Plain))),
            ("*/*", Ok((JSON, Format::Plain))),
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
                Ok((JSON, Format::Table("v1"))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok((JSON, Format::Plain)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok((JSON, Format::Metadata("v1"))),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/json",
                Ok((JSON, Format::Plain)),
            ),
            (
                "application/json;q=0.5, application/vnd.kubernetes.protobuf;q=0.9",
                Ok((Protobuf, Format::Plain)),
            ),
            (
                "application/yaml",
                Ok((Codec::Text(Layout::Yaml), Format::Plain)),
            ),
            (
                "application/json;pretty=1",
                Ok((Codec::Text(Layout::JsonPretty), Format::Plain)),
            ),
            (
                "application/yaml;as=Table;v=v1;g=meta.k8s.io",
                Ok((Codec::Text(Layout::Yaml), Format::Table("v1"))),
            ),
            ("application/json;stream=other", Err(406)),
            ("application/json;q=0", Err(406)),
            ("text/html", Err(406)),
        ];
        for (accept, expected) in both {
            assert_eq!(of(accept, Offer::All), expected, "{accept}");
        }
        let metadata = format!("{pb};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        let json_only = [
            (pb, Err(406)),
            (metadata.as_str(), Ok((Protobuf, Format::Metadata("v1")))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Ok((JSON, Format::Plain)),
            ),
        ];
        for (accept, expected) in json_only {
            assert_eq!(of(accept, Offer::Text), expected, "{accept}");
        }
    }

    #[test]
    fn json_is_indented_for_people() {
        let of = |agent: &str, query: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            Codec::Text(Layout::Json).for_reader(&headers, &Query::parse(Some(query)))
        };
        assert_eq!(of("curl/8.0", ""), Codec::Text(Layout::JsonPretty));
        assert_eq!(of("curl/8.0", "pretty=false"), Codec::Text(Layout::Json));
        assert_eq!(of("kubectl/v1.37", ""), Codec::Text(Layout::Json));
        assert_eq!(
            of("kubectl/v1.37", "pretty=true"),
            Codec::Text(Layout::JsonPretty)
        );
        assert_eq!(of("kubectl/v1.37", "pretty=yes"), Codec::Text(Layout::Json));
    }

    #[test]
    fn yaml_is_no_stream() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, YAML.parse().unwrap());
        let refused = Accept::of_stream(&headers, Offer::All).unwrap_err();
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch"
        );
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
