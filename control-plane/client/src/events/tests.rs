use std::time::Duration;

use super::correlate::{OBJECT_BURST, REMEMBERED_MAX, SIMILAR_MAX, TOTAL_BURST};
use super::*;
use crate::api::Selection;
use crate::fake::FakeApi;

fn note(object: &str, message: &str) -> Note {
    Note {
        regarding: ObjectReference {
            name: Some(object.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectReference::default()
        },
        component: "test",
        event_type: EventType::Warning,
        reason: "Failed",
        message: message.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_ten_messages_of_one_reason_are_combined() {
    let mut correlator = Correlator::new();
    let now = Instant::now();
    let mut combined = 0;
    for number in 0..SIMILAR_MAX + 3 {
        match correlator.take(&note("a", &format!("message {number}")), now) {
            Verdict::New { id, message }
                if message.starts_with("(combined from similar events)") =>
            {
                combined += 1;
                correlator.written(id, "combined".to_owned());
            }
            Verdict::New { id, message } => correlator.written(id, message),
            Verdict::Again { name, count } => {
                assert_eq!(name, "combined");
                assert_eq!(count, combined + 1);
                combined += 1;
            }
            Verdict::Drop => panic!("within the burst"),
        }
    }
    assert_eq!(combined, 3);
}

#[tokio::test(start_paused = true)]
async fn one_object_gets_a_burst_and_then_one_in_five_minutes() {
    let mut correlator = Correlator::new();
    let now = Instant::now();
    let passed = (0..OBJECT_BURST + 20)
        .filter(|_| correlator.take(&note("a", "m"), now) != Verdict::Drop)
        .count();
    assert_eq!(passed, OBJECT_BURST as usize);
    let later = now + Duration::from_secs(601);
    let passed = (0..5)
        .filter(|_| correlator.take(&note("a", "m"), later) != Verdict::Drop)
        .count();
    assert_eq!(passed, 2);
}

#[tokio::test(start_paused = true)]
async fn the_process_has_a_budget_and_memory_a_bound() {
    let mut correlator = Correlator::new();
    let now = Instant::now();
    let objects = REMEMBERED_MAX * 2;
    let passed = (0..objects)
        .filter(|n| correlator.take(&note(&format!("o{n}"), "m"), now) != Verdict::Drop)
        .count();
    assert_eq!(passed, TOTAL_BURST as usize);
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_raises_its_count() {
    let fake = FakeApi::new();
    fake.seed(
        crate::resources::NAMESPACES,
        serde_json::json!({"metadata": {"name": "default"}}),
    );
    let clock = Clock::following_tokio(jiff::Timestamp::UNIX_EPOCH);
    let (recorder, writer) = channel(fake.handle(), clock, "test");
    for _ in 0..3 {
        let note = note("a", "again");
        recorder.record(note.regarding, note.event_type, note.reason, note.message);
    }
    drop(recorder);
    writer.run(CancellationToken::new()).await;
    let list = fake
        .handle()
        .list(EVENTS, &Selection::default())
        .await
        .expect("list");
    let events: Vec<Event> = list
        .items
        .iter()
        .map(|o| o.decode().expect("event"))
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].count, Some(3));
    assert_eq!(events[0].message.as_deref(), Some("again"));
}
