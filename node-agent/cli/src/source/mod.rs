//! Where a node's answers come from: its agent, or its pins when no agent answers.

mod agent;

use std::path::Path;

use node_agent_datapath::inspect::names::{NAMES_FILE, NameTable};
use node_agent_datapath::inspect::{Inspector, Query};
use proto::inspect::v1::StatusResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Node;
use crate::failure::{Failure, INTERNAL};
use crate::output;
use agent::{AgentClient, AgentError};

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Via {
    Agent,
    /// The pinned maps, without an agent.
    Pins,
}

/// One node, ready to answer.
#[derive(Debug)]
pub(crate) struct NodeSource {
    /// The node's own name where it told one.
    pub(crate) name: String,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Agent(AgentClient),
    Pins {
        inspector: Inspector,
        names: NameTable,
    },
}

/// Why the agent was passed over: for a note to the operator.
fn passed_over(node: &Node, error: &AgentError) -> String {
    format!(
        "node {}: no agent answers at {} ({error}): reading its pinned maps",
        node.name,
        node.agent_socket.display()
    )
}

impl NodeSource {
    /// Connects to the node's agent, or opens its pins and says so.
    /// # Errors
    /// [`Failure`] when neither can be read.
    pub(crate) async fn open(node: &Node) -> Result<Self, Failure> {
        match AgentClient::connect(&node.agent_socket).await {
            Ok(client) => Ok(Self {
                name: node.name.clone(),
                answer: Answer::Agent(client),
            }),
            Err(AgentError::Denied) => Err(AgentError::Denied.failure(node)),
            Err(error) => {
                let inspector = Inspector::open(&node.bpffs)?;
                output::note(&passed_over(node, &error));
                Ok(Self {
                    name: node.name.clone(),
                    answer: Answer::Pins {
                        inspector,
                        names: names_beside(&node.agent_socket),
                    },
                })
            }
        }
    }

    pub(crate) fn via(&self) -> Via {
        match self.answer {
            Answer::Agent(_) => Via::Agent,
            Answer::Pins { .. } => Via::Pins,
        }
    }

    /// The agent's own account; `None` without an agent.
    pub(crate) async fn status(&mut self) -> Result<Option<StatusResponse>, Failure> {
        match &mut self.answer {
            Answer::Agent(client) => client.status().await.map(Some),
            Answer::Pins { .. } => Ok(None),
        }
    }

    /// Names of map elements, as far as they are known.
    pub(crate) async fn names(&mut self) -> Result<NameTable, Failure> {
        match &mut self.answer {
            Answer::Agent(client) => client.names().await,
            Answer::Pins { names, .. } => Ok(names.clone()),
        }
    }

    /// One view. `T` is the type that the query names.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self, query: &Query) -> Result<T, Failure> {
        let document = match &mut self.answer {
            Answer::Agent(client) => client.read(query).await?,
            Answer::Pins { inspector, .. } => inspector.document(query)?,
        };
        serde_json::from_slice(&document).map_err(|error| {
            Failure::new(
                INTERNAL,
                format!(
                    "node {}: its agent is of another version than this command: {error}",
                    self.name
                ),
            )
        })
    }
}

/// The names file lies beside the agent's socket. Without it, elements are shown by number.
fn names_beside(socket: &Path) -> NameTable {
    let file = socket.with_file_name(NAMES_FILE);
    match NameTable::read(&file) {
        Ok(names) => names,
        Err(error) => {
            output::note(&format!("names are not known: {}: {error}", file.display()));
            NameTable::default()
        }
    }
}
