//! Consumer groups: members, subscriptions, offsets and locks; and the producers' table.

mod actor;
pub mod core;
pub mod directory;
pub mod effect;
pub mod handle;
mod joined;
pub mod locks;
pub mod members;
pub mod offsets;
pub mod producers;
mod proposals;
pub mod types;

pub use handle::Groups;
pub use types::*;

#[cfg(test)]
mod actor_tests;
#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod orderly_tests;
#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod set_back_tests;
#[cfg(test)]
mod state_tests;
