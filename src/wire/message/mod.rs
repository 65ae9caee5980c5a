//! Stored-message records, properties, batches, ids and tags.

pub mod batch;
pub mod crc;
pub mod ids;
pub mod names;
pub mod properties;
pub mod record;
pub mod tags;
