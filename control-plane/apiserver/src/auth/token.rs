//! Service account tokens: ES256 JWTs, bound to a pod, a secret or a node where one is named.
//!
//! One key signs; older ones only verify, so that a new key ends no token.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;

use super::User;

/// `iss` of every token.
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// Shortest life of a token, in seconds (as upstream).
pub(super) const SECONDS_MIN: i64 = 600;
/// Longest life of a token, in seconds.
pub(super) const SECONDS_MAX: i64 = 86_400 * 365;
/// Seconds that clocks may differ.
const LEEWAY_SECONDS: u64 = 10;
/// Tokens whose signature is not checked again.
const KNOWN_MAX: usize = 4096;
/// Longer tokens are none that we issue: they are not remembered.
const KNOWN_BYTES_MAX: usize = 4096;
/// Bytes of an uncompressed P-256 point without its marker.
const POINT_BYTES: usize = 64;

/// Why the signing key is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// Not a P-256 private key in PKCS#8 PEM.
    #[error("the service account key is no PKCS#8 PEM of a P-256 key")]
    Encoding(#[source] jsonwebtoken::errors::Error),
    /// Not the public key of a P-256 key.
    #[error("the service account key's public part cannot be read")]
    Public,
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// Signature, time, issuer or audience do not hold.
    #[error("the token is not valid")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// The token is for somebody else.
    #[error("token audiences {given:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// Whom it is for.
        given: Vec<String>,
        /// Who asks.
        wanted: Vec<String>,
    },
}

/// For whom and how long a token is issued.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub account: String,
    /// Uid of the account.
    pub account_uid: String,
    /// Audiences; empty is the API server itself.
    pub audiences: Vec<String>,
    /// Life in seconds, kept within [`SECONDS_MIN`] and [`SECONDS_MAX`].
    pub expiration_seconds: i64,
    /// Name and uid of the pod it is bound to.
    pub pod: Option<(String, String)>,
    /// Name and uid of the node the pod runs on, or the token is bound to.
    pub node: Option<(String, String)>,
    /// Name and uid of the secret it is bound to.
    pub secret: Option<(String, String)>,
}

/// A signed token.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The JWT.
    pub token: String,
    /// Unix second at which it ends.
    pub expires_at: i64,
    /// Its audiences.
    pub audiences: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

impl Claims {
    /// Whether it is in force at the Unix second `now`, give or take the leeway.
    fn check_time(&self, now: u64) -> Result<(), jsonwebtoken::errors::Error> {
        use jsonwebtoken::errors::ErrorKind;
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let leeway = i64::try_from(LEEWAY_SECONDS).unwrap_or_default();
        if self.exp.saturating_add(leeway) < now {
            return Err(ErrorKind::ExpiredSignature.into());
        }
        if self.nbf.saturating_sub(leeway) > now {
            return Err(ErrorKind::ImmatureSignature.into());
        }
        Ok(())
    }
}

/// Who a valid token speaks for, and the objects that must still exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSubject {
    /// The user.
    pub user: User,
    /// Namespace of the account and the pod.
    pub namespace: String,
    /// Name and uid of the account.
    pub account: (String, String),
    /// Name and uid of the pod it is bound to.
    pub pod: Option<(String, String)>,
    /// Name and uid of the pod's node, or of the node it is bound to.
    pub node: Option<(String, String)>,
    /// Name and uid of the secret it is bound to.
    pub secret: Option<(String, String)>,
    /// Which of the wanted audiences it is for.
    pub audiences: Vec<String>,
}

/// A key that verifies.
struct VerifyingKey {
    decoding: DecodingKey,
    id: String,
    point: Vec<u8>,
}

impl VerifyingKey {
    /// Of a SubjectPublicKeyInfo in DER.
    fn new(public_der: &[u8]) -> Result<Self, TokenKeyError> {
        let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(public_der)
            .map_err(|_fault| TokenKeyError::Public)?;
        let point = info
            .subject_public_key
            .data
            .strip_prefix(&[4])
            .unwrap_or_default()
            .to_vec();
        if point.len() != POINT_BYTES {
            return Err(TokenKeyError::Public);
        }
        let (x, y) = point.split_at(POINT_BYTES / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let decoding = DecodingKey::from_ec_components(&x, &y).map_err(TokenKeyError::Encoding)?;
        // The first bytes of the key name it well enough to tell two keys apart.
        let id = URL_SAFE_NO_PAD.encode(&point[..16]);
        Ok(Self {
            decoding,
            id,
            point,
        })
    }
}

/// Signs and checks tokens.
pub struct TokenKeys {
    encoding: EncodingKey,
    /// The signing key first.
    verifying: Vec<VerifyingKey>,
    /// Tokens whose signature and issuer were found to hold, whole, with what they say. The keys of
    /// a process do not change, so only time can end what is here: it is looked at each time.
    known: Mutex<HashMap<Box<str>, Arc<Claims>>>,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.verifying.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("TokenKeys")
            .field("key_ids", &ids)
            .finish_non_exhaustive()
    }
}

impl TokenKeys {
    /// Keys from a PKCS#8 private key (PEM), its public key, and the public keys that signed
    /// before it (each a SubjectPublicKeyInfo in DER).
    ///
    /// # Errors
    /// One is not of a P-256 key.
    pub fn new<K: AsRef<[u8]>>(
        private_pem: &str,
        public_der: &[u8],
        older: &[K],
    ) -> Result<Self, TokenKeyError> {
        let encoding =
            EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(TokenKeyError::Encoding)?;
        let mut verifying = vec![VerifyingKey::new(public_der)?];
        for key in older {
            verifying.push(VerifyingKey::new(key.as_ref())?);
        }
        Ok(Self {
            encoding,
            verifying,
            known: Mutex::default(),
        })
    }

    /// Signs a token. `now` is a Unix second.
    ///
    /// # Errors
    /// The signature fails.
    pub fn issue(&self, request: &IssueRequest, now: i64) -> Result<IssuedToken, ClaimsError> {
        let seconds = request.expiration_seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        let audiences = match request.audiences.as_slice() {
            [] => vec![ISSUER.to_owned()],
            given => given.to_vec(),
        };
        let named = |pair: &(String, String)| Named {
            name: pair.0.clone(),
            uid: pair.1.clone(),
        };
        let claims = Claims {
            aud: audiences.clone(),
            exp: now + seconds,
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            jti: crate::server::new_uid(),
            sub: format!(
                "system:serviceaccount:{}:{}",
                request.namespace, request.account
            ),
            bound: Bound {
                namespace: request.namespace.clone(),
                serviceaccount: Named {
                    name: request.account.clone(),
                    uid: request.account_uid.clone(),
                },
                pod: request.pod.as_ref().map(named),
                node: request.node.as_ref().map(named),
                secret: request.secret.as_ref().map(named),
            },
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = self.verifying.first().map(|key| key.id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding)?;
        Ok(IssuedToken {
            token,
            expires_at: now + seconds,
            audiences,
        })
    }

    /// Checks a token that is to be for one of `audiences` (empty: this API server).
    ///
    /// # Errors
    /// Signature, time, issuer or audience do not hold.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<TokenSubject, ClaimsError> {
        let claims = self.claims(token)?;
        let ours = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() {
            &ours
        } else {
            audiences
        };
        let mut shared = wanted.to_vec();
        shared.retain(|audience| claims.aud.contains(audience));
        if shared.is_empty() {
            return Err(ClaimsError::Audience {
                given: claims.aud.clone(),
                wanted: wanted.to_vec(),
            });
        }
        Ok(subject(&claims, shared))
    }

    /// What a token says, if its signature, issuer and time hold.
    fn claims(&self, token: &str) -> Result<Arc<Claims>, ClaimsError> {
        let known = self.known.lock().get(token).cloned();
        if let Some(claims) = known {
            claims.check_time(jsonwebtoken::get_current_timestamp())?;
            return Ok(claims);
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_issuer(&[ISSUER]);
        // Compared by the caller, to answer which.
        rules.validate_aud = false;
        let id = jsonwebtoken::decode_header(token)?.kid.unwrap_or_default();
        let key = self
            .verifying
            .iter()
            .find(|key| key.id == id)
            .ok_or(jsonwebtoken::errors::ErrorKind::InvalidSignature)
            .map_err(jsonwebtoken::errors::Error::from)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &rules)?.claims;
        let claims = Arc::new(claims);
        if token.len() <= KNOWN_BYTES_MAX {
            let mut known = self.known.lock();
            if known.len() >= KNOWN_MAX {
                // Those in use are back at their next request.
                known.clear();
            }
            known.insert(token.into(), Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let keys = self.verifying.iter().map(|key| {
            let (x, y) = key.point.split_at(POINT_BYTES / 2);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        });
        json!({"keys": keys.collect::<Vec<Value>>()})
    }
}

fn subject(claims: &Claims, audiences: Vec<String>) -> TokenSubject {
    let Bound {
        namespace,
        serviceaccount,
        pod,
        node,
        secret,
    } = &claims.bound;
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ];
    // The name comes from what is signed beside the subject, so the two cannot differ.
    let name = format!("system:serviceaccount:{namespace}:{}", serviceaccount.name);
    let mut user = User::known(&name, groups);
    user.uid.clone_from(&serviceaccount.uid);
    let mut note = |key: &str, value: &str| {
        user.extra.insert(
            format!("authentication.kubernetes.io/{key}"),
            vec![value.to_owned()],
        );
    };
    note("credential-id", &format!("JTI={}", claims.jti));
    for (what, named) in [("pod", pod), ("node", node)] {
        if let Some(named) = named {
            note(&format!("{what}-name"), &named.name);
            note(&format!("{what}-uid"), &named.uid);
        }
    }
    let pair = |named: &Named| (named.name.clone(), named.uid.clone());
    TokenSubject {
        user,
        namespace: namespace.clone(),
        account: pair(serviceaccount),
        pod: pod.as_ref().map(pair),
        node: node.as_ref().map(pair),
        secret: secret.as_ref().map(pair),
        audiences,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    fn pair() -> rcgen::KeyPair {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn of(pair: &rcgen::KeyPair, older: &[Vec<u8>]) -> TokenKeys {
        let public = pair.subject_public_key_info();
        TokenKeys::new(&pair.serialize_pem(), &public, older).unwrap()
    }

    fn keys() -> TokenKeys {
        of(&pair(), &[])
    }

    fn request() -> IssueRequest {
        IssueRequest {
            namespace: "d".to_owned(),
            account: "default".to_owned(),
            account_uid: "u1".to_owned(),
            audiences: Vec::new(),
            expiration_seconds: 1,
            pod: Some(("p".to_owned(), "u2".to_owned())),
            node: None,
            secret: None,
        }
    }

    #[test]
    fn a_token_speaks_for_its_account_until_it_ends() {
        let keys = keys();
        let now = jiff::Timestamp::now().as_second();
        let issued = keys.issue(&request(), now).unwrap();
        assert_eq!(issued.expires_at, now + SECONDS_MIN);
        let subject = keys.verify(&issued.token, &[]).unwrap();
        assert_eq!(subject.user.name, "system:serviceaccount:d:default");
        assert!(subject.user.in_group("system:serviceaccounts:d"));
        assert_eq!(subject.pod, Some(("p".to_owned(), "u2".to_owned())));
        let old = keys.issue(&request(), now - SECONDS_MIN - 60).unwrap();
        keys.verify(&old.token, &[]).unwrap_err();
    }

    #[test]
    fn a_known_token_is_not_in_force_for_longer_and_known_ones_are_bounded() {
        let keys = keys();
        let now = jiff::Timestamp::now().as_second();
        let issued = keys.issue(&request(), now).unwrap();
        let first = keys.verify(&issued.token, &[]).unwrap();
        assert_eq!(keys.verify(&issued.token, &[]).unwrap(), first);
        let other = ["other".to_owned()];
        keys.verify(&issued.token, &other).unwrap_err();
        let claims = keys.claims(&issued.token).unwrap();
        let at = |seconds: i64| u64::try_from(seconds).unwrap();
        let leeway = i64::try_from(LEEWAY_SECONDS).unwrap();
        for (second, holds) in [
            (now - leeway - 1, false),
            (now - leeway, true),
            (issued.expires_at + leeway, true),
            (issued.expires_at + leeway + 1, false),
        ] {
            assert_eq!(claims.check_time(at(second)).is_ok(), holds, "{second}");
        }
        let longer = format!("{}AAAA", issued.token);
        keys.verify(&longer, &[]).unwrap_err();
        let filler = || Arc::clone(&claims);
        keys.known
            .lock()
            .extend((0..KNOWN_MAX).map(|i| (i.to_string().into(), filler())));
        keys.verify(&keys.issue(&request(), now).unwrap().token, &[])
            .unwrap();
        assert_eq!(keys.known.lock().len(), 1);
    }

    #[test]
    fn a_token_of_another_key_or_audience_is_refused() {
        let (ours, theirs) = (keys(), keys());
        let now = jiff::Timestamp::now().as_second();
        let foreign = theirs.issue(&request(), now).unwrap();
        ours.verify(&foreign.token, &[]).unwrap_err();
        let vault = IssueRequest {
            audiences: vec!["vault".to_owned()],
            ..request()
        };
        let vaults = ours.issue(&vault, now).unwrap();
        ours.verify(&vaults.token, &[]).unwrap_err();
        let wanted = ["other".to_owned(), "vault".to_owned()];
        let subject = ours.verify(&vaults.token, &wanted).unwrap();
        assert_eq!(subject.audiences, ["vault"]);
    }

    #[test]
    fn a_new_key_signs_and_the_old_one_still_verifies() {
        let (old, new) = (pair(), pair());
        let now = jiff::Timestamp::now().as_second();
        let before = of(&old, &[]).issue(&request(), now).unwrap();
        let rotated = of(&new, &[old.subject_public_key_info()]);
        rotated.verify(&before.token, &[]).unwrap();
        let after = rotated.issue(&request(), now).unwrap();
        rotated.verify(&after.token, &[]).unwrap();
        of(&old, &[]).verify(&after.token, &[]).unwrap_err();
        assert_eq!(rotated.jwks()["keys"].as_array().unwrap().len(), 2);
    }
}
