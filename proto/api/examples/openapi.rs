//! Prints the OpenAPI v3 document of one kind: `openapi apps/v1 Deployment deployments`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

use std::process::ExitCode;

use proto_api::openapi::{Resource, document};
use proto_api::schema::{Gvk, builtin};

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [api_version, kind, plural] = &arguments[..] else {
        eprintln!("usage: openapi API_VERSION KIND PLURAL");
        return ExitCode::FAILURE;
    };
    let gvk = Gvk::parse(api_version, kind);
    let resource = Resource {
        name: plural,
        gvk,
        namespaced: true,
        verbs: VERBS,
    };
    let bytes = document(builtin(), gvk.group, gvk.version, &[resource], &[]);
    println!("{}", String::from_utf8_lossy(&bytes));
    ExitCode::SUCCESS
}
