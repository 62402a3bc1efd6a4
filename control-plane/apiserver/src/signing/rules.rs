//! What each signer gives, and what becomes of a request. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::asked::Asked;
use super::ends;
use crate::auth::NODES;
use crate::tree;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

/// A certificate lives so long when nobody asks for less: a year.
const SECONDS_MAX: i64 = 365 * 86_400;
const SECONDS_MIN: i64 = 600;
const SETTLED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    /// It waits, and its signer is one whose requests may be approved without a person.
    MayApprove,
    /// It is approved and has no certificate.
    Sign,
    Remove(&'static str),
}

fn condition<'a>(request: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = tree::list(request, &["status", "conditions"]).iter();
    { conditions }.find(|it| it["type"] == kind && it["status"] != "False")
}

fn since(object: &Value, path: &[&str], now: Timestamp) -> SignedDuration {
    let at = tree::text(object, path).parse::<Timestamp>();
    at.map_or(SignedDuration::ZERO, |at| now.duration_since(at))
}

pub(super) fn fate(request: &Value, now: Timestamp) -> Fate {
    let meta = tree::at(request, &["metadata"]);
    if !tree::is_unset(tree::at(meta, &["deletionTimestamp"])) {
        return Fate::Keep;
    }
    let signer = tree::text(request, &["spec", "signerName"]);
    let certificate = tree::text(request, &["status", "certificate"]);
    let settled = |kind: &str| {
        condition(request, kind).is_some_and(|it| since(it, &["lastUpdateTime"], now) > SETTLED)
    };
    let has = |kind: &str| condition(request, kind).is_some();
    if settled("Denied") {
        return Fate::Remove("it was denied more than an hour ago");
    }
    if settled("Failed") {
        return Fate::Remove("it failed more than an hour ago");
    }
    if !certificate.is_empty() {
        if settled("Approved") {
            return Fate::Remove("its certificate was issued more than an hour ago");
        }
        let pem = STANDARD.decode(certificate).unwrap_or_default();
        let over = ends(&pem).is_some_and(|end| end < now);
        return if over {
            Fate::Remove("its certificate has expired")
        } else {
            Fate::Keep
        };
    }
    if has("Denied") || has("Failed") {
        return Fate::Keep;
    }
    if has("Approved") {
        let ours = [CLIENT, NODE_CLIENT, NODE_SERVING].contains(&signer);
        return if ours { Fate::Sign } else { Fate::Keep };
    }
    if since(meta, &["creationTimestamp"], now) > PENDING {
        return Fate::Remove("nobody has decided about it for a day");
    }
    if signer == NODE_CLIENT {
        Fate::MayApprove
    } else {
        Fate::Keep
    }
}

/// Seconds that the certificate is to be valid.
pub(super) fn seconds(request: &Value) -> u64 {
    let asked = tree::int(request, &["spec", "expirationSeconds"]).unwrap_or(SECONDS_MAX);
    asked.clamp(SECONDS_MIN, SECONDS_MAX).unsigned_abs()
}

/// Whether `signer` gives what is asked for.
///
/// # Errors
/// Why not.
pub(super) fn check(signer: &str, asked: &Asked, usages: &[&str]) -> Result<(), String> {
    match signer {
        CLIENT => check_client_usages(usages)?,
        NODE_CLIENT => {
            check_node(asked)?;
            if asked.hosts + asked.emails + asked.uris > 0 {
                return Err("subjectAltNames are not allowed".to_owned());
            }
            check_usages(usages, "client auth")?;
        }
        NODE_SERVING => {
            check_node(asked)?;
            if asked.emails > 0 {
                return Err("Email subjectAltNames are not allowed".to_owned());
            }
            if asked.uris > 0 {
                return Err("URI subjectAltNames are not allowed".to_owned());
            }
            if asked.hosts == 0 {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            check_usages(usages, "server auth")?;
        }
        _ => return Err(format!("{signer} is not signed by the cluster")),
    }
    if asked.organizations.len() > 1 {
        return Err(
            "more than one organization is not supported: ask for each group with a role \
                    binding of the user instead"
                .to_owned(),
        );
    }
    Ok(())
}

fn check_client_usages(usages: &[&str]) -> Result<(), String> {
    const OPTIONAL: [&str; 2] = ["digital signature", "key encipherment"];
    let other = |usage: &&&str| **usage != "client auth" && !OPTIONAL.contains(*usage);
    if let Some(usage) = usages.iter().find(other) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if usages.contains(&"client auth") {
        Ok(())
    } else {
        Err("missing required usage for client certificate: client auth".to_owned())
    }
}

fn check_node(asked: &Asked) -> Result<(), String> {
    if asked.organizations != [NODES] {
        return Err(format!("organization in CSR must be exactly [{NODES}]"));
    }
    if !asked.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

/// `required` and a signature, and at most the encipherment of keys beside them.
fn check_usages(usages: &[&str], required: &str) -> Result<(), String> {
    let mut found = usages.to_vec();
    found.sort_unstable();
    found.dedup();
    found.retain(|usage| *usage != "key encipherment");
    let mut wanted = [required, "digital signature"];
    wanted.sort_unstable();
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "usages must be exactly \"digital signature\", \"{required}\" and optionally \
         \"key encipherment\""
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(common_name: &str, organizations: &[&str], hosts: usize) -> Asked {
        Asked {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|it| (*it).to_owned()).collect(),
            hosts,
            ..Asked::default()
        }
    }

    #[test]
    fn each_signer_gives_what_it_is_for() {
        let client = ["client auth", "digital signature"];
        let node = ["client auth", "digital signature", "key encipherment"];
        let serving = ["server auth", "digital signature"];
        let jane = asked("jane", &["dev"], 0);
        let kubelet = asked("system:node:n", &[NODES], 0);
        let server = asked("system:node:n", &[NODES], 2);
        let cases: &[(&str, &Asked, &[&str], &str)] = &[
            (CLIENT, &jane, &client, ""),
            (
                CLIENT,
                &jane,
                &["digital signature"],
                "missing required usage",
            ),
            (
                CLIENT,
                &jane,
                &["client auth", "server auth"],
                "invalid usage",
            ),
            (
                CLIENT,
                &jane,
                &["client auth", "cert sign"],
                "invalid usage",
            ),
            (
                CLIENT,
                &asked("j", &["a", "b"], 0),
                &client,
                "more than one",
            ),
            (NODE_CLIENT, &kubelet, &node, ""),
            (NODE_CLIENT, &kubelet, &client, ""),
            (NODE_CLIENT, &kubelet, &serving, "usages must be"),
            (NODE_CLIENT, &server, &node, "subjectAltNames"),
            (NODE_CLIENT, &jane, &node, "organization"),
            (NODE_CLIENT, &asked("n", &[NODES], 0), &node, "common name"),
            (
                NODE_CLIENT,
                &asked("system:node:n", &[NODES, "system:masters"], 0),
                &node,
                "organization",
            ),
            (NODE_SERVING, &server, &serving, ""),
            (NODE_SERVING, &kubelet, &serving, "required"),
            (NODE_SERVING, &server, &client, "usages must be"),
            (
                "kubernetes.io/other",
                &jane,
                &client,
                "not signed by the cluster",
            ),
        ];
        for (signer, asked, usages, why) in cases {
            let answer = check(signer, asked, usages);
            match answer {
                Ok(()) => assert!(why.is_empty(), "{signer} {asked:?} {usages:?}"),
                Err(said) => assert!(!why.is_empty() && said.contains(why), "{signer}: {said}"),
            }
        }
    }

    #[test]
    fn a_request_is_signed_when_approved_and_goes_when_it_is_old() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().expect("a time");
        let request = |signer: &str, created: &str, status: Value| {
            json!({"metadata": {"creationTimestamp": created},
                "spec": {"signerName": signer}, "status": status})
        };
        let told = |kind: &str, at: &str| {
            json!({"conditions": [
            {"type": kind, "status": "True", "lastUpdateTime": at}]})
        };
        let (soon, old) = ("2026-01-02T11:30:00Z", "2026-01-02T10:30:00Z");
        let day = "2026-01-01T11:00:00Z";
        let mut issued = told("Approved", old);
        issued["certificate"] = json!("eA==");
        let mut fresh = told("Approved", soon);
        fresh["certificate"] = json!("eA==");
        let removed = |fate: Fate| matches!(fate, Fate::Remove(_));
        assert_eq!(fate(&request(CLIENT, soon, json!({})), now), Fate::Keep);
        assert_eq!(
            fate(&request(NODE_CLIENT, soon, json!({})), now),
            Fate::MayApprove
        );
        assert!(removed(fate(&request(CLIENT, day, json!({})), now)));
        assert_eq!(
            fate(&request(CLIENT, soon, told("Approved", soon)), now),
            Fate::Sign
        );
        assert_eq!(
            fate(&request("acme.com/x", soon, told("Approved", soon)), now),
            Fate::Keep
        );
        assert_eq!(
            fate(&request(CLIENT, soon, told("Denied", soon)), now),
            Fate::Keep
        );
        assert!(removed(fate(
            &request(CLIENT, soon, told("Denied", old)),
            now
        )));
        assert!(removed(fate(
            &request(CLIENT, soon, told("Failed", old)),
            now
        )));
        assert_eq!(fate(&request(CLIENT, soon, fresh), now), Fate::Keep);
        assert!(removed(fate(&request(CLIENT, soon, issued), now)));
    }

    #[test]
    fn a_year_is_the_longest_and_ten_minutes_the_shortest() {
        let of = |seconds: Value| super::seconds(&json!({"spec": {"expirationSeconds": seconds}}));
        assert_eq!(of(Value::Null), 31_536_000);
        assert_eq!(of(json!(3600)), 3600);
        assert_eq!(of(json!(1)), 600);
        assert_eq!(of(json!(i32::MAX)), 31_536_000);
    }
}
