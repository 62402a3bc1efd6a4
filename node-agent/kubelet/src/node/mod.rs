//! The node itself: what it is registered with, and upkeep of what pods leave behind.

mod facts;
mod report;
mod upkeep;

pub(crate) use self::facts::{MachineFacts, allocatable};
pub(crate) use self::report::NodeReporter;
pub(crate) use self::upkeep::Upkeep;
