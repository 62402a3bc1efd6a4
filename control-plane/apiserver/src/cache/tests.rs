//! Lists and watches at the resourceVersion rules, on a cache fed by hand.

use std::time::{Duration, Instant};

use serde_json::json;

use super::list::{ListRequest, Match};
use super::resource::{RING_AGE, RING_EVENTS_MIN};
use super::*;
use crate::object::{Obj, ObjKey, encode};

struct Fixture {
    cache: WatchCache,
    rv: u64,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let cache = WatchCache::new(&Registry::default());
        Self {
            cache,
            rv: 0,
            now: Instant::now(),
        }
    }

    fn pods(&self) -> Arc<ResourceCache> {
        self.cache.resource("", "pods").unwrap()
    }

    fn put(&mut self, namespace: &str, name: &str, app: &str) -> u64 {
        self.put_with(namespace, name, app, "")
    }

    /// Puts an object whose first selectable field holds `field`.
    fn put_field(&mut self, namespace: &str, name: &str, field: &str) -> u64 {
        self.put_with(namespace, name, "x", field)
    }

    fn put_with(&mut self, namespace: &str, name: &str, app: &str, field: &str) -> u64 {
        self.rv += 1;
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata":
            {"name": name, "namespace": namespace, "labels": {"app": app}}});
        let key = ObjKey::new(namespace, name);
        let stored = encode(&value).unwrap();
        let obj =
            Obj::from_stored(key.clone(), &stored, self.rv, |_| Box::new([field.into()])).unwrap();
        self.pods()
            .apply(&key, self.rv, Some(Arc::new(obj)), self.now);
        self.cache.set_applied(self.rv);
        self.rv
    }

    fn delete(&mut self, namespace: &str, name: &str) -> u64 {
        self.rv += 1;
        self.pods()
            .apply(&ObjKey::new(namespace, name), self.rv, None, self.now);
        self.cache.set_applied(self.rv);
        self.rv
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, StatusError> {
        let newest = self.rv;
        self.cache
            .list(&self.pods(), &request, async || Ok(newest))
            .await
            .map(Listing::collect)
    }

    fn watch(&self, filter: Filter, start: WatchStart) -> Result<Watcher, StatusError> {
        Watcher::start(&self.cache, &self.pods(), filter, start)
    }
}

fn names(page: &ListPage) -> Vec<&str> {
    page.items.iter().map(|obj| &*obj.key.name).collect()
}

fn told(items: &[WatchItem]) -> Vec<String> {
    items
        .iter()
        .map(|item| match item {
            WatchItem::Added(o) => format!("+{}@{}", o.key.name, o.rv),
            WatchItem::Modified(o) => format!("~{}@{}", o.key.name, o.rv),
            WatchItem::Deleted(o) => format!("-{}@{}", o.key.name, o.rv),
            WatchItem::Bookmark { rv, initial_end } => {
                format!("={rv}{}", if *initial_end { "!" } else { "" })
            }
        })
        .collect()
}

fn app(name: &str) -> Filter {
    let labels = proto_api::selector::Labels::parse(&format!("app={name}")).unwrap();
    Filter {
        labels: Some(labels),
        ..Filter::default()
    }
}

#[tokio::test]
async fn pages_of_one_revision_do_not_see_later_changes() {
    let mut fixture = Fixture::new();
    for name in ["a", "b", "c", "d"] {
        fixture.put("n", name, "x");
    }
    let first = fixture
        .list(ListRequest {
            limit: 2,
            ..ListRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!((first.revision, first.remaining), (4, Some(2)));
    fixture.delete("n", "c");
    fixture.put("n", "cc", "x");
    fixture.put("n", "d", "y");
    let next = ListRequest {
        limit: 5,
        continue_token: first.continue_token,
        ..ListRequest::default()
    };
    let second = fixture.list(next).await.unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second.items[1].rv, 4);
    assert_eq!((second.revision, second.continue_token), (4, None));
}

#[tokio::test]
async fn an_exact_revision_is_the_state_as_it_was() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    let at = fixture.put("n", "b", "x");
    fixture.delete("n", "a");
    let exact = |rv| ListRequest {
        rv: Some(rv),
        rv_match: Some(Match::Exact),
        ..ListRequest::default()
    };
    assert_eq!(names(&fixture.list(exact(at)).await.unwrap()), ["a", "b"]);
    assert_eq!(names(&fixture.list(exact(at + 1)).await.unwrap()), ["b"]);
    let newest = fixture.list(ListRequest::default()).await.unwrap();
    assert_eq!((names(&newest), newest.revision), (vec!["b"], 3));
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_the_future_is_a_timeout_and_a_forgotten_one_is_gone() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    let future = ListRequest {
        rv: Some(9),
        ..ListRequest::default()
    };
    let error = fixture.list(future).await.unwrap_err();
    assert_eq!((error.code, error.reason), (504, "Timeout"));
    fixture.put("n", "b", "x");
    let one = ListRequest {
        limit: 1,
        ..ListRequest::default()
    };
    let first = fixture.list(one).await.unwrap();
    fixture.put("n", "b", "x");
    fixture.now += RING_AGE + Duration::from_secs(1);
    for _ in 0..=RING_EVENTS_MIN {
        fixture.put("n", "z", "x");
    }
    let next = ListRequest {
        continue_token: first.continue_token,
        ..ListRequest::default()
    };
    let error = fixture.list(next).await.unwrap_err();
    assert_eq!((error.code, error.reason), (410, "Expired"));
    let fresh = ListRequest {
        continue_token: error.continue_token,
        ..ListRequest::default()
    };
    assert_eq!(names(&fixture.list(fresh).await.unwrap()), ["b", "z"]);
    let exact = ListRequest {
        rv: Some(1),
        rv_match: Some(Match::Exact),
        ..ListRequest::default()
    };
    assert_eq!(fixture.list(exact).await.unwrap_err().code, 410);
}

#[tokio::test]
async fn a_list_keeps_to_its_namespace() {
    let mut fixture = Fixture::new();
    for (namespace, name) in [("a", "p"), ("a-b", "q"), ("ab", "r"), ("b", "s")] {
        fixture.put(namespace, name, "x");
    }
    let in_namespace = |n: &str| ListRequest {
        filter: Filter::in_namespace(n),
        ..ListRequest::default()
    };
    assert_eq!(
        names(&fixture.list(in_namespace("a")).await.unwrap()),
        ["p"]
    );
    assert_eq!(
        names(&fixture.list(in_namespace("ab")).await.unwrap()),
        ["r"]
    );
    assert_eq!(
        names(&fixture.list(in_namespace("")).await.unwrap()),
        ["p", "q", "r", "s"]
    );
}

#[tokio::test]
async fn changes_are_told_relative_to_the_selector() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    let mut watch = fixture.watch(app("x"), WatchStart::After(1)).unwrap();
    fixture.put("n", "a", "x"); // 2: stays inside
    fixture.put("n", "b", "y"); // 3: never inside
    fixture.put("n", "a", "y"); // 4: leaves
    fixture.put("n", "b", "x"); // 5: enters
    fixture.delete("n", "b"); // 6
    fixture.delete("n", "a"); // 7: outside already
    assert_eq!(
        told(&watch.next().await.unwrap()),
        ["~a@2", "-a@4", "+b@5", "-b@6"]
    );
    let left = fixture
        .watch(app("x"), WatchStart::After(3))
        .unwrap()
        .next()
        .await
        .unwrap();
    let WatchItem::Deleted(obj) = &left[0] else {
        panic!("{left:?}")
    };
    assert_eq!(
        obj.value()["metadata"]["labels"]["app"],
        "x",
        "the last selected state is shown"
    );
    assert_eq!(obj.value()["metadata"]["resourceVersion"], "4");
}

#[tokio::test]
async fn a_watch_can_begin_with_the_state_and_say_when_it_is_complete() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    fixture.put("n", "b", "x");
    let mut watch = fixture
        .watch(Filter::default(), WatchStart::StateThenBookmark(Some(0)))
        .unwrap();
    assert_eq!(told(&watch.next().await.unwrap()), ["+a@1", "+b@2"]);
    assert_eq!(told(&watch.next().await.unwrap()), ["=2!"]);
    fixture.put("n", "c", "x");
    assert_eq!(told(&watch.next().await.unwrap()), ["+c@3"]);
    assert_eq!(told(&[watch.bookmark().unwrap()]), ["=3"]);
    fixture.cache.set_applied(9);
    assert_eq!(
        told(&[watch.bookmark().unwrap()]),
        ["=9"],
        "other resources moved on"
    );
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_told_so_and_costs_no_queue() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    let mut slow = fixture
        .watch(Filter::default(), WatchStart::After(1))
        .unwrap();
    fixture.put("n", "a", "x");
    fixture.now += RING_AGE + Duration::from_secs(1);
    for _ in 0..=RING_EVENTS_MIN {
        fixture.put("n", "a", "x");
    }
    assert!(matches!(slow.next().await, Err(WatchError::Expired(1))));
    let error = fixture
        .watch(Filter::default(), WatchStart::After(1))
        .unwrap_err();
    assert_eq!((error.code, error.reason), (410, "Expired"));
}

#[tokio::test]
async fn a_reset_ends_every_watch() {
    let mut fixture = Fixture::new();
    fixture.put("n", "a", "x");
    let mut watch = fixture
        .watch(Filter::default(), WatchStart::After(1))
        .unwrap();
    fixture.pods().reset(imbl::OrdMap::new(), 50);
    watch.next().await.unwrap_err();
    fixture
        .watch(Filter::default(), WatchStart::After(49))
        .unwrap_err();
    fixture
        .watch(Filter::default(), WatchStart::After(50))
        .unwrap();
}

#[tokio::test]
async fn a_waiting_watcher_wakes() {
    let fixture = Fixture::new();
    let mut watch = fixture
        .watch(Filter::default(), WatchStart::State(Some(0)))
        .unwrap();
    let task = tokio::spawn(async move { told(&watch.next().await.unwrap()) });
    let mut fixture = fixture;
    tokio::task::yield_now().await;
    fixture.put("n", "a", "x");
    assert_eq!(task.await.unwrap(), ["+a@1"]);
}

#[tokio::test]
async fn a_watcher_sleeps_through_what_does_not_concern_it() {
    let mut fixture = Fixture::new();
    let mut one = fixture
        .watch(Filter::in_namespace("n"), WatchStart::After(0))
        .unwrap();
    fixture.put("n", "a", "x");
    assert_eq!(told(&one.next().await.unwrap()), ["+a@1"]);
    // Far more than the ring holds, all elsewhere.
    fixture.now += RING_AGE + Duration::from_secs(1);
    for _ in 0..3 * RING_EVENTS_MIN {
        fixture.now += RING_AGE;
        fixture.put("other", "b", "x");
    }
    let rv = fixture.rv;
    assert_eq!(told(&[one.bookmark().unwrap()]), [format!("={rv}")]);
    fixture.put("n", "a", "y");
    fixture.put("other", "b", "x");
    fixture.put("n", "c", "y");
    let all = told(&one.next().await.unwrap());
    assert_eq!(all, [format!("~a@{}", rv + 1), format!("+c@{}", rv + 3)]);
}

#[tokio::test]
async fn more_than_one_batch_is_told_to_a_sleeper() {
    let mut fixture = Fixture::new();
    let mut one = fixture
        .watch(Filter::in_namespace("n"), WatchStart::After(0))
        .unwrap();
    for _ in 0..100 {
        fixture.put("n", "a", "x");
        fixture.put("m", "b", "x");
    }
    let mut count = 0;
    while count < 100 {
        count += one.next().await.unwrap().len();
    }
    assert_eq!(count, 100);
    fixture.pods().reset(imbl::OrdMap::new(), 500);
    one.next().await.unwrap_err();
}

#[tokio::test]
async fn a_watch_of_a_field_hears_who_comes_and_who_leaves() {
    let mut fixture = Fixture::new();
    let node = |value: &str| Filter {
        fields: vec![FieldRequirement {
            field: Field::Kind(0),
            value: value.into(),
            equal: true,
        }],
        ..Filter::default()
    };
    let start = WatchStart::After(0);
    let mut first = fixture.watch(node("n1"), start).unwrap();
    let mut second = fixture.watch(node("n2"), start).unwrap();
    fixture.put_field("n", "a", "");
    fixture.put_field("n", "a", "n1");
    fixture.put_field("n", "a", "n2");
    fixture.put_field("n", "b", "n3");
    assert_eq!(told(&first.next().await.unwrap()), ["+a@2", "-a@3"]);
    assert_eq!(told(&second.next().await.unwrap()), ["+a@3"]);
    let mut three = fixture.watch(node("n3"), start).unwrap();
    assert_eq!(
        told(&three.next().await.unwrap()),
        ["+b@4"],
        "from before it slept"
    );
}
