//! The name server: registry core, actor and handle.

pub mod core;
pub mod handle;

pub use self::core::RegisterReply;
pub use handle::Registry;
