//! Get, list, watch.

use std::sync::Arc;

use super::{Server, Target};
use crate::cache::{Filter, ListPage, ListRequest, Listing, WatchStart, Watcher};
use crate::object::Obj;
use crate::registry::Kind;
use crate::status::StatusError;

impl Server {
    /// The store's newest committed revision.
    ///
    /// # Errors
    /// The store cannot tell.
    pub async fn newest(&self) -> Result<u64, StatusError> {
        match self.store.barrier().await {
            Ok(rev) => Ok(rev.0),
            Err(fault) => Err(StatusError::store_unavailable(&fault)),
        }
    }

    /// One object. `rv`: `None` the newest committed, otherwise not older than that (0: any).
    ///
    /// # Errors
    /// Not found; or the revision does not arrive in time.
    pub async fn get(&self, target: &Target, rv: Option<u64>) -> Result<Arc<Obj>, StatusError> {
        if target.kind.strategy.is_virtual() {
            return self.component(&target.kind, &target.key.name).await;
        }
        match rv {
            None => self.cache.wait_for(self.newest().await?).await?,
            Some(0) => {}
            Some(rv) => self.cache.wait_for(rv).await?,
        }
        let found = self.cached(target).ok_or_else(|| target.not_found())?;
        self.in_version(&target.kind, found).await
    }

    /// The object as the cache has it.
    #[must_use]
    pub fn cached(&self, target: &Target) -> Option<Arc<Obj>> {
        self.cache.of(&target.kind).get(&target.key)
    }

    /// A page of objects.
    ///
    /// # Errors
    /// As [`crate::cache::WatchCache::list`].
    pub async fn list(
        &self,
        kind: &Arc<Kind>,
        request: &ListRequest,
    ) -> Result<ListPage, StatusError> {
        Ok(self.listing(kind, request).await?.collect())
    }

    /// A page whose objects are taken when they are needed.
    ///
    /// # Errors
    /// As [`Server::list`].
    pub async fn listing(
        &self,
        kind: &Arc<Kind>,
        request: &ListRequest,
    ) -> Result<Listing, StatusError> {
        if kind.strategy.is_virtual() {
            return self.list_components(kind, request).await;
        }
        let page = self
            .cache
            .list(&self.cache.of(kind), request, async || self.newest().await)
            .await?;
        self.page_in_version(kind, page).await
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// 410 when the start is no longer kept, 504 when it is in the future.
    pub async fn watch(
        &self,
        kind: &Arc<Kind>,
        filter: Filter,
        start: WatchStart,
    ) -> Result<Watcher, StatusError> {
        match start {
            WatchStart::Now | WatchStart::State(None) | WatchStart::StateThenBookmark(None) => {
                self.cache.wait_for(self.newest().await?).await?;
            }
            WatchStart::After(rv)
            | WatchStart::State(Some(rv))
            | WatchStart::StateThenBookmark(Some(rv)) => self.cache.wait_for(rv).await?,
        }
        Watcher::start(&self.cache, &self.cache.of(kind), filter, start)
    }
}
