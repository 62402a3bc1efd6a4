//! The fake API's watches: the log after a revision, then what comes.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::unfold;
use tokio::sync::watch as signal;

use super::FakeApi;
use super::faults::{WatchFault, error};
use crate::api::{ApiError, Resource, Selection, WatchEvent, WatchStream};

struct Watcher {
    api: FakeApi,
    resource: Resource,
    namespace: Option<String>,
    /// Everything up to here has been given out or put in `pending`.
    revision: u64,
    pending: VecDeque<WatchEvent>,
    changed: signal::Receiver<u64>,
    ended: bool,
}

/// Opens a watch. Only a namespace selects here: informers watch whole resources.
pub(super) fn open(
    api: FakeApi,
    resource: Resource,
    what: &Selection,
    revision: u64,
) -> Result<WatchStream, ApiError> {
    if what.labels.is_some() || what.fields.is_some() {
        return Err(error(
            400,
            "BadRequest",
            "the fake watches without selectors".to_owned(),
        ));
    }
    if revision < api.shared.objects.lock().compacted() {
        return Err(expired(revision));
    }
    let changed = api.shared.revision.subscribe();
    let watcher = Watcher {
        api,
        resource,
        namespace: what.namespace.clone(),
        revision,
        pending: VecDeque::new(),
        changed,
        ended: false,
    };
    Ok(unfold(watcher, |mut watcher| async move {
        let item = watcher.next().await?;
        Some((item, watcher))
    })
    .boxed())
}

fn expired(revision: u64) -> ApiError {
    error(
        410,
        "Expired",
        format!("too old resource version: {revision}"),
    )
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        loop {
            if self.ended {
                return None;
            }
            if !self.pending.is_empty() {
                let (fault, pause) = {
                    let mut dice = self.api.shared.dice.lock();
                    (dice.watch(), dice.event_pause())
                };
                tokio::time::sleep(pause).await;
                return match fault {
                    Some(WatchFault::Broken) => None,
                    Some(WatchFault::Expired) => {
                        self.ended = true;
                        Some(Err(expired(self.revision)))
                    }
                    None => self.pending.pop_front().map(Ok),
                };
            }
            self.changed.mark_unchanged();
            let (events, revision) = {
                let objects = self.api.shared.objects.lock();
                if self.revision < objects.compacted() {
                    self.ended = true;
                    return Some(Err(expired(self.revision)));
                }
                let namespace = self.namespace.as_deref();
                (
                    objects.events_after(self.resource, namespace, self.revision),
                    objects.revision(),
                )
            };
            self.revision = revision;
            self.pending.extend(events);
            if self.pending.is_empty() && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }
}
