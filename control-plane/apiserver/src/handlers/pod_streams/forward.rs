//! `pods/portforward`: which pod, and which protocol carries the connections.

use std::sync::Arc;

use tracing::debug;

use super::upgrade::{Agreed, socket, spdy, switching, tunnelled};
use super::{assigned_node, forward_channels, forward_spdy};
use crate::handlers::Call;
use crate::http::{Request, Response};
use crate::node_streams::{NodeStreamError, NodeStreams, PortAt, PortRequest, PortSession};
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

/// SPDY inside WebSocket, as kubectl does since 1.31.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "portforward.k8s.io";
const PROTOCOLS: [&str; 3] = [TUNNEL, "v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Connects to ports of one pod. Cheap to clone.
#[derive(Clone)]
pub(super) struct Forwarder {
    nodes: Arc<dyn NodeStreams>,
    node: Arc<str>,
    pod: Arc<PortRequest>,
}

impl Forwarder {
    /// To the pod of `request`, whose port is left out of account.
    pub(super) fn to(nodes: Arc<dyn NodeStreams>, node: &str, request: PortRequest) -> Self {
        Self {
            nodes,
            node: node.into(),
            pod: Arc::new(request),
        }
    }

    /// A connection to `port`.
    pub(super) async fn connect(&self, port: u16) -> Result<PortSession, NodeStreamError> {
        let mut request = PortRequest::clone(&self.pod);
        request.port = port;
        self.nodes.port(&self.node, request).await
    }
}

impl Call {
    pub(in crate::handlers) async fn port_forward(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let main = Target {
            subresource: None,
            ..target.clone()
        };
        let pod = self.api.server.get(&main, None).await?.value();
        let forwarder = Forwarder::to(
            Arc::clone(&self.api.nodes),
            assigned_node(target, &pod)?,
            PortRequest {
                namespace: target.key.namespace.to_string(),
                pod: target.key.name.to_string(),
                pod_uid: tree::text(&pod, &["metadata", "uid"]).to_owned(),
                port: 0,
                at: PortAt::Loopback,
            },
        );
        let agreed = self.negotiate(&PROTOCOLS, &[SPDY])?;
        let channels = matches!(&agreed, Agreed::WebSocket { protocol, .. } if *protocol != TUNNEL);
        let ports = if channels { self.ports()? } else { Vec::new() };
        let (stop, carried) = (self.api.stop.clone(), agreed.clone());
        self.api.tasks.spawn(async move {
            let bridge = async {
                match carried {
                    Agreed::WebSocket { .. } if channels => {
                        let socket = socket(request).await?;
                        forward_channels::bridge(socket, forwarder, &ports).await;
                    }
                    Agreed::WebSocket { .. } => {
                        let (connection, drive) = tunnelled(socket(request).await?);
                        forward_spdy::bridge(connection, drive, forwarder).await;
                    }
                    Agreed::Spdy { .. } => {
                        let (connection, drive) = spdy(request).await?;
                        forward_spdy::bridge(connection, drive, forwarder).await;
                    }
                }
                Ok::<(), hyper::Error>(())
            };
            tokio::select! {
                done = bridge => if let Err(fault) = done {
                    debug!(%fault, "port-forward was not upgraded");
                },
                () = stop.cancelled() => {}
            }
        });
        Ok(switching(&agreed))
    }

    /// `?ports=80&ports=81`, or `?ports=80,81`.
    fn ports(&self) -> Result<Vec<u16>, StatusError> {
        parse_ports(self.query.all("ports"))
    }
}

fn parse_ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, StatusError> {
    let mut ports = Vec::new();
    for text in values.flat_map(|value| value.split(',')) {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        let message = format!("unable to parse \"{text}\" as a port");
        ports.push(port.ok_or_else(|| StatusError::bad_request(message))?);
    }
    if ports.is_empty() {
        let message = "you must specify at least 1 port";
        return Err(StatusError::bad_request(message));
    }
    if super::channel::port_channels(ports.len() - 1).is_none() {
        let message = format!("{} ports are more than one connection carries", ports.len());
        return Err(StatusError::bad_request(message));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_one_by_one_or_in_one_list() {
        let parse = |values: &[&'static str]| {
            parse_ports(values.iter().copied()).map_err(|error| error.message)
        };
        assert_eq!(parse(&["80", "8080,443"]), Ok(vec![80, 8080, 443]));
        let refused = "you must specify at least 1 port";
        assert_eq!(parse(&[]), Err(refused.to_owned()));
        for bad in ["0", "65536", "http", ""] {
            let refused = format!("unable to parse \"{bad}\" as a port");
            assert_eq!(parse(&[bad]), Err(refused));
        }
        let many = vec!["80"; 128];
        assert!(parse(&many).unwrap_err().contains("more than one"));
        assert_eq!(parse(&many[1..]).unwrap().len(), 127);
    }
}
