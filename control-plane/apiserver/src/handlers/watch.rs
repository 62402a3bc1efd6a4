//! WATCH: a stream of changes, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Call;
use super::objects::{collection_namespace, watch_frame};
use super::selectors::{filter, resource_version};
use crate::cache::{Match, WatchItem, WatchStart, Watcher};
use crate::http::{Format, ResourcePath, Response, streamed};
use crate::object::Obj;
use crate::registry::Kind;
use crate::server::Server;
use crate::status::StatusError;
use crate::tables::{self, Header, IncludeObject};

/// How often a bookmark is sent to who asked for them.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends between this and twice this.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// How long before its end a watch sends a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

impl Call {
    pub(super) async fn watch(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
    ) -> Result<Response, StatusError> {
        collection_namespace(kind, &path.namespace)?;
        let format = self.accept()?.format;
        let selection = filter(kind, &path.namespace, &path.name, &self.query)?;
        let start = self.watch_start()?;
        let include = self.include_object()?;
        let watcher = self.api.server.watch(kind, selection, start).await?;
        let timeout = match self.query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => {
                Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
            }
            _ => TIMEOUT_MIN.mul_f64(1.0 + rand::rng().random::<f64>()),
        };
        let encoder = Encoder {
            kind: Arc::clone(kind),
            format,
            include,
            header: Header::Shown,
            server: Arc::clone(&self.api.server),
        };
        let stream = WatchStream {
            watcher,
            encoder,
            bookmarks: self.query.flag("allowWatchBookmarks"),
            bookmark_at: bookmark_timer(timeout),
            end: Instant::now() + timeout,
            stop: self.api.stop.clone(),
        };
        self.api.metrics.watch_started(kind.plural);
        Ok(streamed("application/json", stream.into_stream()))
    }

    fn watch_start(&self) -> Result<WatchStart, StatusError> {
        let rv = resource_version(&self.query)?;
        let rv_match = super::selectors::rv_match(&self.query)?;
        match self.query.tristate("sendInitialEvents") {
            Some(initial) => {
                if rv_match != Some(Match::NotOlderThan) {
                    return Err(invalid_options(
                        "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                         resourceVersionMatch to NotOlderThan",
                    ));
                }
                match (initial, rv) {
                    (true, _) if self.query.flag("allowWatchBookmarks") => {
                        Ok(WatchStart::StateThenBookmark)
                    }
                    (true, _) => Ok(WatchStart::State),
                    (false, None | Some(0)) => {
                        Ok(WatchStart::After(self.api.server.cache.applied()))
                    }
                    (false, Some(rv)) => Ok(WatchStart::After(rv)),
                }
            }
            None if rv_match.is_some() => Err(invalid_options(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch \
                 unless sendInitialEvents is provided",
            )),
            None => match rv {
                None | Some(0) => Ok(WatchStart::State),
                Some(rv) => Ok(WatchStart::After(rv)),
            },
        }
    }
}

fn invalid_options(text: &str) -> StatusError {
    StatusError::new(
        422,
        "Invalid",
        format!("ListOptions.meta.k8s.io \"\" is invalid: {text}"),
    )
}

fn bookmark_timer(timeout: Duration) -> Interval {
    // A short watch still gets its bookmark, just before it ends.
    let first = BOOKMARK_INTERVAL.min(timeout.saturating_sub(LAST_BOOKMARK));
    let first = first.max(Duration::from_millis(500));
    let mut timer = tokio::time::interval_at(Instant::now() + first, BOOKMARK_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// A running watch and what ends it.
struct WatchStream {
    watcher: Watcher,
    encoder: Encoder,
    bookmarks: bool,
    bookmark_at: Interval,
    end: Instant,
    stop: CancellationToken,
}

impl WatchStream {
    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            let (frame, open) = state.next().await?;
            Some((frame, open.then_some(state)))
        })
    }

    /// The next bytes, and whether more follow. `None` when the watch is over.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        loop {
            // All branches are cancel safe: the watcher takes nothing before it returns.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                items = self.watcher.next() => {
                    return Some(match items {
                        Ok(items) => match self.encoder.frames(&items, self.bookmarks) {
                            frames if frames.is_empty() => continue,
                            frames => (frames, true),
                        },
                        Err(gone) => {
                            let error = StatusError::expired(gone.to_string()).to_value();
                            (watch_frame("ERROR", error.to_string().as_bytes()), false)
                        }
                    });
                }
                _ = self.bookmark_at.tick(), if self.bookmarks => {
                    if let Some(item) = self.watcher.bookmark() {
                        return Some((self.encoder.frames(&[item], true), true));
                    }
                }
                () = tokio::time::sleep_until(self.end) => return None,
            }
        }
    }
}

/// Writes watch messages in the form that the client asked for.
struct Encoder {
    kind: Arc<Kind>,
    format: Format,
    include: IncludeObject,
    header: Header,
    server: Arc<Server>,
}

impl Encoder {
    fn frames(&mut self, items: &[WatchItem], bookmarks: bool) -> Bytes {
        let mut out = BytesMut::new();
        for item in items {
            let frame = match item {
                WatchItem::Added(obj) => watch_frame("ADDED", &self.object(obj)),
                WatchItem::Modified(obj) => watch_frame("MODIFIED", &self.object(obj)),
                WatchItem::Deleted(obj) => watch_frame("DELETED", &self.object(obj)),
                WatchItem::Bookmark { .. } if !bookmarks => continue,
                WatchItem::Bookmark { rv, initial_end } => {
                    watch_frame("BOOKMARK", &self.bookmark(*rv, *initial_end))
                }
            };
            if items.len() == 1 {
                return frame;
            }
            out.extend_from_slice(&frame);
        }
        out.freeze()
    }

    fn object(&mut self, obj: &Arc<Obj>) -> Bytes {
        if self.format == Format::Plain && self.kind.view.is_none() {
            return obj.json.clone();
        }
        self.value(&Server::shown(&self.kind, obj))
    }

    fn bookmark(&mut self, rv: u64, initial_end: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": meta,
        });
        self.value(&value)
    }

    fn value(&mut self, value: &Value) -> Bytes {
        let shown = match self.format {
            Format::Plain => value.clone(),
            Format::Metadata(version) => tables::partial_metadata(value, version),
            Format::Table(version) => {
                let meta = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                // Clients keep the columns of the first message.
                let header = std::mem::replace(&mut self.header, Header::Omitted);
                let now = (self.server.clock)();
                let row = std::iter::once(value);
                tables::render(
                    &*self.kind.table,
                    row,
                    &meta,
                    self.include,
                    header,
                    version,
                    now,
                )
            }
        };
        Bytes::from(shown.to_string())
    }
}
