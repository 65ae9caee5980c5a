//! The name server: registry core, actor and handle.

mod actor;
pub mod core;
pub mod handle;
pub mod kv;
mod limits;
mod queues;
mod view;

pub use self::core::{RegisterReply, RegistryCore, RegistryLimits};
pub use handle::Registry;

#[cfg(test)]
mod actor_tests;
#[cfg(test)]
mod core_tests;
