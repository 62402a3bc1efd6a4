//! The scheduler: queue, cache, plugins, bind.
