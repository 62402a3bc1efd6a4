//! A custom resource as an operator's user meets it, with kubectl.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, shared, until};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.harbour.example.com}
spec:
  group: harbour.example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bo]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails}
    additionalPrinterColumns:
    - {name: Sails, type: integer, jsonPath: .spec.sails}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the boat is to be.
            properties:
              sails: {type: integer, minimum: 1, default: 2}
              name: {type: string, maxLength: 20}
          status:
            type: object
            properties: {sails: {type: integer}}
"#;
const BOAT: &str = r"
apiVersion: harbour.example.com/v1
kind: Boat
metadata: {name: ann}
spec: {name: Ann}
";
const WRONG: &str = r"
apiVersion: harbour.example.com/v1
kind: Boat
metadata: {name: bob}
spec: {sails: 0}
";

fn apply(cluster: &Cluster, namespace: &str, manifest: &str) -> Result<tests::Output> {
    cluster.kubectl_with_input(&["-n", namespace, "apply", "-f", "-"], manifest)
}

#[test]
fn a_definition_is_used_as_any_kind() -> Result<()> {
    let cluster = shared()?;
    let namespace = "custom-resources";
    cluster.namespace(namespace)?;
    let run = |words: &[&str]| -> Result<String> {
        let words: Vec<&str> = ["-n", namespace].iter().chain(words).copied().collect();
        Ok(cluster.kubectl(&words)?.success()?.stdout)
    };
    apply(&cluster, namespace, DEFINITION)?.success()?;
    run(&[
        "wait",
        "--for=condition=established",
        "crd/boats.harbour.example.com",
        "--timeout=10s",
    ])?;
    let explained = run(&["explain", "boats.spec"])?;
    ensure!(explained.contains("What the boat is to be."), "{explained}");
    apply(&cluster, namespace, BOAT)?.success()?;
    // The second time kubectl sends a patch.
    apply(&cluster, namespace, &BOAT.replace("Ann}", "Anne}"))?.success()?;
    apply(&cluster, namespace, WRONG)?
        .failure_saying("spec.sails in body should be greater than or equal to 1")?;
    let table = run(&["get", "bo"])?;
    ensure!(table.contains("SAILS") && table.contains('2'), "{table}");
    run(&["scale", "boat/ann", "--replicas=3"])?;
    ensure!(
        run(&["get", "boat/ann", "-o", "jsonpath={.spec.sails}"])? == "3",
        "not scaled"
    );
    run(&[
        "patch",
        "boat",
        "ann",
        "--type=merge",
        "-p",
        r#"{"spec":{"name":"Anna"}}"#,
    ])?;
    run(&["delete", "crd", "boats.harbour.example.com"])?;
    until(Duration::from_secs(20), "the kind to be gone", || {
        let gone = cluster.kubectl(&["get", "boats", "-A"])?;
        ensure!(!gone.stderr.is_empty(), "the kind is still served");
        Ok(())
    })
}
