//! An API server alone, for trying clients against it: no controllers, no nodes.
//!
//! `cargo run -p control-plane-apiserver --example serve -- DIR [PORT]` keeps its files in DIR and
//! writes DIR/kubeconfig. Objects live in memory; every node echoes what it is sent.

#[path = "../tests/http/nodes.rs"]
mod nodes;

use std::path::PathBuf;
use std::sync::Arc;

use control_plane_apiserver::pki::Pki;
use control_plane_apiserver::{ApiServer, ApiServerConfig};
use control_plane_storage::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve DIR [PORT]")?);
    let port: u16 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let address = ([127, 0, 0, 1], port).into();
    let config = ApiServerConfig {
        pki: Arc::new(Pki::open(&dir.join("pki"))?),
        identity: "serve".to_owned(),
        bind: vec![address],
        shared_bind: Vec::new(),
        nodes: None,
        advertise: address,
        extra_names: Vec::new(),
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        kubeconfig: Some(dir.join("kubeconfig")),
        kubeconfig_server: None,
        audit: None,
    };
    let store = Arc::new(MemoryStore::new());
    let handle = ApiServer::start(config, store, Arc::new(nodes::EchoNodes)).await?;
    tokio::signal::ctrl_c().await?;
    handle.shutdown().await;
    Ok(())
}
