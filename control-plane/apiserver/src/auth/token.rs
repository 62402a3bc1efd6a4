//! Service account tokens: ES256 JWTs, bound to a pod where there is one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
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
    /// Name and uid of the node the pod runs on.
    pub node: Option<(String, String)>,
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
}

/// Signs and checks tokens.
pub struct TokenKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    point: Vec<u8>,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl TokenKeys {
    /// Keys from a PKCS#8 private key (PEM) and its public key (SubjectPublicKeyInfo, DER).
    ///
    /// # Errors
    /// Either is not of a P-256 key.
    pub fn new(private_pem: &str, public_der: &[u8]) -> Result<Self, TokenKeyError> {
        let encoding =
            EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(TokenKeyError::Encoding)?;
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
        let key_id = URL_SAFE_NO_PAD.encode(&point[..16]);
        Ok(Self {
            encoding,
            decoding,
            key_id,
            point,
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
            },
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding)?;
        Ok(IssuedToken {
            token,
            expires_at: now + seconds,
            audiences,
        })
    }

    /// Checks a token for use with this API server.
    ///
    /// # Errors
    /// Signature, time, issuer or audience do not hold.
    pub fn verify(&self, token: &str) -> Result<TokenSubject, ClaimsError> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[ISSUER]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules)?.claims;
        Ok(subject(claims))
    }

    /// The public key as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let (x, y) = self.point.split_at(POINT_BYTES / 2);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

fn subject(claims: Claims) -> TokenSubject {
    let Bound {
        namespace,
        serviceaccount,
        pod,
        node,
    } = claims.bound;
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ];
    let mut user = User::known(&claims.sub, groups);
    user.uid.clone_from(&serviceaccount.uid);
    let mut note = |key: &str, value: &str| {
        user.extra.insert(
            format!("authentication.kubernetes.io/{key}"),
            vec![value.to_owned()],
        );
    };
    note("credential-id", &format!("JTI={}", claims.jti));
    for (what, named) in [("pod", &pod), ("node", &node)] {
        if let Some(named) = named {
            note(&format!("{what}-name"), &named.name);
            note(&format!("{what}-uid"), &named.uid);
        }
    }
    TokenSubject {
        user,
        namespace,
        account: (serviceaccount.name, serviceaccount.uid),
        pod: pod.map(|pod| (pod.name, pod.uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> TokenKeys {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        use rcgen::PublicKeyData as _;
        TokenKeys::new(&pair.serialize_pem(), &pair.subject_public_key_info()).unwrap()
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
        }
    }

    #[test]
    fn a_token_speaks_for_its_account_until_it_ends() {
        let keys = keys();
        let now = jiff::Timestamp::now().as_second();
        let issued = keys.issue(&request(), now).unwrap();
        assert_eq!(issued.expires_at, now + SECONDS_MIN);
        let subject = keys.verify(&issued.token).unwrap();
        assert_eq!(subject.user.name, "system:serviceaccount:d:default");
        assert!(subject.user.in_group("system:serviceaccounts:d"));
        assert_eq!(subject.pod, Some(("p".to_owned(), "u2".to_owned())));
        let old = keys.issue(&request(), now - SECONDS_MIN - 60).unwrap();
        keys.verify(&old.token).unwrap_err();
    }

    #[test]
    fn a_token_of_another_key_or_audience_is_refused() {
        let (ours, theirs) = (keys(), keys());
        let now = jiff::Timestamp::now().as_second();
        let foreign = theirs.issue(&request(), now).unwrap();
        ours.verify(&foreign.token).unwrap_err();
        let vault = IssueRequest {
            audiences: vec!["vault".to_owned()],
            ..request()
        };
        let vaults = ours.issue(&vault, now).unwrap();
        ours.verify(&vaults.token).unwrap_err();
    }
}
