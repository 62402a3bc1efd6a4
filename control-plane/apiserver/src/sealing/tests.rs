//! Sealed values: unreadable below, unchanged above, and movable to a new key.

use control_plane_storage::MemoryStore;

use super::*;

const SECRET: &str = "o/core/secrets/d/s";

fn keys(count: usize) -> (Arc<SealKeys>, String) {
    let (_, text) = load_or_make(None, None).unwrap();
    let mut text = text.unwrap();
    for _ in 1..count {
        text = rotate(&text, std::path::Path::new("x")).unwrap();
    }
    (load_or_make(Some(&text), None).unwrap().0, text)
}

async fn all(store: &dyn Store) -> Vec<(String, Bytes)> {
    let mut load = store.load(b"").await.unwrap();
    let mut found = Vec::new();
    while let Some(page) = load.pages.next().await {
        for entry in page.unwrap() {
            let key = String::from_utf8(entry.key.to_vec()).unwrap();
            found.push((key, entry.value));
        }
    }
    found
}

#[tokio::test]
async fn secrets_are_sealed_below_and_plain_above() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = SealedStore::new(Arc::clone(&inner), keys(1).0);
    let put = |key: &str| Op::put(key.to_owned(), &b"{canary}"[..], Expect::Absent);
    store
        .commit(vec![put(SECRET), put("o/core/configmaps/d/c")])
        .await
        .unwrap();
    let plain: Vec<Bytes> = all(&store).await.into_iter().map(|(_, v)| v).collect();
    assert_eq!(plain, ["{canary}", "{canary}"]);
    let below = all(&*inner).await;
    let text = |at: usize| String::from_utf8_lossy(&below[at].1).into_owned();
    assert_eq!(
        (below[0].0.as_str(), text(0).as_str()),
        ("o/core/configmaps/d/c", "{canary}")
    );
    assert!(is_sealed(&below[1].1) && !text(1).contains("canary"));
    let mut changes = store.changes(Rev::FIRST);
    let batch = changes.next().await.unwrap().unwrap();
    for change in &batch.changes {
        assert!(matches!(change, Change::Put { value, .. } if value == "{canary}"));
    }
    let conflict = store.commit(vec![put(SECRET)]).await.unwrap_err();
    assert!(matches!(
        conflict,
        CommitError::Conflict { current: Some(Current { value, .. }), .. } if value == "{canary}"
    ));
}

#[tokio::test]
async fn a_new_key_seals_and_old_values_are_rewritten() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (old, text) = keys(1);
    let before = SealedStore::new(Arc::clone(&inner), Arc::clone(&old));
    for i in 0..(2 * RESEAL_BATCH + 1) {
        let op = Op::put(format!("{SECRET}{i:04}"), format!("v{i}"), Expect::Absent);
        before.commit(vec![op]).await.unwrap();
    }
    // One that an older release wrote.
    let plain = Op::put("o/core/secrets/d/plain", &b"v"[..], Expect::Absent);
    inner.commit(vec![plain]).await.unwrap();
    let rotated = rotate(&text, std::path::Path::new("x")).unwrap();
    let new = load_or_make(Some(&rotated), None).unwrap().0;
    let store = SealedStore::new(Arc::clone(&inner), Arc::clone(&new));
    let expected = all(&store).await;
    let done = store.reseal().await.unwrap();
    assert_eq!((done.rewritten, done.current), (2 * RESEAL_BATCH + 2, 0));
    assert_eq!(all(&store).await, expected);
    assert!(all(&*inner).await.iter().all(|(_, v)| is_current(&new, v)));
    let again = store.reseal().await.unwrap();
    assert_eq!((again.rewritten, again.current), (0, 2 * RESEAL_BATCH + 2));
    // Without the new key nothing is read, and the start is told why.
    let mut load = before.load(b"").await.unwrap();
    let refused = load.pages.next().await.unwrap().unwrap_err();
    assert!(matches!(refused, LoadError::Failed(_)));
}

#[test]
fn a_sealed_value_belongs_to_its_object_and_may_not_be_changed() {
    let (keys, _) = keys(2);
    let sealed = seal(&keys, b"a", b"value").unwrap();
    assert_eq!(open(&keys, b"a", &sealed).unwrap(), "value");
    open(&keys, b"b", &sealed).unwrap_err();
    for at in 0..sealed.len() {
        let mut broken = sealed.to_vec();
        broken[at] ^= 1;
        open(&keys, b"a", &broken).unwrap_err();
        open(&keys, b"a", &sealed[..at]).unwrap_err();
    }
    assert_ne!(seal(&keys, b"a", b"value").unwrap(), sealed);
}

#[test]
fn a_broken_key_file_is_refused_with_its_line() {
    let (_, good) = keys(1);
    for (text, what) in [
        ("", "there is no sealing key in it"),
        (&*format!("{good}short x"), "line 2 is no sealing key"),
    ] {
        let refused = load_or_make(Some(text), None).unwrap_err().to_string();
        assert!(refused.starts_with(what), "{refused}");
    }
}

#[test]
fn a_key_that_another_replica_made_is_read_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let (_, text) = load_or_make(None, None).unwrap();
    let text = text.unwrap();
    std::fs::write(&path, &text).unwrap();
    let ours = load_or_make(Some(&text), Some(&path)).unwrap().0;
    let rotated = rotate(&text, &path).unwrap();
    let theirs = load_or_make(Some(&rotated), None).unwrap().0;
    let sealed = seal(&theirs, b"a", b"value").unwrap();
    open(&ours, b"a", &sealed).unwrap_err();
    std::fs::write(&path, &rotated).unwrap();
    assert_eq!(open(&ours, b"a", &sealed).unwrap(), "value");
    assert!(is_current(&ours, &seal(&ours, b"a", b"value").unwrap()));
}
