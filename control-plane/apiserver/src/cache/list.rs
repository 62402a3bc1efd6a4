//! Lists at the resourceVersion rules, with limit and continue.
//!
//! Rules: `kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions`. A page of an
//! older revision is the present map with later changes undone, so nothing is kept for it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::filter::Filter;
use super::resource::ObjMap;
use super::token::Token;
use super::{ResourceCache, WatchCache};
use crate::object::{Obj, ObjKey};
use crate::status::StatusError;

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// As it was at exactly this revision.
    Exact,
    /// At this revision or any later one.
    NotOlderThan,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Selection.
    pub filter: Filter,
    /// `resourceVersion`; `None` asks for the newest committed state.
    pub rv: Option<u64>,
    /// `resourceVersionMatch`.
    pub rv_match: Option<Match>,
    /// At most so many objects; 0 is all.
    pub limit: usize,
    /// Token of the page before.
    pub continue_token: Option<String>,
}

/// One page.
#[derive(Debug, Default)]
pub struct ListPage {
    /// Objects in key order.
    pub items: Vec<Arc<Obj>>,
    /// The revision the page holds at.
    pub revision: u64,
    /// Token of the next page, when there is more.
    pub continue_token: Option<String>,
    /// How many come after this page, when that is known.
    pub remaining: Option<usize>,
}

/// A page whose objects are taken one by one: it holds the map's root, not the objects, so that
/// many lists of many objects at a time cost little.
#[derive(Debug)]
pub struct Listing {
    /// The revision the page holds at.
    pub revision: u64,
    /// Token of the next page, when there is more.
    pub continue_token: Option<String>,
    /// How many come after this page, when that is known.
    pub remaining: Option<usize>,
    /// The objects.
    pub objects: Selected,
}

/// The selected objects of a map as it was, in key order.
#[derive(Debug, Clone)]
pub struct Selected {
    objects: ObjMap,
    filter: Filter,
    after: Option<ObjKey>,
    left: usize,
    /// Taken from the map and not yet given out, last first.
    taken: SmallVec<[Arc<Obj>; TAKEN_MAX]>,
    /// Nothing is left in the map.
    ended: bool,
}

/// How many objects are taken from the map at a time.
const TAKEN_MAX: usize = 16;

impl Selected {
    pub(super) fn new(objects: ObjMap, filter: Filter, after: Option<ObjKey>) -> Self {
        Self {
            objects,
            filter,
            after,
            left: usize::MAX,
            taken: SmallVec::new(),
            ended: false,
        }
    }

    /// Takes more from the map.
    fn refill(&mut self) {
        let mut last = None;
        let want = self.left.min(TAKEN_MAX);
        let mut found: SmallVec<[Arc<Obj>; TAKEN_MAX]> = SmallVec::new();
        let mut ended = true;
        for obj in range(&self.objects, &self.filter, self.after.as_ref()) {
            if found.len() == want {
                ended = false;
                break;
            }
            last = Some(&obj.key);
            if self.filter.matches(obj) {
                found.push(Arc::clone(obj));
            }
        }
        if let Some(last) = last {
            self.after = Some(last.clone());
        }
        self.ended = ended;
        found.reverse();
        self.taken = found;
    }
}

impl Iterator for Selected {
    type Item = Arc<Obj>;

    fn next(&mut self) -> Option<Arc<Obj>> {
        while self.taken.is_empty() && !self.ended && self.left > 0 {
            self.refill();
        }
        let obj = self.taken.pop()?;
        self.left = self.left.saturating_sub(1);
        Some(obj)
    }
}

impl Listing {
    /// All that `filter` selects of objects that are kept nowhere.
    pub(crate) fn of(objects: ObjMap, filter: &Filter) -> Self {
        Self {
            revision: 0,
            continue_token: None,
            remaining: None,
            objects: Selected::new(objects, filter.clone(), None),
        }
    }

    /// The page with its objects.
    #[must_use]
    pub fn collect(self) -> ListPage {
        ListPage {
            revision: self.revision,
            continue_token: self.continue_token,
            remaining: self.remaining,
            items: self.objects.collect(),
        }
    }
}

/// The part of `objects` that can match `filter`, after `after` if given.
pub(super) fn range<'a>(
    objects: &'a ObjMap,
    filter: &Filter,
    after: Option<&ObjKey>,
) -> impl Iterator<Item = &'a Arc<Obj>> + use<'a> {
    let namespace: Option<Box<str>> = filter.namespace.clone();
    let start = match (after, &namespace) {
        (Some(after), _) => std::ops::Bound::Excluded(after.clone()),
        (None, Some(namespace)) => std::ops::Bound::Included(ObjKey::new(namespace, "")),
        (None, None) => std::ops::Bound::Unbounded,
    };
    objects
        .range((start, std::ops::Bound::Unbounded))
        .map(|(_, obj)| obj)
        .take_while(move |obj| {
            namespace
                .as_deref()
                .is_none_or(|n| n == &*obj.key.namespace)
        })
}

impl WatchCache {
    /// Lists `resource`. `newest` is the store's revision, asked for when the rules want the
    /// newest state (the caller asks the store; the cache then waits for it).
    ///
    /// # Errors
    /// 410 Expired when the revision is no longer known, 504 when it is in the future, 400 for a
    /// token or options that make no sense.
    pub async fn list(
        &self,
        resource: &ResourceCache,
        request: &ListRequest,
        newest: impl AsyncFnOnce() -> Result<u64, StatusError>,
    ) -> Result<Listing, StatusError> {
        if let Some(token) = &request.continue_token {
            return self.continue_list(resource, request, &Token::decode(token)?);
        }
        let exact = match (request.rv, request.rv_match) {
            (None, _) => {
                self.wait_for(newest().await?).await?;
                None
            }
            (Some(0), Some(Match::Exact)) => {
                return Err(StatusError::bad_request(
                    "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
            (Some(0), _) => None,
            (Some(rv), Some(Match::Exact)) => Some(rv),
            // Without a match, a limit at a revision means exactly that revision.
            (Some(rv), None) if request.limit > 0 => Some(rv),
            (Some(rv), _) => {
                self.wait_for(rv).await?;
                None
            }
        };
        if let Some(rv) = exact {
            self.wait_for(rv).await?;
            let objects = resource.snapshot_at(rv).ok_or_else(|| {
                StatusError::expired("The resourceVersion for the provided list is too old.")
            })?;
            return Ok(page(objects, request, None, rv));
        }
        let applied = self.applied();
        let objects = resource.snapshot();
        Ok(page(objects, request, None, applied))
    }

    fn continue_list(
        &self,
        resource: &ResourceCache,
        request: &ListRequest,
        token: &Token,
    ) -> Result<Listing, StatusError> {
        if request.rv.is_some_and(|rv| rv != 0) {
            return Err(StatusError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let now = self.applied();
        if token.rv == 0 {
            return Ok(page(resource.snapshot(), request, Some(&token.after), now));
        }
        let Some(objects) = resource.snapshot_at(token.rv) else {
            let fresh = Token {
                rv: 0,
                after: token.after.clone(),
            };
            let mut error = StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter, or use the continue \
                 token in this response to retrieve the remainder of the results. Continuing with \
                 the provided token results in an inconsistent list - objects that were created, \
                 modified, or deleted between the time the first chunk was returned and now may \
                 show up in the list.",
            );
            error.continue_token = Some(fresh.encode());
            return Err(error);
        };
        Ok(page(objects, request, Some(&token.after), token.rv))
    }
}

fn page(objects: ObjMap, request: &ListRequest, after: Option<&ObjKey>, revision: u64) -> Listing {
    let filter = &request.filter;
    let mut page = Listing {
        revision,
        continue_token: None,
        remaining: None,
        objects: Selected::new(ObjMap::new(), filter.clone(), after.cloned()),
    };
    if let (Some(namespace), Some(name), None) = (&filter.namespace, filter.name(), after) {
        let found = objects.get(&ObjKey::new(namespace, name));
        page.objects.ended = true;
        page.objects.taken = found
            .filter(|obj| filter.matches(obj))
            .map(Arc::clone)
            .into_iter()
            .collect();
        return page;
    }
    if request.limit > 0 {
        let mut selected = range(&objects, filter, after).filter(|obj| filter.matches(obj));
        let last = selected
            .by_ref()
            .take(request.limit)
            .last()
            .map(|obj| obj.key.clone());
        let rest = if filter.is_selective() {
            selected.next().map(|_| None)
        } else {
            Some(selected.count()).filter(|count| *count > 0).map(Some)
        };
        page.continue_token = rest.and_then(|_| {
            let token = Token {
                rv: revision,
                after: last?,
            };
            Some(token.encode())
        });
        page.remaining = rest.flatten();
        page.objects.left = request.limit;
    }
    page.objects.objects = objects;
    page
}
