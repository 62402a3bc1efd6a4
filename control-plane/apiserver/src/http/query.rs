//! The query string, decoded once.

use crate::status::StatusError;

/// Decoded parameters in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of `key`, when it is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of `key`.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// A flag: `1` and `true` are yes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.tristate(key).unwrap_or_default()
    }

    /// A flag that may be absent. A key without a value is yes.
    pub(crate) fn tristate(&self, key: &str) -> Option<bool> {
        let value = self
            .0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())?;
        Some(value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, StatusError> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_fault| {
            StatusError::bad_request(format!(
                "strconv.ParseInt: parsing \"{text}\": invalid syntax"
            ))
        })
    }
}

/// Percent decoding, with `+` as a space.
pub(crate) fn decode(text: &str) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        let pair = (hex(bytes.get(i + 1)), hex(bytes.get(i + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                i += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_flags_understood() {
        let query = Query::parse(Some(
            "a=b%20c&watch=1&x=&command=sh&command=-c&f=false&bad=%zz",
        ));
        assert_eq!(query.get("a"), Some("b c"));
        assert!(query.flag("watch"));
        assert!(!query.flag("f"));
        assert_eq!(query.tristate("none"), None);
        assert_eq!(query.get("x"), None);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(query.get("bad"), Some("%zz"));
        assert_eq!(query.number("a").unwrap_err().code, 400);
    }
}
