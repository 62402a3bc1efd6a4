//! Keeps an informer equal to the API: list, watch, list again only when the watch cannot go on.
//!
//! A watch that ends or fails is resumed from the last revision seen; only 410 (compacted) or a
//! watch that cannot be opened again and again costs a list. Pauses double and are jittered.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{Api, ApiError, Selection, WatchEvent};
use crate::backoff::Backoff;
use crate::informer::Informer;
use crate::kind::Kind;

/// First pause after an error.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause after errors.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Events applied under one lock at most.
const BATCH_MAX: usize = 256;

/// Why a watch stopped.
enum Ended {
    /// It was closed or failed: resume from the last revision.
    Resume(Option<ApiError>),
    /// The revision is no longer kept: list again.
    Relist(ApiError),
}

/// Fills `informer` until `shutdown`.
pub(crate) async fn run<K: Kind>(
    api: Arc<dyn Api>,
    informer: Arc<Informer<K>>,
    what: Selection,
    shutdown: CancellationToken,
) {
    // The body may be dropped at any await: the store only changes in synchronous steps.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = reflect(api.as_ref(), &informer, &what, &shutdown) => {}
    }
}

async fn reflect<K: Kind>(
    api: &dyn Api,
    informer: &Informer<K>,
    what: &Selection,
    shutdown: &CancellationToken,
) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    while !shutdown.is_cancelled() {
        let revision = match api.list(K::RESOURCE, what).await {
            Ok(list) => {
                let revision = list.revision;
                debug!(
                    kind = K::RESOURCE.kind,
                    objects = list.items.len(),
                    revision,
                    "listed"
                );
                informer.replace(list);
                revision
            }
            Err(error) => {
                warn!(kind = K::RESOURCE.kind, %error, "list failed, tries again");
                tokio::time::sleep(backoff.next_jittered()).await;
                continue;
            }
        };
        let error = follow(api, informer, what, revision, &mut backoff).await;
        debug!(kind = K::RESOURCE.kind, %error, "watch cannot be resumed, lists again");
        tokio::time::sleep(backoff.next_jittered()).await;
    }
}

/// Watches from `revision`, resuming as often as needed; ends when only a list helps.
async fn follow<K: Kind>(
    api: &dyn Api,
    informer: &Informer<K>,
    what: &Selection,
    mut revision: u64,
    backoff: &mut Backoff,
) -> ApiError {
    loop {
        match watch_once(api, informer, what, &mut revision, backoff).await {
            Ended::Relist(error) => return error,
            Ended::Resume(error) => {
                debug!(
                    kind = K::RESOURCE.kind,
                    revision,
                    ?error,
                    "watch ended, resumes"
                );
                tokio::time::sleep(backoff.next_jittered()).await;
            }
        }
    }
}

async fn watch_once<K: Kind>(
    api: &dyn Api,
    informer: &Informer<K>,
    what: &Selection,
    revision: &mut u64,
    backoff: &mut Backoff,
) -> Ended {
    let stream = match api.watch(K::RESOURCE, what, *revision).await {
        Ok(stream) => stream,
        Err(error) if error.is_gone() => return Ended::Relist(error),
        Err(error) => return Ended::Resume(Some(error)),
    };
    let mut batches = stream.ready_chunks(BATCH_MAX);
    while let Some(batch) = batches.next().await {
        let mut failed = None;
        let events: Vec<WatchEvent> = batch
            .into_iter()
            .map_while(|event| event.map_err(|error| failed = Some(error)).ok())
            .collect();
        if !events.is_empty() {
            backoff.reset();
            *revision = informer.apply(events).max(*revision);
        }
        match failed {
            Some(error) if error.is_gone() => return Ended::Relist(error),
            Some(error) => return Ended::Resume(Some(error)),
            None => {}
        }
    }
    Ended::Resume(None)
}

#[cfg(test)]
mod tests;
