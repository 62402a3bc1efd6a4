//! One question, one JSON document: the same from the agent's socket and from the pins.

use serde::{Deserialize, Serialize};

use super::{AttachmentView, CounterView, InspectError, Inspector, ProgramView};

/// A view of the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// [`crate::maps::view::LoadBalancerView`].
    LoadBalancer,
    /// `Vec<`[`super::MapView`]`>`.
    Maps,
    /// [`super::MapDump`].
    Map { name: String },
    /// `Vec<`[`super::FlowView`]`>`.
    Flows,
    /// [`Counters`].
    Counters,
    /// [`Programs`].
    Programs,
    /// `Vec<`[`crate::pods::AttachedPod`]`>`.
    Pods,
    /// `Vec<`[`super::RouteView`]`>`.
    Routes,
    /// [`super::WriterView`].
    Writer,
}

/// What the programs counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    pub drops: Vec<CounterView>,
    pub verdicts: Vec<CounterView>,
}

/// Programs and where they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Programs {
    pub programs: Vec<ProgramView>,
    pub attachments: Vec<AttachmentView>,
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, InspectError> {
    serde_json::to_vec(value).map_err(|error| InspectError::Read {
        what: "a view".to_owned(),
        source: error.into(),
    })
}

impl Inspector {
    /// Answers a query. Blocks for as long as reading the maps takes: milliseconds.
    /// # Errors
    /// [`InspectError`].
    pub fn document(&self, query: &Query) -> Result<Vec<u8>, InspectError> {
        match query {
            Query::LoadBalancer => encode(&self.load_balancer()?),
            Query::Maps => encode(&self.maps()?),
            Query::Map { name } => encode(&self.dump(name)?),
            Query::Flows => encode(&self.flows()?),
            Query::Counters => encode(&Counters {
                drops: self.drops()?,
                verdicts: self.verdicts()?,
            }),
            Query::Programs => encode(&Programs {
                programs: self.programs()?,
                attachments: self.attachments()?,
            }),
            Query::Pods => encode(&self.pods()?),
            Query::Routes => encode(&self.routes()?),
            Query::Writer => encode(&self.writer()?),
        }
    }
}
