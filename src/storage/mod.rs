//! The log and state stores. The only room that names RocksDB.
