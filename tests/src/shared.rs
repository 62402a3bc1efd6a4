//! One cluster for several tests of a program: changes when tests share differently.

use std::sync::{Arc, Weak};

use anyhow::Result;
use parking_lot::Mutex;

use crate::cluster::{Cluster, Options};

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// A two-node cluster that lives as long as one test holds it. Each test works in a namespace of
/// its own: [`Cluster::namespace`].
///
/// # Errors
/// When it does not come up.
pub fn shared() -> Result<Arc<Cluster>> {
    // Held while the cluster comes up: the others wait for the same one.
    let mut known = SHARED.lock();
    if let Some(cluster) = known.upgrade() {
        return Ok(cluster);
    }
    let cluster = Arc::new(Cluster::up("shared", Options::default())?);
    *known = Arc::downgrade(&cluster);
    Ok(cluster)
}
