//! Kubernetes objects as data: schema table, types, selectors, quantities, patches, transcoding.
