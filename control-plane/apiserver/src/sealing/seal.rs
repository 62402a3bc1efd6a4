//! The seal: AES-256-GCM under a key of its own for every value.
//!
//! `MAGIC key-id salt ciphertext tag`. The value's key and nonce come by HKDF-SHA256 from the
//! sealing key and a random salt of 32 bytes, so no pair is used twice however many values there
//! are. The store key is authenticated with it: a sealed value cannot be moved to another object.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use bytes::Bytes;

use super::keys::{ID_BYTES, KEY_BYTES, SealKeys};

/// How a sealed value begins; no JSON does.
const MAGIC: &[u8] = b"skep-sealed-1:";
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + ID_BYTES + SALT_BYTES;

/// Why a value was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// Sealed with a key that the key file does not have.
    #[error("sealed with key {id}, which is not in the key file")]
    NoKey {
        /// The key's id.
        id: String,
    },
    /// Too short to be sealed.
    #[error("the sealed value is cut off")]
    Short,
    /// The bytes, the key or the store key are not those it was sealed with.
    #[error("the sealed value was changed, or belongs to another object")]
    Broken,
}

pub(super) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(MAGIC)
}

/// Whether `value` is sealed with the present key.
pub(super) fn is_current(keys: &SealKeys, value: &[u8]) -> bool {
    value
        .strip_prefix(MAGIC)
        .is_some_and(|rest| rest.starts_with(&keys.current().id))
}

pub(super) fn seal(keys: &SealKeys, name: &[u8], value: &[u8]) -> Result<Bytes, SealError> {
    let key = keys.current();
    let salt: [u8; SALT_BYTES] = rand::random();
    let (cipher, nonce) = derive(&key.secret, &salt)?;
    let mut sealed = value.to_vec();
    cipher
        .seal_in_place_append_tag(nonce, Aad::from(name), &mut sealed)
        .map_err(|_fault| SealError::Broken)?;
    let mut out = Vec::with_capacity(HEAD_BYTES + sealed.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&key.id);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&sealed);
    Ok(Bytes::from(out))
}

pub(super) fn open(keys: &SealKeys, name: &[u8], value: &[u8]) -> Result<Bytes, SealError> {
    let rest = value.strip_prefix(MAGIC).ok_or(SealError::Short)?;
    let (id, rest) = rest.split_at_checked(ID_BYTES).ok_or(SealError::Short)?;
    let (salt, sealed) = rest.split_at_checked(SALT_BYTES).ok_or(SealError::Short)?;
    let key = keys.find(id).ok_or_else(|| SealError::NoKey {
        id: String::from_utf8_lossy(id).into_owned(),
    })?;
    let (cipher, nonce) = derive(&key.secret, salt)?;
    let mut plain = sealed.to_vec();
    let length = cipher
        .open_in_place(nonce, Aad::from(name), &mut plain)
        .map_err(|_fault| SealError::Broken)?
        .len();
    plain.truncate(length);
    Ok(Bytes::from(plain))
}

/// Length of what is derived: a key and a nonce.
struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        KEY_BYTES + NONCE_LEN
    }
}

fn derive(secret: &[u8; KEY_BYTES], salt: &[u8]) -> Result<(LessSafeKey, Nonce), SealError> {
    let mut derived = [0_u8; KEY_BYTES + NONCE_LEN];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[b"skep seal"], Derived)
        .and_then(|made| made.fill(&mut derived))
        .map_err(|_fault| SealError::Broken)?;
    let (key, nonce) = derived.split_at(KEY_BYTES);
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_fault| SealError::Broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_fault| SealError::Broken)?;
    Ok((LessSafeKey::new(key), nonce))
}
