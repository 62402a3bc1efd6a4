//! The order of merged lists: what the patch orders, in its order; the rest where the server had
//! it. Changes with upstream's ordering rules.

use serde_json::Value;

use super::PatchError;

/// How two items are the same: by this field, or as a whole.
#[derive(Clone, Copy)]
pub(super) struct Key<'a>(pub(super) Option<&'a str>);

impl Key<'_> {
    fn same(self, a: &Value, b: &Value) -> bool {
        match self.0 {
            Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
            None => a == b,
        }
    }

    fn index(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

/// Refuses a patch list whose items stand in another order than the order list says.
pub(super) fn check_consistent(
    patch: &[&Value],
    order: &[Value],
    key: Key<'_>,
) -> Result<(), PatchError> {
    let mut rest = patch.iter();
    let mut next = rest.next();
    for item in order {
        if next.is_some_and(|next| key.same(next, item)) {
            next = rest.next();
        }
    }
    match next {
        None => Ok(()),
        Some(_) => Err(PatchError::Strategic(format!(
            "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
            Value::from_iter(patch.iter().map(|item| (*item).clone())),
            Value::from_iter(order.iter().cloned())
        ))),
    }
}

/// Arranges merged items: those in `patch_order` by it, the others by `server_order`, and both
/// woven so that a server item stays in front of what it was in front of.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Key<'_>,
) -> Vec<Value> {
    let (mut patch, mut server): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| key.index(patch_order, item).is_some());
    patch.sort_by_key(|item| key.index(patch_order, item));
    // Items the server did not have come last.
    server.sort_by_key(|item| key.index(server_order, item).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(patch.len() + server.len());
    let mut patch = patch.into_iter().peekable();
    let mut server = server.into_iter().peekable();
    loop {
        let server_first = match (server.peek(), patch.peek()) {
            (Some(left), Some(right)) => {
                match (
                    key.index(server_order, left),
                    key.index(server_order, right),
                ) {
                    (Some(left), Some(right)) => left < right,
                    _ => false,
                }
            }
            (left, _) => left.is_some(),
        };
        match if server_first {
            server.next()
        } else {
            patch.next()
        } {
            Some(item) => arranged.push(item),
            None => return arranged,
        }
    }
}
