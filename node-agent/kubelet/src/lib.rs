//! Pod workers, runtime, probes, volumes, images, status.
