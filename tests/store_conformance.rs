//! One suite for the log and state stores, run on RocksDB and on the simulated disk: single
//! operations, seeded random sequences against a model, crashes, and corruption.

#[path = "store/cases.rs"]
mod cases;
#[path = "store/harness.rs"]
mod harness;
#[path = "store/kill.rs"]
mod kill;
#[path = "store/random.rs"]
mod random;
#[path = "store/writer.rs"]
mod writer;

macro_rules! suite {
    ($name:ident, $harness:ty, $($case:ident),+ $(,)?) => {
        mod $name {
            $(#[test]
            fn $case() {
                super::cases::$case(&mut <$harness>::new());
            })+
        }
    };
}

macro_rules! both {
    ($($case:ident),+ $(,)?) => {
        suite!(rocks, crate::harness::Rocks, $($case),+);
        suite!(sim, crate::harness::Sim, $($case),+);
    };
}

both!(
    a_new_log_is_empty,
    reads_are_clipped_by_end_and_bytes,
    one_call_writes_several_shards,
    an_overwrite_cuts_the_tail,
    what_cannot_follow_is_refused_unwritten,
    trimmed_entries_are_gone_for_good,
    trimming_behind_the_end_empties_the_log,
    state_rows_are_an_ordered_map,
    synced_entries_survive_a_power_cut,
    a_sync_covers_all_shards,
    a_kill_loses_no_log_write,
    flushed_state_survives,
    a_trim_makes_state_durable_first,
    an_overwrite_survives_whole,
    a_changed_entry_is_never_served,
    a_clean_close_keeps_everything_and_ends_writing,
);
