//! The API server: HTTP, verbs, registry, watch cache, authentication.
