//! Bytes to frames to commands and back. No tokio, no store.

pub mod fuzzing;
pub mod message;
pub mod remoting;
