//! Who may do what, with kubectl: roles, reviews, impersonation, reconciliation.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Output, shared, until};

const NAMESPACE: &str = "authority";

fn kubectl(cluster: &Cluster, words: &[&str]) -> Result<Output> {
    let place = ["--namespace", NAMESPACE];
    let words: Vec<&str> = place.iter().chain(words).copied().collect();
    cluster.kubectl(&words)
}

#[test]
fn a_role_opens_a_namespace_for_a_user_and_its_pods() -> Result<()> {
    let cluster = shared()?;
    cluster.namespace(NAMESPACE)?;
    let run = |words: &[&str]| kubectl(&cluster, words)?.success();
    let eve = "--as=eve";
    kubectl(&cluster, &["get", "pods", eve])?.failure_saying(
        "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"authority\"",
    )?;
    run(&[
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=pods,deployments.apps",
    ])?;
    run(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--user=eve",
    ])?;
    run(&["get", "pods", eve])?;
    let may = run(&["auth", "can-i", "list", "deployments.apps", eve])?;
    ensure!(may.stdout.trim() == "yes", "{}", may.stdout);
    let may = kubectl(&cluster, &["auth", "can-i", "delete", "pods", eve])?;
    ensure!(may.stdout.trim() == "no", "{}", may.stdout);
    let rules = run(&["auth", "can-i", "--list", eve])?.stdout;
    for line in [
        "deployments.apps",
        "selfsubjectreviews.authentication.k8s.io",
        "/healthz",
    ] {
        ensure!(rules.contains(line), "{line} is missing in:\n{rules}");
    }
    let me = run(&["auth", "whoami", eve])?.stdout;
    ensure!(
        me.contains("eve") && me.contains("system:authenticated"),
        "{me}"
    );
    // A pod's own token, by the same rules.
    run(&[
        "create",
        "rolebinding",
        "pods",
        "--role=reader",
        "--serviceaccount=authority:default",
    ])?;
    let account = "--as=system:serviceaccount:authority:default";
    run(&["get", "deployments", account])?;
    // Nobody grants what they do not hold.
    run(&[
        "create",
        "rolebinding",
        "eve",
        "--clusterrole=admin",
        "--user=eve",
    ])?;
    let more = [
        "create",
        "role",
        "more",
        "--verb=get",
        "--resource=nodes",
        eve,
    ];
    kubectl(&cluster, &more)?
        .failure_saying("is attempting to grant RBAC permissions not currently held")?;
    run(&["get", "roles,rolebindings", "--output=wide"])?;
    Ok(())
}

#[test]
fn reconcile_adds_what_is_missing_and_default_roles_aggregate() -> Result<()> {
    let cluster = shared()?;
    let name = "authority-reconcile";
    cluster.namespace(name)?;
    let role = |verbs: &str| {
        format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: r, \
             namespace: {name}}}, rules: [{{apiGroups: [''], resources: [pods], verbs: {verbs}}}]}}"
        )
    };
    for verbs in ["[get]", "[list]"] {
        let words = ["auth", "reconcile", "--filename=-"];
        cluster
            .kubectl_with_input(&words, &role(verbs))?
            .success()?;
    }
    let get = ["get", "role", "r", "--namespace", name, "--output=json"];
    let rules = cluster.kubectl(&get)?.success()?.stdout;
    ensure!(
        rules.contains("\"get\"") && rules.contains("\"list\""),
        "{rules}"
    );
    let part = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: \
                authority-part, labels: {authority-part: x}}, rules: [{apiGroups: [acme.com], \
                resources: [widgets], verbs: [get]}]}";
    let whole = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: \
                 authority-whole}, aggregationRule: {clusterRoleSelectors: [{matchLabels: \
                 {authority-part: x}}]}, rules: []}";
    let apply = ["apply", "--filename=-"];
    for manifest in [whole, part] {
        cluster.kubectl_with_input(&apply, manifest)?.success()?;
    }
    let get = ["get", "clusterrole", "authority-whole", "--output=json"];
    until(
        Duration::from_secs(10),
        "the role collects its part",
        || {
            let rules = cluster.kubectl(&get)?.success()?.stdout;
            ensure!(rules.contains("widgets"), "{rules}");
            Ok(())
        },
    )?;
    let gone = ["delete", "clusterrole", "authority-whole", "authority-part"];
    cluster.kubectl(&gone)?.success()?;
    Ok(())
}
