//! The log and state stores. The only room that names RocksDB.

pub mod traits;

pub use traits::*;
