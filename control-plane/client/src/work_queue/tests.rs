use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

async fn next(queue: &WorkQueue<&'static str>) -> Option<&'static str> {
    tokio::time::timeout(Duration::from_millis(1), queue.get())
        .await
        .ok()
        .flatten()
        .map(|item| *item.key())
}

#[tokio::test(start_paused = true)]
async fn a_key_added_twice_is_handed_out_once() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    queue.add("b");
    assert_eq!(next(&queue).await, Some("a"));
    assert_eq!(next(&queue).await, Some("b"));
    assert_eq!(next(&queue).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_in_work_comes_again_after_it_and_not_beside_it() {
    let queue = WorkQueue::new();
    queue.add("a");
    let item = queue.get().await.expect("ready");
    queue.add("a");
    assert_eq!(next(&queue).await, None);
    drop(item);
    assert_eq!(next(&queue).await, Some("a"));
    assert_eq!(next(&queue).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_key_comes_at_the_earliest_of_its_times() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(5));
    assert_eq!(queue.get().await.map(|item| *item.key()), Some("a"));
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(
        queue.depth(),
        Depth {
            ready: 0,
            delayed: 0,
            processing: 0,
            dropped: 0
        }
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(next(&queue).await, None);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_forget_starts_over() {
    let queue = WorkQueue::new();
    let delays: Vec<_> = (0..4).map(|_| queue.add_failed("a").as_millis()).collect();
    assert_eq!(delays, [5, 10, 20, 40]);
    assert_eq!(queue.failures(&"a"), 4);
    queue.forget(&"a");
    assert_eq!(queue.add_failed("a").as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_bound_drops_and_counts_what_is_beyond() {
    let queue = WorkQueue::with_bound(2);
    queue.add("a");
    queue.add_after("b", Duration::from_secs(1));
    queue.add("c");
    queue.add_after("d", Duration::from_secs(1));
    queue.add("a");
    assert_eq!(
        queue.depth(),
        Depth {
            ready: 1,
            delayed: 1,
            processing: 0,
            dropped: 2
        }
    );
}

#[tokio::test(start_paused = true)]
async fn close_ends_every_waiting_worker() {
    let queue: WorkQueue<&str> = WorkQueue::new();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.get().await.is_none() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for worker in workers {
        assert!(worker.await.expect("worker ends"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_add_is_followed_by_work_and_no_key_is_worked_on_twice_at_once(
        adds in proptest::collection::vec((0_u8..6, 0_u64..4), 1..80),
        workers in 1_usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let queue = WorkQueue::new();
            let version: Arc<Mutex<HashMap<u8, u64>>> = Arc::default();
            let seen: Arc<Mutex<HashMap<u8, u64>>> = Arc::default();
            let busy: Arc<Mutex<HashSet<u8>>> = Arc::default();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..workers {
                let (queue, version, seen, busy) =
                    (queue.clone(), Arc::clone(&version), Arc::clone(&seen), Arc::clone(&busy));
                tasks.spawn(async move {
                    while let Some(item) = queue.get().await {
                        let key = *item.key();
                        assert!(busy.lock().insert(key), "key {key} in work twice");
                        let at = version.lock().get(&key).copied().unwrap_or(0);
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        seen.lock().insert(key, at);
                        busy.lock().remove(&key);
                    }
                });
            }
            for (key, pause_ms) in adds {
                *version.lock().entry(key).or_insert(0) += 1;
                if pause_ms % 2 == 0 {
                    queue.add(key);
                } else {
                    queue.add_after(key, Duration::from_millis(pause_ms));
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            queue.close();
            while let Some(ended) = tasks.join_next().await {
                ended.expect("no worker panics");
            }
            assert_eq!(&*version.lock(), &*seen.lock());
        });
    }
}
