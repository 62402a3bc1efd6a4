//! What controllers use to read and write objects: client, reflector, store, work queue, events.
