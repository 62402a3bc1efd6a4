//! Who may act for the whole cluster: a precondition on every write of the one that leads.
//!
//! A leader that is cut off or stopped for a while does not know that its lease is over, and a write
//! of it may be on its way. So each term of a leader takes a number: the revision of one key, written
//! together with a check of the lease. Every write of the term carries "that key is still mine" as a
//! part of its commit. Whoever leads next takes the key, and from that revision on nothing of the
//! term before can be written. What it wrote until then is in the cache when `take_fence` returns.

use bytes::Bytes;
use control_plane_storage::{CommitError, Expect, Op, Rev};
use tokio_util::sync::CancellationToken;

use super::{Server, Target};
use crate::object::store_key;
use crate::status::StatusError;

/// The right to write during one term. Clones share the same term.
#[derive(Debug, Clone)]
pub struct Fence {
    key: Bytes,
    rev: Rev,
    lost: CancellationToken,
}

impl Fence {
    /// Ends when a write was refused because somebody else leads.
    #[must_use]
    pub const fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The term's number: the revision at which it began.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.rev.0
    }

    pub(super) fn check(&self) -> Op {
        Op::Check {
            key: self.key.clone(),
            expect: Expect::Rev(self.rev),
        }
    }

    pub(super) fn refuse(&self, target: &Target) -> StatusError {
        self.lost.cancel();
        StatusError::conflict(
            target.kind.group_resource(),
            &target.key.name,
            "another control plane leads since; this one stops",
        )
    }
}

impl Server {
    /// Begins a term: from its revision on no other term can write. `revision`: that of the lease
    /// as its holder wrote it; one that changed since means that the lease may be somebody else's.
    /// On return the cache holds everything that terms before it wrote.
    ///
    /// # Errors
    /// `Conflict` when the lease changed; `ServiceUnavailable` when the store does not answer.
    pub async fn take_fence(&self, lease: &Target, revision: u64) -> Result<Fence, StatusError> {
        let (kind, key) = (&lease.kind, &lease.key);
        let stored = store_key(kind.storage_group, kind.plural, &key.namespace, &key.name);
        let fence = Bytes::from(format!("fence/{}/{}", key.namespace, key.name));
        let ops = vec![
            Op::Check {
                key: stored.into(),
                expect: Expect::Rev(Rev(revision)),
            },
            Op::put(fence.clone(), Bytes::new(), Expect::Any),
        ];
        let rev = match self.store.commit(ops).await {
            Ok(commit) => commit.rev,
            Err(CommitError::Conflict { .. }) => {
                return Err(StatusError::modified(kind.group_resource(), &key.name));
            }
            Err(fault) => return Err(StatusError::store_unavailable(&fault)),
        };
        self.cache.wait_for(rev.0).await?;
        Ok(Fence {
            key: fence,
            rev,
            lost: CancellationToken::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::WriteContext;
    use crate::server::tests::Fixture;

    async fn lease(fixture: &Fixture, holder: &str) -> u64 {
        let target = fixture.target("leases", "lock");
        let body = json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": holder}});
        if fixture.server.cached(&target).is_none() {
            return fixture.make("leases", "d", body).await.unwrap().rv;
        }
        let change = |old: &Value| {
            let mut new = old.clone();
            new["spec"]["holderIdentity"] = holder.into();
            Ok(new)
        };
        let changed = fixture.server.modify(&target, &fixture.context, change);
        changed.await.unwrap().rv
    }

    #[tokio::test]
    async fn nothing_of_an_older_term_is_written_whatever_the_write() {
        let fixture = Fixture::new().await;
        let lock = fixture.target("leases", "lock");
        let server = &fixture.server;
        let held_by_a = lease(&fixture, "a").await;
        let a = server.take_fence(&lock, held_by_a).await.unwrap();
        let of = |fence: &Fence| WriteContext {
            fence: Some(fence.clone()),
            ..fixture.context.clone()
        };
        let maps = fixture.target("configmaps", "c");
        let body = json!({"metadata": {"name": "c"}, "data": {"by": "a"}});
        let create = |context| server.create(&maps.kind, "d", body.clone(), context);
        create(&of(&a)).await.unwrap();

        let held_by_b = lease(&fixture, "b").await;
        let stale = server.take_fence(&lock, held_by_a).await.unwrap_err();
        assert_eq!(stale.code, 409);
        let b = server.take_fence(&lock, held_by_b).await.unwrap();
        assert!(b.term() > a.term() && server.cache.applied() >= b.term());

        let by = |name: &'static str| {
            move |old: &Value| {
                let mut new = old.clone();
                new["data"]["by"] = name.into();
                Ok(new)
            }
        };
        let refused = server
            .modify(&maps, &of(&a), by("late a"))
            .await
            .unwrap_err();
        assert_eq!((refused.code, refused.reason), (409, "Conflict"));
        assert!(a.lost().is_cancelled() && !b.lost().is_cancelled());
        let delete = crate::server::DeleteRequest::default();
        server.delete(&maps, &delete, &of(&a)).await.unwrap_err();
        server.modify(&maps, &of(&b), by("b")).await.unwrap();
        let kept = server.cached(&maps).unwrap().value();
        assert_eq!(kept["data"]["by"], "b");
        server
            .modify(&maps, &fixture.context, by("nodes"))
            .await
            .unwrap();
    }

    /// With `SKEP_LONG=1` ten times as many.
    const TERMS: u64 = 10_000;

    /// Two leaders each make an object when they see none, the older one without knowing that its
    /// term is over; whatever the moment at which the next term begins, there is one object.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_that_believe_they_lead_one_acts() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        let lock = fixture.target("leases", "lock");
        let held = lease(&fixture, "0").await;
        let mut fence = fixture.server.take_fence(&lock, held).await.unwrap();
        let (mut by_older, mut by_newer) = (0, 0);
        let terms = match std::env::var_os("SKEP_LONG") {
            Some(_) => 10 * TERMS,
            None => TERMS,
        };
        for term in 1..=terms {
            let make = |name: String, fence: &Fence, fixture: &std::sync::Arc<Fixture>| {
                let (fence, fixture) = (fence.clone(), std::sync::Arc::clone(fixture));
                async move {
                    let maps = fixture.target("configmaps", &name);
                    let body = json!({"metadata": {"name": name}});
                    let context = WriteContext {
                        fence: Some(fence),
                        ..fixture.context.clone()
                    };
                    fixture
                        .server
                        .create(&maps.kind, "d", body, &context)
                        .await
                        .is_ok()
                }
            };
            let older = tokio::spawn({
                let made = make(format!("old-{term}"), &fence, &fixture);
                async move {
                    for _ in 0..term % 23 {
                        tokio::task::yield_now().await;
                    }
                    made.await
                }
            });
            let held = lease(&fixture, &term.to_string()).await;
            let next = fixture.server.take_fence(&lock, held).await.unwrap();
            // What the term before wrote is in the cache by now, and nothing comes after it.
            let seen = fixture.target("configmaps", &format!("old-{term}"));
            let seen = fixture.server.cached(&seen).is_some();
            if !seen {
                assert!(
                    make(format!("new-{term}"), &next, &fixture).await,
                    "term {term}"
                );
                by_newer += 1;
            }
            let made = older.await.unwrap();
            assert_eq!(
                made, seen,
                "term {term}: the older one acted, the newer one saw it"
            );
            by_older += u64::from(made);
            fence = next;
        }
        assert_eq!(by_older + by_newer, terms);
        assert!(
            by_older > 0 && by_newer > 0,
            "no race: {by_older}, {by_newer}"
        );
    }
}
