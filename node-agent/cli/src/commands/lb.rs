//! `skep lb`: services as the maps hold them.

use std::net::SocketAddr;

use node_agent_datapath::inspect::Query;
use node_agent_datapath::inspect::names::NameTable;
use node_agent_datapath::maps::view::{
    BackendState, BackendView, FrontendKind, FrontendView, LoadBalancerView, Scope,
};
use serde::Serialize;

use super::Context;
use crate::args::{Format, LbListArguments};
use crate::failure::{Failure, NOT_FOUND, Outcome};
use crate::output::{self, Table};
use crate::source::Via;

/// A backend with its name.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendItem {
    #[serde(flatten)]
    view: BackendView,
    pod: String,
    node: String,
}

/// A frontend of one node, with everything behind it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct FrontendItem {
    node: String,
    via: Via,
    frontend: String,
    #[serde(flatten)]
    view: FrontendView,
    namespace: String,
    service_name: String,
    port_name: String,
    affinity_seconds: Option<u32>,
    ready: Vec<BackendItem>,
    local: Vec<BackendItem>,
    terminating: Vec<BackendItem>,
}

impl FrontendItem {
    fn service(&self) -> String {
        match (self.service_name.as_str(), self.port_name.as_str()) {
            ("", _) if self.view.kind == FrontendKind::Wildcard => String::new(),
            ("", _) => format!("#{}", self.view.service),
            (name, "") => format!("{}/{name}", self.namespace),
            (name, port) => format!("{}/{name}:{port}", self.namespace),
        }
    }

    /// By namespace/name, name, or address:port.
    fn is_called(&self, name: &str) -> bool {
        let address = SocketAddr::new(self.view.address, self.view.port).to_string();
        let full = format!("{}/{}", self.namespace, self.service_name);
        let known = !self.service_name.is_empty();
        self.frontend == name
            || address == name
            || (known && (full == name || self.service_name == name))
    }
}

fn backend_items(views: Vec<BackendView>, names: &NameTable) -> Vec<BackendItem> {
    let item = |view: BackendView| {
        let name = names.backends.get(&view.index).cloned().unwrap_or_default();
        BackendItem {
            view,
            pod: name.pod,
            node: name.node,
        }
    };
    views.into_iter().map(item).collect()
}

/// Joins a node's view with its names.
fn items(node: &str, via: Via, view: &LoadBalancerView, names: &NameTable) -> Vec<FrontendItem> {
    let item = |frontend: &FrontendView| {
        let service = view.services.get(&frontend.service);
        let name = names
            .services
            .get(&frontend.service)
            .cloned()
            .unwrap_or_default();
        let backends = |select: fn(&node_agent_datapath::maps::view::ServiceView) -> &Vec<_>| {
            backend_items(service.map(select).cloned().unwrap_or_default(), names)
        };
        FrontendItem {
            node: node.to_owned(),
            via,
            frontend: frontend.key().to_string(),
            view: frontend.clone(),
            namespace: name.namespace,
            service_name: name.name,
            port_name: name.port_name,
            affinity_seconds: service.and_then(|service| service.affinity_seconds),
            ready: backends(|service| &service.ready),
            local: backends(|service| &service.local),
            terminating: backends(|service| &service.terminating),
        }
    };
    view.frontends.iter().map(item).collect()
}

async fn read(context: &Context) -> Result<(Vec<FrontendItem>, Outcome), Failure> {
    let mut sources = context.sources().await?;
    let mut all = Vec::new();
    for source in &mut sources.open {
        let view: LoadBalancerView = source.read(&Query::LoadBalancer).await?;
        let names = source.names().await?;
        all.extend(items(&source.name, source.via(), &view, &names));
    }
    Ok((all, sources.outcome))
}

fn kind(frontend: &FrontendItem) -> String {
    let kind = match frontend.view.kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::External => "External",
        FrontendKind::Wildcard => "Refuse",
    };
    match frontend.view.scope {
        Scope::Cluster => kind.to_owned(),
        Scope::Local => format!("{kind},Local"),
    }
}

fn state(backend: &BackendView) -> &'static str {
    match backend.state {
        BackendState::Active => "active",
        BackendState::Terminating => "terminating",
        BackendState::Removed => "removed",
        BackendState::Free => "free",
        BackendState::Unknown => "unknown",
    }
}

/// Backends that a client may get, each once: the ready ones, and what stands in for them.
fn shown(frontend: &FrontendItem) -> Vec<&BackendItem> {
    let mut shown: Vec<&BackendItem> = Vec::new();
    for backend in frontend
        .ready
        .iter()
        .chain(&frontend.local)
        .chain(&frontend.terminating)
    {
        if shown
            .iter()
            .all(|other| other.view.index != backend.view.index)
        {
            shown.push(backend);
        }
    }
    shown
}

fn list_table(frontends: &[FrontendItem]) -> Table {
    let mut table = Table::new(&[
        "NODE", "SERVICE", "FRONTEND", "TYPE", "BACKEND", "POD", "STATE", "OPEN", "TOTAL",
    ]);
    for frontend in frontends {
        let first = || {
            (
                frontend.node.clone(),
                frontend.service(),
                frontend.frontend.clone(),
                kind(frontend),
            )
        };
        let backends = shown(frontend);
        if backends.is_empty() {
            let (node, service, address, kind) = first();
            let none = String::new;
            table.row([
                node,
                service,
                address,
                kind,
                none(),
                none(),
                none(),
                none(),
                none(),
            ]);
        }
        for backend in backends {
            let (node, service, address, kind) = first();
            let here = if backend.view.local { "*" } else { "" };
            table.row([
                node,
                service,
                address,
                kind,
                format!("{}{here}", backend.view.address),
                backend.pod.clone(),
                state(&backend.view).to_owned(),
                backend.view.in_flight.to_string(),
                backend.view.opened.to_string(),
            ]);
        }
    }
    table
}

/// `skep lb list`.
pub(super) async fn list(
    context: &Context,
    arguments: &LbListArguments,
) -> Result<Outcome, Failure> {
    let (mut frontends, outcome) = read(context).await?;
    frontends.retain(|frontend| {
        let wildcard = frontend.view.kind == FrontendKind::Wildcard;
        let named = arguments
            .namespace
            .as_ref()
            .is_none_or(|name| *name == frontend.namespace);
        named && (arguments.wildcards || !wildcard)
    });
    match context.format {
        Format::Json => output::list("FrontendList", &frontends),
        Format::Table => output::table(&list_table(&frontends), context.no_headers),
    }
    Ok(outcome)
}

fn set(name: &str, backends: &[BackendItem]) -> String {
    let mut text = String::new();
    for backend in backends {
        let view = &backend.view;
        let place = match (backend.pod.as_str(), backend.node.as_str()) {
            ("", "") => String::new(),
            (pod, node) => format!("  pod {pod} on {node}"),
        };
        text.push_str(&format!(
            "  {name:<12} {} {} (#{} generation {}), {} open, {} in all{place}\n",
            view.address,
            state(view),
            view.index,
            view.generation,
            view.in_flight,
            view.opened,
        ));
    }
    if backends.is_empty() {
        text = format!("  {name:<12} <none>\n");
    }
    text
}

fn describe(frontend: &FrontendItem) -> String {
    let affinity = frontend.affinity_seconds.map_or_else(
        || "none".to_owned(),
        |seconds| format!("by client, {seconds} s"),
    );
    format!(
        "{} on {}: {} {} (service #{})\n  {:<12} {affinity}\n{}{}{}",
        frontend.frontend,
        frontend.node,
        kind(frontend),
        frontend.service(),
        frontend.view.service,
        "affinity",
        set("ready", &frontend.ready),
        set("local", &frontend.local),
        set("terminating", &frontend.terminating),
    )
}

/// `skep lb get`.
pub(super) async fn get(context: &Context, name: &str) -> Result<Outcome, Failure> {
    let (mut frontends, outcome) = read(context).await?;
    frontends.retain(|frontend| frontend.is_called(name));
    if frontends.is_empty() {
        return Err(Failure::new(
            NOT_FOUND,
            format!("no service or frontend {name} in the maps: `skep lb list` shows all"),
        ));
    }
    match context.format {
        Format::Json => output::list("FrontendList", &frontends),
        Format::Table => {
            let texts: Vec<String> = frontends.iter().map(describe).collect();
            output::text(&texts.join("\n"));
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use node_agent_datapath::inspect::names::{BackendName, ServiceName};
    use node_agent_datapath::maps::IpProtocol;
    use node_agent_datapath::maps::view::ServiceView;

    use super::*;

    fn example() -> Vec<FrontendItem> {
        let frontend = |address: &str, port, kind| FrontendView {
            address: address.parse().unwrap(),
            port,
            protocol: IpProtocol::TCP,
            kind,
            scope: Scope::Cluster,
            service: 5,
        };
        let backend = |index, address: &str, local| BackendView {
            index,
            address: address.parse().unwrap(),
            state: BackendState::Active,
            local,
            generation: 1,
            in_flight: 2,
            opened: 9,
        };
        let service = ServiceView {
            index: 5,
            protocol: IpProtocol::TCP,
            affinity_seconds: None,
            ready: vec![
                backend(3, "10.244.1.2:80", true),
                backend(4, "10.244.2.3:80", false),
            ],
            local: vec![backend(3, "10.244.1.2:80", true)],
            terminating: vec![],
        };
        let mut other = frontend("10.96.0.8", 81, FrontendKind::ClusterIp);
        other.service = 6;
        let view = LoadBalancerView {
            frontends: vec![frontend("10.96.0.7", 80, FrontendKind::ClusterIp), other],
            services: [(5, service)].into(),
            applied_revision: 1,
        };
        let mut names = NameTable::default();
        names.services.insert(
            5,
            ServiceName {
                namespace: "default".into(),
                name: "web".into(),
                port_name: "http".into(),
            },
        );
        names.backends.insert(
            3,
            BackendName {
                namespace: "default".into(),
                pod: "web-1".into(),
                node: "node-1".into(),
            },
        );
        items("node-1", Via::Agent, &view, &names)
    }

    #[test]
    fn a_list_has_a_line_for_each_backend_and_names_where_they_are_known() {
        assert_eq!(
            list_table(&example()).text(false),
            "NODE     SERVICE            FRONTEND           TYPE        BACKEND          POD      STATE    OPEN     TOTAL\n\
             node-1   default/web:http   10.96.0.7:80/TCP   ClusterIP   10.244.1.2:80*   web-1    active   2        9\n\
             node-1   default/web:http   10.96.0.7:80/TCP   ClusterIP   10.244.2.3:80    <none>   active   2        9\n\
             node-1   #6                 10.96.0.8:81/TCP   ClusterIP   <none>           <none>   <none>   <none>   <none>\n"
        );
    }

    #[test]
    fn a_service_is_found_by_each_of_its_names() {
        let frontends = example();
        for name in ["web", "default/web", "10.96.0.7:80", "10.96.0.7:80/TCP"] {
            assert!(frontends[0].is_called(name), "{name}");
            assert!(!frontends[1].is_called(name), "{name}");
        }
        assert!(!frontends[1].is_called(""));
    }

    #[test]
    fn a_description_shows_every_set() {
        assert_eq!(
            describe(&example()[0]),
            "10.96.0.7:80/TCP on node-1: ClusterIP default/web:http (service #5)\n\
             \x20 affinity     none\n\
             \x20 ready        10.244.1.2:80 active (#3 generation 1), 2 open, 9 in all  pod web-1 on node-1\n\
             \x20 ready        10.244.2.3:80 active (#4 generation 1), 2 open, 9 in all\n\
             \x20 local        10.244.1.2:80 active (#3 generation 1), 2 open, 9 in all  pod web-1 on node-1\n\
             \x20 terminating  <none>\n"
        );
    }
}
