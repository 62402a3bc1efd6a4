//! WATCH: a stream of changes, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use proto_api::transcode;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Call;
use super::answer::{object_body, value_body};
use super::objects::collection_namespace;
use super::selectors::{filter, watch_start};
use crate::cache::{WatchItem, Watcher};
use crate::http::{Accept, Codec, Format, Parts, ResourcePath, Response, streamed};
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
        let accept = self.accept_stream(kind)?;
        let selection = filter(kind, &path.namespace, &path.name, &self.query)?;
        let start = watch_start(&self.query)?;
        let include = self.include_object()?;
        let timeout = match self.query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => {
                Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
            }
            _ => TIMEOUT_MIN.mul_f64(1.0 + rand::rng().random::<f64>()),
        };
        let encoder = Encoder {
            kind: Arc::clone(kind),
            accept,
            include,
            header: Header::Shown,
            server: Arc::clone(&self.api.server),
        };
        let content_type = match accept.codec {
            Codec::Text(_) => "application/json",
            Codec::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        };
        let watcher = match self.api.server.watch(kind, selection, start).await {
            Ok(watcher) => watcher,
            // Once its options are understood, a watch tells in the stream that it cannot begin.
            Err(error) if error.code == 410 => {
                let frame = encoder.error(&error);
                return Ok(streamed(content_type, futures::stream::iter([frame])));
            }
            Err(error) => return Err(error),
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
        Ok(streamed(content_type, stream.into_stream()))
    }
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
    fn into_stream(self) -> impl Stream<Item = Parts> + Send {
        futures::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            let (frame, open) = state.next().await?;
            Some((frame, open.then_some(state)))
        })
    }

    /// The next bytes, and whether more follow. `None` when the watch is over.
    async fn next(&mut self) -> Option<(Parts, bool)> {
        loop {
            // All branches are cancel safe: the watcher takes nothing before it returns.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                items = self.watcher.next() => {
                    return Some(match items {
                        Ok(items) => match self.encoder.converted(items, self.bookmarks).await {
                            (frames, true) if frames.is_empty() => continue,
                            more => more,
                        },
                        Err(gone) => {
                            let error = StatusError::expired(gone.to_string());
                            (self.encoder.error(&error), false)
                        }
                    });
                }
                _ = self.bookmark_at.tick(), if self.bookmarks => {
                    if let Some(item) = self.watcher.bookmark() {
                        return Some(self.encoder.frames(&[item], true));
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
    accept: Accept,
    include: IncludeObject,
    header: Header,
    server: Arc<Server>,
}

impl Encoder {
    /// The messages of `items` in the version that was asked for, and whether more may follow.
    async fn converted(&mut self, items: Vec<WatchItem>, bookmarks: bool) -> (Parts, bool) {
        match self.server.items_in_version(&self.kind, items).await {
            Ok(items) => self.frames(&items, bookmarks),
            Err(fault) => (self.error(&fault), false),
        }
    }

    /// The messages of `items`, and whether more may follow.
    fn frames(&mut self, items: &[WatchItem], bookmarks: bool) -> (Parts, bool) {
        let mut out = Parts::default();
        for item in items {
            if let Err(fault) = self.item(item, bookmarks, &mut out) {
                // The client must not believe that it saw the change.
                self.error_behind(&fault, &mut out);
                return (out, false);
            }
        }
        (out, true)
    }

    fn item(
        &mut self,
        item: &WatchItem,
        bookmarks: bool,
        out: &mut Parts,
    ) -> Result<(), StatusError> {
        let (event, object) = match item {
            WatchItem::Added(obj) => ("ADDED", self.object(obj)?),
            WatchItem::Modified(obj) => ("MODIFIED", self.object(obj)?),
            WatchItem::Deleted(obj) => ("DELETED", self.object(obj)?),
            WatchItem::Bookmark { .. } if !bookmarks => return Ok(()),
            WatchItem::Bookmark { rv, initial_end } => {
                ("BOOKMARK", self.bookmark(*rv, *initial_end)?)
            }
        };
        self.frame(event, object, out);
        Ok(())
    }

    fn error(&self, error: &StatusError) -> Parts {
        let mut out = Parts::default();
        self.error_behind(error, &mut out);
        out
    }

    fn error_behind(&self, error: &StatusError, out: &mut Parts) {
        let object = self.coded(&error.to_value());
        self.frame("ERROR", object.unwrap_or_default(), out);
    }

    /// One message. The object's bytes are not copied: all watchers share them.
    fn frame(&self, event: &'static str, object: Bytes, out: &mut Parts) {
        match self.accept.codec {
            Codec::Text(_) => {
                out.push(Bytes::from_static(json_head(event)));
                out.push(object);
                out.push(Bytes::from_static(b"}\n"));
            }
            Codec::Protobuf => out.push(Bytes::from(transcode::watch_frame(event, &object))),
        }
    }

    fn object(&mut self, obj: &Arc<Obj>) -> Result<Bytes, StatusError> {
        match (self.accept.format, self.accept.codec, &self.kind.view) {
            (Format::Plain, Codec::Text(_), None) => Ok(obj.json.clone()),
            (Format::Plain, Codec::Protobuf, None) => {
                object_body(self.server.schema, &self.kind, obj)
            }
            _ => self.value(&Server::shown(&self.kind, obj)),
        }
    }

    fn bookmark(&mut self, rv: u64, initial_end: bool) -> Result<Bytes, StatusError> {
        let mut meta = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": meta,
        });
        self.value(&value)
    }

    fn value(&mut self, value: &Value) -> Result<Bytes, StatusError> {
        let shown = match self.accept.format {
            Format::Plain => return self.coded(value),
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
        self.coded(&shown)
    }

    fn coded(&self, value: &Value) -> Result<Bytes, StatusError> {
        match self.accept.codec {
            Codec::Text(_) => Ok(Bytes::from(value.to_string())),
            Codec::Protobuf => value_body(self.server.schema, value),
        }
    }
}

/// What comes before the object of one watch message in JSON.
fn json_head(event: &str) -> &'static [u8] {
    match event {
        "ADDED" => b"{\"type\":\"ADDED\",\"object\":",
        "MODIFIED" => b"{\"type\":\"MODIFIED\",\"object\":",
        "DELETED" => b"{\"type\":\"DELETED\",\"object\":",
        "BOOKMARK" => b"{\"type\":\"BOOKMARK\",\"object\":",
        _ => b"{\"type\":\"ERROR\",\"object\":",
    }
}
