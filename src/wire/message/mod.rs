//! Stored-message records, properties, batches, ids and tags.
