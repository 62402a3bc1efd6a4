//! Owner references that an object names twice: one is kept, and the client is told.

use serde_json::Value;

use super::WriteContext;
use crate::tree;

/// Drops references that are there already.
pub(super) fn dedup(object: &mut Value, context: &WriteContext) {
    let owners = tree::list(object, &["metadata", "ownerReferences"]);
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut twice: Vec<&str> = Vec::new();
    for owner in owners {
        if kept.contains(owner) {
            twice.push(tree::text(owner, &["uid"]));
        } else {
            kept.push(owner.clone());
        }
    }
    if twice.is_empty() {
        return;
    }
    if let Some(notes) = &context.asked.notes {
        notes.warn(&format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner \
             references in 1.20+, and may reject such requests as early as 1.24; please fix your \
             requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
    tree::object_mut(object, "metadata").insert("ownerReferences".to_owned(), kept.into());
}
