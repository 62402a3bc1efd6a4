//! What is logged of whom, and that a log never stands in the way.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::User;
use crate::http::ResourcePath;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: None
  nonResourceURLs: [/healthz*, /version]
- level: Metadata
  resources: [{group: '', resources: [secrets, pods/log]}]
- level: RequestResponse
  userGroups: [dev]
  namespaces: [d]
  resources: [{group: apps}]
- level: Request
  omitStages: [ResponseStarted]
";

fn asked(verb: &str, group: &str, plural: &str, sub: &str, namespace: &str) -> Asked {
    Asked {
        verb: verb.to_owned(),
        uri: "/x".to_owned(),
        resource: Some(ResourcePath {
            group: group.to_owned(),
            version: "v1".to_owned(),
            namespace: namespace.to_owned(),
            plural: plural.to_owned(),
            name: "n".to_owned(),
            subresource: sub.to_owned(),
        }),
        ..Asked::default()
    }
}

fn level(policy: &AuditPolicy, user: &User, asked: &Asked) -> &'static str {
    policy.verdict(user, asked).level.name()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = AuditPolicy::parse(POLICY).unwrap();
    let bob = User::known("bob", ["dev".to_owned()]);
    let proxy = User::known("system:kube-proxy", []);
    let path = |path: &str| Asked {
        verb: "get".to_owned(),
        path: path.to_owned(),
        ..Asked::default()
    };
    assert_eq!(
        level(&policy, &proxy, &asked("watch", "", "services", "", "")),
        "None"
    );
    assert_eq!(
        level(&policy, &proxy, &asked("list", "", "services", "", "")),
        "Request"
    );
    assert_eq!(
        level(&policy, &bob, &asked("get", "", "secrets", "", "d")),
        "Metadata"
    );
    assert_eq!(
        level(&policy, &bob, &asked("get", "", "pods", "log", "d")),
        "Metadata"
    );
    assert_eq!(
        level(&policy, &bob, &asked("get", "", "pods", "", "d")),
        "Request"
    );
    let deployment = |ns| asked("create", "apps", "deployments", "", ns);
    assert_eq!(level(&policy, &bob, &deployment("d")), "RequestResponse");
    assert_eq!(level(&policy, &bob, &deployment("e")), "Request");
    assert_eq!(level(&policy, &bob, &path("/healthz/ping")), "None");
    assert_eq!(level(&policy, &bob, &path("/metrics")), "Request");
}

#[test]
fn an_unusable_policy_is_refused_with_the_place() {
    for (text, what) in [
        ("a: [", "the audit policy is no YAML"),
        (
            "apiVersion: v1\nkind: Pod",
            "the audit policy is \"v1 Pod\"",
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy",
            "the audit policy has no rules",
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]",
            "audit policy: rules[0].level: \"All\" is not one of",
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [X]\nrules: [{level: None}]",
            "audit policy: omitStages: \"X\"",
        ),
    ] {
        let refused = AuditPolicy::parse(text).unwrap_err().to_string();
        assert!(refused.starts_with(what), "{refused}");
    }
}

fn event(queue: &mut mpsc::Receiver<Bytes>) -> Value {
    serde_json::from_slice(&queue.try_recv().unwrap()).unwrap()
}

#[test]
fn an_event_says_who_what_and_what_became_of_it() {
    let policy = Arc::new(AuditPolicy::parse(POLICY).unwrap());
    let (log, mut queue) = AuditLog::new(policy);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let bob = User::known("bob", ["dev".to_owned()]);
    let trail = Trail::new(
        log.clone(),
        "id".to_owned(),
        asked("create", "apps", "deployments", "", "d"),
        now,
    );
    trail.user(&User::known("admin", []), Some(&bob));
    trail.decision("allow", "because");
    let body = serde_json::json!({"metadata": {"name": "n", "managedFields": [1]}});
    trail.request(&body);
    trail.complete(201, &body, now);
    let seen = event(&mut queue);
    assert_eq!(seen["stage"], "ResponseComplete");
    assert_eq!(seen["level"], "Request", "the policy sees who really asks");
    assert_eq!(seen["user"]["username"], "admin");
    assert_eq!(seen["impersonatedUser"]["username"], "bob");
    assert_eq!(seen["objectRef"]["apiGroup"], "apps");
    assert_eq!(seen["responseStatus"]["code"], 201);
    assert_eq!(
        seen["requestObject"]["metadata"],
        serde_json::json!({"name": "n"})
    );
    assert_eq!(
        seen["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert_eq!(seen["stageTimestamp"], "1970-01-01T00:00:00.000000Z");
    assert!(seen.get("responseObject").is_none());
    let trail = Trail::new(
        log,
        "id".to_owned(),
        asked("create", "apps", "deployments", "", "d"),
        now,
    );
    trail.user(&bob, None);
    assert!(trail.wants_response());
    trail.complete(201, &body, now);
    assert_eq!(event(&mut queue)["responseObject"]["metadata"]["name"], "n");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let policy = Arc::new(AuditPolicy::parse(POLICY).unwrap());
    let (log, queue) = AuditLog::new(policy);
    for _ in 0..QUEUE_EVENTS + 3 {
        log.emit(Bytes::from_static(b"x\n"));
    }
    assert_eq!(log.counts().logged(), QUEUE_EVENTS as u64);
    assert_eq!(log.counts().dropped(), 3);
    drop(queue);
}

#[tokio::test]
async fn a_full_file_is_put_aside_and_nothing_is_lost_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let policy = Arc::new(AuditPolicy::parse(POLICY).unwrap());
    let (log, queue) = AuditLog::new(Arc::clone(&policy));
    let config = AuditConfig {
        policy,
        path: path.clone(),
        bytes_max: 4096,
        backups: 2,
    };
    let stop = CancellationToken::new();
    let counts = Arc::clone(log.counts());
    let writing = tokio::spawn(write(config, queue, Arc::clone(&counts), stop.clone()));
    for i in 0..1000 {
        log.emit(Bytes::from(format!("{i:09}\n")));
    }
    stop.cancel();
    writing.await.unwrap();
    assert_eq!(counts.dropped(), 0);
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(text("audit.log").ends_with("000000999\n"));
    assert!(text("audit.log.1").len() <= 4096 && !dir.path().join("audit.log.3").exists());
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
