//! Forgetting on a schedule: history is kept for one to two intervals, no longer.
//!
//! Several control planes on one etcd may each run it; compacting twice is no error.

use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// Every `every`, compacts the store to the revision it had one interval before. Never returns:
/// the owner drops or cancels it. A failure is logged and tried again with the next interval.
pub async fn compact_regularly(store: Arc<dyn Store>, every: Duration) -> ! {
    let mut keep = None;
    loop {
        match store.barrier().await {
            Ok(rev) => {
                if let Some(upto) = keep.replace(rev) {
                    match store.compact(upto).await {
                        Ok(()) => tracing::debug!(revision = %upto, "compacted"),
                        Err(error) => tracing::warn!(revision = %upto, %error, "compaction failed"),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "no revision to compact to"),
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::error::ChangesError;
    use crate::faulty::FaultyStore;
    use crate::memory::MemoryStore;
    use crate::model::{Expect, Op, Rev};

    const EVERY: Duration = Duration::from_secs(300);

    async fn oldest(store: &dyn Store) -> Rev {
        match store.changes(Rev(0)).next().await {
            Some(Err(ChangesError::Compacted { compacted, .. })) => compacted,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn history_is_kept_for_one_to_two_intervals_also_after_a_failure() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        let store: Arc<dyn Store> = Arc::new(store);
        let compactor = tokio::spawn(compact_regularly(Arc::clone(&store), EVERY));
        let mut seen = Vec::new();
        for round in 0..5 {
            if round == 2 {
                faults.compactions(1);
            }
            tokio::time::sleep(EVERY - Duration::from_secs(1)).await;
            store
                .commit(vec![Op::put("a", "x", Expect::Any)])
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
            seen.push(oldest(&*store).await.0);
        }
        compactor.abort();
        // Revision n + 1 is written just before the nth interval ends; the third run fails.
        assert_eq!(seen, [1, 2, 2, 4, 5]);
    }
}
