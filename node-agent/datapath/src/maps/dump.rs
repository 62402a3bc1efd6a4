//! A view as text without array indexes: equal content gives equal text, whatever numbers the
//! writer happened to use. Golden scripts compare this.

use std::fmt::Write as _;

use super::view::{BackendState, BackendView, FrontendKind, LoadBalancerView, Scope};

fn set(out: &mut String, name: &str, backends: &[BackendView]) {
    if backends.is_empty() {
        return;
    }
    let _always_works = write!(out, " {name}=");
    for (place, backend) in backends.iter().enumerate() {
        let separator = if place == 0 { "" } else { "," };
        let mark = match backend.state {
            BackendState::Active => "",
            BackendState::Terminating => "(terminating)",
            BackendState::Removed => "(removed)",
            BackendState::Free => "(free)",
            BackendState::Unknown => "(?)",
        };
        let here = if backend.local { "@here" } else { "" };
        let _always_works = write!(out, "{separator}{}{here}{mark}", backend.address);
    }
}

/// One line a frontend, in key order:
/// `10.96.0.7:80/TCP cluster-ip ready=10.244.1.2:8080@here,10.244.2.3:8080 local=10.244.1.2:8080@here`.
#[must_use]
pub fn text(view: &LoadBalancerView) -> String {
    let mut out = String::new();
    for frontend in &view.frontends {
        let kind = match frontend.kind {
            FrontendKind::ClusterIp => "cluster-ip",
            FrontendKind::NodePort => "node-port",
            FrontendKind::External => "external",
            FrontendKind::Wildcard => "refuse",
        };
        let _always_works = write!(out, "{} {kind}", frontend.key());
        if frontend.scope == Scope::Local {
            out.push_str(" scope=local");
        }
        if let Some(service) = view.services.get(&frontend.service) {
            if let Some(seconds) = service.affinity_seconds {
                let _always_works = write!(out, " affinity={seconds}s");
            }
            set(&mut out, "ready", &service.ready);
            set(&mut out, "local", &service.local);
            set(&mut out, "terminating", &service.terminating);
        }
        out.push('\n');
    }
    out
}
