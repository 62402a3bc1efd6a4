//! The cluster's certificate authority and what it issues.
//!
//! Owns: `<data-dir>/pki/{ca.crt, ca.key, sa.key, join.token, seal.keys}`, made at first start; `sa.key` is
//! replaced by [`rotate_token_key`], which keeps the older public keys in `sa.pub.old`. Keys are 0600. Certificates of servers and clients are issued on demand and not kept.

mod files;
mod issue;
mod kubeconfig;
mod request;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

pub use self::issue::{Identity, NODE_CERTIFICATE_DAYS};
pub use self::kubeconfig::{Kubeconfig, write_kubeconfig};
use crate::auth::{TokenKeyError, TokenKeys};
pub use crate::sealing::SealKeyError;
use crate::sealing::{self, SealKeys};

/// Days that the authority is valid: ten years.
const CA_DAYS: u64 = 3650;
/// How many replaced token keys still verify: the oldest have no token that is valid.
const OLDER_KEYS_MAX: usize = 16;
/// File of the sealing keys.
const SEAL_KEYS: &str = "seal.keys";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate is not what it must be, or could not be made.
    #[error("{what}")]
    Certificate {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// The service account key is unusable.
    #[error("service account key {}", path.display())]
    TokenKey {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenKeyError,
    },
    /// The sealing keys are unusable.
    #[error("sealing keys {}", path.display())]
    SealKey {
        /// The keys' file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealKeyError,
    },
    /// A signing request asks for something that is not given.
    #[error("certificate signing request refused: {why}")]
    Refused {
        /// What is wrong with it.
        why: String,
    },
}

/// The cluster's authority.
pub struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    tokens: Arc<TokenKeys>,
    join_token: String,
    sealing: Arc<SealKeys>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens `dir`, or makes a new authority there. Blocking: call it before serving.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds something else.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        files::make_private_dir(dir)?;
        // Several control planes may share the directory: the first makes what the others find.
        let _lock = files::lock(dir)?;
        let ca_key = load_or_make_key(&dir.join("ca.key"))?;
        let ca_path = dir.join("ca.crt");
        let ca_pem = match files::read(&ca_path)? {
            Some(pem) => pem,
            None => {
                let pem = make_ca(&ca_key)?;
                files::write(&ca_path, pem.as_bytes(), files::PUBLIC)?;
                pem
            }
        };
        let issuer =
            Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|source| PkiError::Certificate {
                what: format!("read {}", ca_path.display()),
                source,
            })?;
        let sa_path = dir.join("sa.key");
        let sa_key = load_or_make_key(&sa_path)?;
        let older = older_token_keys(&dir.join("sa.pub.old"))?;
        let public = sa_key.subject_public_key_info();
        let tokens =
            TokenKeys::new(&sa_key.serialize_pem(), &public, &older).map_err(|source| {
                PkiError::TokenKey {
                    path: sa_path,
                    source,
                }
            })?;
        let join_token = load_or_make_token(&dir.join("join.token"))?;
        Ok(Self {
            ca_pem,
            issuer,
            tokens: Arc::new(tokens),
            join_token,
            sealing: load_or_make_seal_keys(&dir.join(SEAL_KEYS))?,
        })
    }

    /// The keys with which secrets are sealed at rest.
    pub(crate) fn sealing(&self) -> &Arc<SealKeys> {
        &self.sealing
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The secret with which a new node asks for its certificate.
    #[must_use]
    pub fn join_token(&self) -> &str {
        &self.join_token
    }

    /// Whether `token` is the join token. Takes the same time for every wrong one of its length.
    #[must_use]
    pub fn is_join_token(&self, token: &str) -> bool {
        let (ours, theirs) = (self.join_token.as_bytes(), token.as_bytes());
        let differences = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
        ours.len() == theirs.len() && differences == 0
    }

    /// Signs and checks service account tokens.
    #[must_use]
    pub fn tokens(&self) -> &Arc<TokenKeys> {
        &self.tokens
    }
}

fn load_or_make_key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = files::read(path)? {
        return KeyPair::from_pem(&pem).map_err(|source| PkiError::Certificate {
            what: format!("read key {}", path.display()),
            source,
        });
    }
    let key = make_key(path)?;
    files::write(path, key.serialize_pem().as_bytes(), files::SECRET)?;
    Ok(key)
}

/// The public keys that signed service account tokens before the present one.
fn older_token_keys(path: &Path) -> Result<Vec<SubjectPublicKeyInfoDer<'static>>, PkiError> {
    let text = files::read(path)?.unwrap_or_default();
    SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_fault| PkiError::TokenKey {
            path: path.to_owned(),
            source: TokenKeyError::Public,
        })
}

/// Makes a new key for service account tokens in `dir`. Tokens of the older keys stay valid until
/// they end. Servers take the new key at their next start.
///
/// # Errors
/// A file cannot be read or written, or holds something else.
pub fn rotate_token_key(dir: &Path) -> Result<(), PkiError> {
    let path = dir.join("sa.key");
    let present = load_or_make_key(&path)?;
    let older_path = dir.join("sa.pub.old");
    let older = files::read(&older_path)?.unwrap_or_default();
    let mut keys: Vec<&str> = older.split_inclusive(PEM_END).collect();
    let present = present.public_key_pem();
    keys.insert(0, &present);
    keys.retain(|key| key.contains(PEM_END));
    keys.truncate(OLDER_KEYS_MAX);
    let text: Vec<String> = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
    // The old key first: a crash between the two leaves a key that is listed twice.
    files::write(&older_path, text.concat().as_bytes(), files::PUBLIC)?;
    let key = make_key(&path)?;
    files::write(&path, key.serialize_pem().as_bytes(), files::SECRET)
}

fn load_or_make_seal_keys(path: &Path) -> Result<Arc<SealKeys>, PkiError> {
    let present = files::read(path)?;
    let unusable = |source| PkiError::SealKey {
        path: path.to_owned(),
        source,
    };
    let (keys, made) = sealing::load_or_make(present.as_deref(), Some(path)).map_err(unusable)?;
    if let Some(text) = made {
        files::write(path, text.as_bytes(), files::SECRET)?;
    }
    Ok(keys)
}

/// Puts a new sealing key on top of those in `dir`. Servers take it at their next start, and seal
/// everything anew with it; the older keys must stay until all have.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn rotate_sealing_key(dir: &Path) -> Result<(), PkiError> {
    let path = dir.join(SEAL_KEYS);
    load_or_make_seal_keys(&path)?;
    let present = files::read(&path)?.unwrap_or_default();
    let text = sealing::rotate(&present, &path).map_err(|source| PkiError::SealKey {
        path: path.clone(),
        source,
    })?;
    files::write(&path, text.as_bytes(), files::SECRET)
}

fn make_key(path: &Path) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| PkiError::Certificate {
        what: format!("make key {}", path.display()),
        source,
    })
}

fn load_or_make_token(path: &Path) -> Result<String, PkiError> {
    if let Some(token) = files::read(path)? {
        return Ok(token.trim().to_owned());
    }
    // 192 bits from the operating system's generator.
    let secret: [u8; 24] = rand::random();
    let token = URL_SAFE_NO_PAD.encode(secret);
    files::write(path, token.as_bytes(), files::SECRET)?;
    Ok(token)
}

fn make_ca(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "skep-ca");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    issue::set_validity(&mut params, CA_DAYS);
    let made = params.self_signed(key);
    let made = made.map_err(|source| PkiError::Certificate {
        what: "sign the authority's certificate".to_owned(),
        source,
    })?;
    Ok(made.pem())
}

#[cfg(test)]
mod tests;
