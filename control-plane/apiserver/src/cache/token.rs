//! The continue token: which revision and which key a paged list goes on from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::object::ObjKey;
use crate::status::StatusError;

/// Decoded continue token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Revision of the first page; 0: any, the list became inconsistent on purpose.
    pub(super) rv: u64,
    /// The last key that was delivered.
    pub(super) after: ObjKey,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: u64,
    ns: String,
    name: String,
}

const VERSION: &str = "skep/v1";

impl Token {
    pub(super) fn encode(&self) -> String {
        let wire = Wire {
            v: VERSION.to_owned(),
            rv: self.rv,
            ns: self.after.namespace.to_string(),
            name: self.after.name.to_string(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    pub(super) fn decode(text: &str) -> Result<Self, StatusError> {
        let bad =
            |why: String| StatusError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|e| bad(e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(format!("unknown version {:?}", wire.v)));
        }
        Ok(Self {
            rv: wire.rv,
            after: ObjKey::new(&wire.ns, &wire.name),
        })
    }
}

/// Reads a token; what is read is written and read again.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_continue_token(text: &str) {
    if let Ok(token) = Token::decode(text) {
        assert_eq!(Token::decode(&token.encode()).ok(), Some(token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_garbage_is_refused() {
        let token = Token {
            rv: 7,
            after: ObjKey::new("a", "b"),
        };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(Token::decode("!").unwrap_err().code, 400);
        assert_eq!(Token::decode("e30").unwrap_err().code, 400);
    }
}
