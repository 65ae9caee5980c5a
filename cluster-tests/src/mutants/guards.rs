//! The guards, by room. Add one beside its neighbours; `mutants --only TEXT` tries it.

mod groups;
mod machine;
mod others;
mod raft;
mod shard;

use super::Guard;

/// All of them. A guard's place is the number of its switch.
pub fn all() -> Vec<Guard> {
    [
        raft::GUARDS,
        shard::GUARDS,
        machine::GUARDS,
        others::GUARDS,
        groups::GUARDS,
    ]
    .concat()
}
