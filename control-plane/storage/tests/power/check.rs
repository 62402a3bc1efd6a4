//! One disk after a power loss: does the store on it keep what was promised?

use std::collections::BTreeMap;
use std::path::Path;

use control_plane_storage::{EmbeddedStore, Entry, Expect, Op, Rev, Store as _};
use faulty_disk::{FaultyDisk, Image, Loss};
use futures::StreamExt as _;

use crate::record::Recorded;

/// How many commits were kept that nobody was told of; or what is wrong.
pub(crate) type Checked = Result<u64, String>;

/// Makes the disk, opens the store and compares. The disk is removed again.
pub(crate) async fn check(
    below: &Path,
    image: &Image,
    recorded: &Recorded,
    at: usize,
    loss: Loss,
) -> Checked {
    std::fs::create_dir(below).expect("a directory");
    FaultyDisk::write_image(image, below).expect("write the disk");
    let checked = compare(&below.join("data/store"), recorded, at).await;
    std::fs::remove_dir_all(below).expect("remove the disk");
    checked.map_err(|fault| format!("power lost after event {at}, {loss:?}: {fault}"))
}

async fn compare(dir: &Path, recorded: &Recorded, at: usize) -> Checked {
    let store = EmbeddedStore::open(dir).await;
    let store = store.map_err(|error| format!("it does not open: {error}"))?;
    let (rev, entries) = read(&store).await?;
    let newest = recorded.newest(at);
    if rev < newest {
        return Err(format!("revision {newest} was told, the store is at {rev}"));
    }
    let mut in_flight = 0;
    for (&writer, acknowledged) in &recorded.acknowledged {
        let told = acknowledged.iter().take_while(|one| one.position <= at);
        let told = u64::try_from(told.count()).expect("a small number");
        in_flight += whole(&entries, recorded, writer, told)?;
    }
    let next = store.commit(vec![Op::put("next", "1", Expect::Absent)]);
    let next = next
        .await
        .map_err(|error| format!("it takes no commit: {error}"))?;
    if next.rev != rev.next() {
        return Err(format!("after revision {rev} comes {}", next.rev));
    }
    store.close().await;
    Ok(in_flight)
}

async fn read(store: &EmbeddedStore) -> Result<(Rev, Vec<Entry>), String> {
    let load = store.load(b"").await.map_err(|error| error.to_string())?;
    let (rev, mut pages) = (load.rev, load.pages);
    let mut entries = Vec::new();
    while let Some(page) = pages.next().await {
        entries.extend(page.map_err(|error| error.to_string())?);
    }
    Ok((rev, entries))
}

/// Whether a writer's keys are those after all commits it was told of, or after the one in flight as
/// well; and every entry has the revision that was told.
fn whole(entries: &[Entry], recorded: &Recorded, writer: u64, told: u64) -> Result<u64, String> {
    let prefix = format!("w{writer}/").into_bytes();
    let own = entries
        .iter()
        .filter(|entry| entry.key.starts_with(&prefix));
    let found: BTreeMap<_, _> = own
        .clone()
        .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
        .collect();
    let expected = |commits: u64| match commits.checked_sub(1) {
        Some(last) => recorded.shape.state(writer, last),
        None => BTreeMap::new(),
    };
    let Some(more) = (0..=1).find(|more| found == expected(told + more)) else {
        let keys: Vec<_> = found
            .keys()
            .map(|key| String::from_utf8_lossy(key))
            .collect();
        return Err(format!(
            "writer {writer} was told of {told} commits, there are {keys:?}"
        ));
    };
    // The last commit wrote them all.
    let last = usize::try_from(told + more)
        .expect("a small number")
        .checked_sub(1);
    let rev = last.and_then(|last| recorded.acknowledged[&writer].get(last));
    for entry in own {
        if rev.is_none_or(|told| told.rev != entry.rev) {
            return Err(format!("writer {writer}: {entry:?} should be of {rev:?}"));
        }
    }
    Ok(more)
}
