//! Tokens that rest on objects: service account tokens end with what they are bound to, bootstrap
//! tokens are secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::{TokenSubject, User};
use crate::object::{Obj, ObjKey};
use crate::server::Server;
use crate::tree;

/// Seconds for which an object that is being deleted still carries its tokens: who ends cleanly
/// needs them.
const DELETION_LEEWAY_SECONDS: i64 = 60;
const BOOTSTRAP_GROUP: &str = "system:bootstrappers";
const BOOTSTRAP_TYPE: &str = "bootstrap.kubernetes.io/token";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Whether everything that a verified token rests on still exists.
///
/// # Errors
/// What does not.
pub(crate) fn check_bound(
    server: &Server,
    subject: &TokenSubject,
    now: Timestamp,
) -> Result<(), String> {
    let check = |plural: &str, namespace: &str, (name, uid): &(String, String)| {
        let found = server
            .registry
            .by_plural("", "v1", plural)
            .and_then(|kind| server.cache.of(&kind).get(&ObjKey::new(namespace, name)));
        let what = plural.strip_suffix('s').unwrap_or(plural);
        match found {
            Some(obj) if *obj.meta.uid != **uid => Err(format!("{what} UID does not match claim")),
            Some(obj) if has_ended(&obj, now) => Err(format!("{what} has been deleted")),
            Some(_) => Ok(()),
            None => Err(format!("{what} has been invalidated")),
        }
    };
    let namespace = subject.namespace.as_str();
    check("serviceaccounts", namespace, &subject.account)?;
    if let Some(pod) = &subject.pod {
        check("pods", namespace, pod)?;
    } else if let Some(secret) = &subject.secret {
        check("secrets", namespace, secret)?;
    } else if let Some(node) = &subject.node {
        check("nodes", "", node)?;
    }
    Ok(())
}

fn has_ended(obj: &Obj, now: Timestamp) -> bool {
    if !obj.meta.terminating {
        return false;
    }
    let value = obj.value();
    let at = tree::text(&value, &["metadata", "deletionTimestamp"]);
    at.parse::<Timestamp>()
        .is_ok_and(|at| now.as_second() - at.as_second() > DELETION_LEEWAY_SECONDS)
}

/// The user of a bootstrap token: a secret `bootstrap-token-ID` in `kube-system` holds it, may be
/// used to authenticate and has not expired.
pub(crate) fn bootstrap_token_user(server: &Server, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, count: usize| {
        text.len() == count
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !plain(id, ID_CHARS) || !plain(secret, SECRET_CHARS) {
        return None;
    }
    let kind = server.registry.by_plural("", "v1", "secrets")?;
    let key = ObjKey::new("kube-system", &format!("bootstrap-token-{id}"));
    let object = server.cache.of(&kind).get(&key)?;
    if object.meta.terminating {
        return None;
    }
    user_of(&object.value(), id, secret, now)
}

fn user_of(object: &Value, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let field = |name: &str| -> Option<String> {
        let bytes = STANDARD.decode(tree::text(object, &["data", name])).ok()?;
        String::from_utf8(bytes).ok()
    };
    let held = field("token-secret")?;
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(held.as_bytes(), secret.as_bytes());
    let usable = tree::text(object, &["type"]) == BOOTSTRAP_TYPE
        && same.is_ok()
        && field("token-id").as_deref() == Some(id)
        && field("usage-bootstrap-authentication").as_deref() == Some("true");
    let expired = match field("expiration") {
        None => false,
        // An unreadable time has passed.
        Some(text) => !text.parse::<Timestamp>().is_ok_and(|end| now < end),
    };
    if !usable || expired {
        return None;
    }
    let extra = field("auth-extra-groups").unwrap_or_default();
    let extra: Vec<String> = extra
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    // A secret that names other groups is no token: it could name the owners.
    if extra
        .iter()
        .any(|group| !group.starts_with("system:bootstrappers:"))
    {
        return None;
    }
    let groups = std::iter::once(BOOTSTRAP_GROUP.to_owned()).chain(extra);
    Some(User::known(&format!("system:bootstrap:{id}"), groups))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(change: impl Fn(&mut Value)) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        let mut object = json!({"type": BOOTSTRAP_TYPE, "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "expiration": encode("2030-01-01T00:00:00Z"),
            "auth-extra-groups": encode("system:bootstrappers:kubeadm:default"),
        }});
        change(&mut object);
        object
    }

    fn user(object: &Value, secret: &str) -> Option<User> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        user_of(object, "abcdef", secret, now)
    }

    #[test]
    fn a_bootstrap_token_speaks_for_a_bootstrapper() {
        let user = user(&secret(|_| ()), "0123456789abcdef").unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            [
                BOOTSTRAP_GROUP,
                "system:bootstrappers:kubeadm:default",
                super::super::AUTHENTICATED
            ]
        );
    }

    #[test]
    fn a_token_that_is_wrong_expired_or_for_something_else_speaks_for_nobody() {
        let encode = |text: &str| json!(STANDARD.encode(text));
        assert!(user(&secret(|_| ()), "0123456789abcdeg").is_none());
        for (field, value) in [
            ("expiration", "2020-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "false"),
            ("token-id", "xxxxxx"),
            ("auth-extra-groups", "system:masters"),
        ] {
            let broken = secret(|object| object["data"][field] = encode(value));
            assert!(user(&broken, "0123456789abcdef").is_none(), "{field}");
        }
        let other = secret(|object| object["type"] = json!("Opaque"));
        assert!(user(&other, "0123456789abcdef").is_none());
    }
}
