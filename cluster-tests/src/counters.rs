//! How often rare branches were reached: a run that reaches none of them proves nothing.

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// See the module text.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters { $(pub $name: u64),* }

        impl Counters {
            /// Adds another run's.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }
            /// Name and count of each.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    events, sent, acked, refused, unknown, late, retries, one_way, scheduled, visible, reads,
    kills, power_losses, lost_tails, replays, failed_recoveries, fatal, stalls, clock_jumps, clocks_far_off, clocks_held,
    merged_writes, syncs, unsynced_writes, flushes, log_trims, queue_trims, too_small_reads,
    store_reads, fired, orphaned_timers, dropped_appends, topics_deleted, offsets_moved,
    resets, woken_by_data, woken_by_time, queues_asleep,
    member_changes, joint, strangers, recovering, recovered, all_recovering,
    messages, messages_cut, messages_lost, messages_doubled, messages_late, partitions, pauses,
    transfers, elections, leaderships, fetches, overwritten, followers_refuse, lead_lost_in_flight, acked_truncated, stores_lost, snapshots,
    snapshot_parts, snapshots_resumed, leases, links_reset, digests, wrong_configurations,
    clogs, clogs_full, links_refused, links_broken, lost_with_link, frames, frames_refused, rings,
    asked_alone, cut_off, turned_away, all_killed, all_lost_power, stopped_again, long_pauses, slow_nodes,
    replayed, clock_steps, resize_steps, grown, shrunk, few_voters, came_back, came_back_empty, sent_again, later_refused,
    lost_ends, lost_databases, losses_accepted, power_cuts, entries_lost, other_logs, files_gone, torn_writes, holes,
    slow_disks, long_stalls, full_at_start, sync_errors,
    stalled_nodes, stalled_links, rotten, mended, bad_reads,
    changes_done, changes_refused, locks, acked_alone, stale_reads, claims, claims_of_several, unrestarted,
    probes, probe_ms, stopped_after_held, stopped_after_followed, stopped_after_voted, stopped_at_last,
    groups_awake, groups_asleep, groups_loaded, group_proposals, redirects, rebalances, members_dead, members_told,
    members_read, members_lock, members_locked, members_not_locked, members_reset, members_not_answered,
    sent_back, dead_letters, pipelined, pipelined_acked, forwarded, stuck, waited_too_long, refused_by_judge, links_lost,
    stopped_after_late_word, stalled_queues, spoilt_parts, quarrels, leads_next, leads_again, cut_trims, long_holds, fooled, left_in_turn,
    stopped_as_filled, left_behind, cut_below_learner, replaced, barred, stopped_after_heard, led_again,
    promises_outlived, alone_in_change, handed_on, handed_unheard, handed_late,
}
