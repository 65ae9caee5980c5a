//! Consumer groups: members, subscriptions, offsets and locks; and the producers' table.

pub mod handle;
pub mod types;

pub use handle::Groups;
pub use types::*;
