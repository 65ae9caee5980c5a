//! The log and state stores. The only room that names RocksDB.
//!
//! [`traits`] is the contract, [`rocks`] and [`sim`] implement it, `tests/store_conformance.rs`
//! holds both to it. [`points`] are the places at which tests end the process. [`writer`] is the one thread that writes, [`read_pool`] the threads that
//! read, [`keys`] the rows of the state store.

pub mod entry;
mod jobs;
pub mod keys;
pub mod points;
pub mod read_pool;
pub mod rocks;
pub mod sim;
pub mod stats;
pub mod traits;
pub mod writer;

pub use read_pool::{ReadPool, ReadPoolFull};
pub use rocks::{Look, Reader, RocksStore, Scrubbed, StoreOptions};
pub use sim::{Fault, Found, SimLogStore, SimRng, SimStateStore, SimStore};
pub use stats::StoreStats;
pub use traits::*;
pub use writer::{
    Appends, Done, Job, OnDone, Round, States, Step, Writer, WriterHandle, WriterOptions,
};
