//! Stored-message records, properties, batches, ids and tags.

pub mod crc;
pub mod ids;
pub mod properties;
pub mod record;
