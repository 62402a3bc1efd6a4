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
use agent::{AgentClient, AgentError, CallError};

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
    pub(crate) name: String,
    node: Node,
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
        let answer = match AgentClient::connect(&node.agent_socket).await {
            Ok(client) => Answer::Agent(client),
            Err(AgentError::Denied) => return Err(AgentError::Denied.failure(node)),
            Err(error) => pins(node, &error)?,
        };
        Ok(Self {
            name: node.name.clone(),
            node: node.clone(),
            answer,
        })
    }

    /// The agent died after the connection was made: go on with its pins.
    fn fall_back(&mut self, error: CallError) -> Result<(), Failure> {
        match error {
            CallError::Refused(failure) => Err(failure),
            CallError::Lost(reason) => {
                self.answer = pins(&self.node, &reason)?;
                Ok(())
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
        if let Answer::Agent(client) = &mut self.answer {
            match client.status().await {
                Ok(status) => return Ok(Some(status)),
                Err(error) => self.fall_back(error)?,
            }
        }
        Ok(None)
    }

    /// Names of map elements, as far as they are known.
    pub(crate) async fn names(&mut self) -> Result<NameTable, Failure> {
        if let Answer::Agent(client) = &mut self.answer {
            match client.names().await {
                Ok(names) => return Ok(names),
                Err(error) => self.fall_back(error)?,
            }
        }
        match &self.answer {
            Answer::Agent(_) => Ok(NameTable::default()),
            Answer::Pins { names, .. } => Ok(names.clone()),
        }
    }

    async fn document(&mut self, query: &Query) -> Result<Vec<u8>, Failure> {
        if let Answer::Agent(client) = &mut self.answer {
            match client.read(query).await {
                Ok(document) => return Ok(document),
                Err(error) => self.fall_back(error)?,
            }
        }
        match &self.answer {
            Answer::Agent(_) => Ok(Vec::new()),
            Answer::Pins { inspector, .. } => Ok(inspector.document(query)?),
        }
    }

    /// One view. `T` is the type that the query names.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self, query: &Query) -> Result<T, Failure> {
        let document = self.document(query).await?;
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

/// Opens a node's pins, and says that they are read.
fn pins(node: &Node, error: &AgentError) -> Result<Answer, Failure> {
    let inspector = Inspector::open(&node.bpffs)?;
    output::note(&passed_over(node, error));
    Ok(Answer::Pins {
        inspector,
        names: names_beside(&node.agent_socket),
    })
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
