//! Admission policies as an operator meets them, with kubectl: parameters in a custom resource, a
//! binding that denies in one namespace, one that warns in another.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Output, shared, until};

const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: replicalimits.rules.example.com}
spec:
  group: rules.example.com
  scope: Namespaced
  names: {plural: replicalimits, singular: replicalimit, kind: ReplicaLimit}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          max: {type: integer}
        x-kubernetes-validations:
        - {rule: self.max > 0, message: the limit must be positive}
";
const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.rules.example.com}
spec:
  failurePolicy: Fail
  paramKind: {apiVersion: rules.example.com/v1, kind: ReplicaLimit}
  matchConstraints:
    resourceRules:
    - apiGroups: [apps]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [deployments]
  variables:
  - {name: wanted, expression: object.spec.replicas}
  validations:
  - expression: variables.wanted <= params.max
    messageExpression: "'at most ' + string(params.max) + ' replicas, not ' + string(variables.wanted)"
"#;

fn binding(name: &str, namespace: &str, action: &str) -> String {
    format!(
        r"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}.rules.example.com}}
spec:
  policyName: replicas.rules.example.com
  validationActions: [{action}]
  paramRef: {{name: limit, parameterNotFoundAction: Deny}}
  matchResources:
    namespaceSelector:
      matchLabels: {{kubernetes.io/metadata.name: {namespace}}}
"
    )
}

const LIMIT: &str = r"
apiVersion: rules.example.com/v1
kind: ReplicaLimit
metadata: {name: limit}
max: 1
";

fn in_namespace(cluster: &Cluster, namespace: &str, words: &[&str]) -> Result<Output> {
    let words: Vec<&str> = ["-n", namespace].iter().chain(words).copied().collect();
    cluster.kubectl(&words)
}

fn apply_in(cluster: &Cluster, namespace: &str, manifest: &str) -> Result<Output> {
    cluster.kubectl_with_input(&["-n", namespace, "apply", "-f", "-"], manifest)
}

#[test]
fn a_policy_with_parameters_denies_here_and_warns_there() -> Result<()> {
    let cluster = shared()?;
    let (strict, lenient) = ("policies-strict", "policies-lenient");
    cluster.namespace(strict)?;
    cluster.namespace(lenient)?;
    cluster.apply(DEFINITION)?.success()?;
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=established",
            "crd/replicalimits.rules.example.com",
            "--timeout=10s",
        ])?
        .success()?;
    cluster.apply(POLICY)?.success()?;
    cluster.apply(&binding("deny", strict, "Deny"))?.success()?;
    cluster
        .apply(&binding("warn", lenient, "Warn"))?
        .success()?;
    let make = |namespace: &str, name: &str, replicas: &str| {
        let image = "--image=skep.local/busybox";
        let replicas = format!("--replicas={replicas}");
        let words = ["create", "deployment", name, image, &replicas];
        in_namespace(&cluster, namespace, &words)
    };
    make(strict, "early", "1")?.failure_saying(
        "failed to configure binding: no params found for policy binding with `Deny` \
         parameterNotFoundAction",
    )?;
    apply_in(&cluster, strict, &LIMIT.replace("max: 1", "max: 0"))?
        .failure_saying("the limit must be positive")?;
    apply_in(&cluster, strict, LIMIT)?.success()?;
    apply_in(&cluster, lenient, LIMIT)?.success()?;
    make(strict, "many", "2")?.failure_saying(
        "deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy \
         'replicas.rules.example.com' with binding 'deny.rules.example.com' denied request: at \
         most 1 replicas, not 2",
    )?;
    make(strict, "one", "1")?.success()?;
    let warned = make(lenient, "many", "2")?.success()?;
    ensure!(
        warned.stderr.contains(
            "Warning: Validation failed for ValidatingAdmissionPolicy \
             'replicas.rules.example.com' with binding 'warn.rules.example.com': at most 1 \
             replicas, not 2"
        ),
        "{}",
        warned.stderr
    );
    // The deployment's own controller writes under the policy too.
    let status = ["rollout", "status", "deploy/one", "--timeout=60s"];
    in_namespace(&cluster, strict, &status)?.success()?;
    let checked = "jsonpath={.status.observedGeneration}";
    until(Duration::from_secs(10), "the policy to be checked", || {
        let policy = "validatingadmissionpolicy/replicas.rules.example.com";
        let seen = cluster
            .kubectl(&["get", policy, "-o", checked])?
            .success()?;
        ensure!(seen.stdout == "1", "{}", seen.stdout);
        Ok(())
    })?;
    let all = "validatingadmissionpolicy,validatingadmissionpolicybinding,crd";
    let names = [
        "replicas.rules.example.com",
        "deny.rules.example.com",
        "warn.rules.example.com",
        "replicalimits.rules.example.com",
    ];
    let mut words = vec!["delete", all, "--ignore-not-found"];
    words.extend(names);
    cluster.kubectl(&words)?.success()?;
    Ok(())
}
