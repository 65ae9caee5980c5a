//! What one seed's life is like. Each seed switches on some of the faults, with some strengths:
//! all of them at once would hide defects.

use crate::behind::Behind;
use crate::disk_faults::DiskFaults;
use crate::extra::Faults;
use troupemq::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};
use troupemq::storage::SimRng;

/// Limits, workload and faults of one life.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Client operations before the faults stop.
    pub ops: u32,
    /// Largest pause between two client operations, microseconds.
    pub op_gap_us: u64,
    pub topics: u32,
    pub queues: u32,
    pub producers: u32,
    pub groups: u32,
    /// Share of messages in the SYNC_FLUSH class, percent.
    pub sync_share: u64,
    /// Share of delayed messages, percent.
    pub delayed_share: u64,
    /// Topics are deleted and created again.
    pub churn: bool,
    /// Class in which due messages are written.
    pub timer_policy: AckPolicy,
    /// A message waits up to this long in a mailbox, microseconds.
    pub mail_us: u64,
    /// A disk operation takes up to this long, microseconds.
    pub disk_us: u64,
    /// The disk stalls now and then.
    pub stalls: bool,
    /// State rows are flushed about this often, ms.
    pub flush_every_ms: u64,
    /// A crash comes about every so many events of the node; 0 for never.
    pub crash_every: u64,
    /// Share of power losses among the crashes, percent.
    pub power_share: u64,
    /// Write errors, sync errors and full disks.
    pub disk_errors: bool,
    pub clock_jumps: bool,
    pub segment_bytes: u64,
    pub retention_ms: i64,
    pub retention_bytes: u64,
    pub max_entry_bytes: usize,
    pub max_open_writes: usize,
    /// Nodes differ in their sizes and limits; those here are the smallest.
    pub unequal: bool,
    /// Nodes that have data are restarted with other voters in their configuration now and then.
    pub misconfigured: bool,
    /// Several nodes, and every message is of the SYNC_FLUSH class.
    pub synced: bool,
    /// Members of consumer groups, beside those clients that read and commit by themselves.
    pub members: u32,
    /// Connections whose requests are forwarded to the leader, of several nodes.
    pub doors: u32,
    /// Of 1000 batches, those at which their queue stalls for up to 4 s.
    pub queue_stalls: u64,
    /// Of 100 parts of snapshots, those that come with a bit changed.
    pub spoilt_parts: u64,
    pub net: Net,
    /// Faults beside these, see [`crate::extra`].
    pub extra: Faults,
    pub disk: DiskFaults,
    /// Replicas that are far from the others' logs.
    pub behind: Behind,
}

/// Faults between nodes and of whole nodes; none for one alone.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// A message takes up to this long, microseconds.
    pub delay_us: u64,
    /// Percent of messages that are lost, and that come twice.
    pub loss: u64,
    pub double: u64,
    /// Of 1000 messages, those that come seconds late.
    pub late: u64,
    /// Of 1000 ticks, those that begin a partition, a pause, a transfer of leadership.
    pub partitions: u64,
    pub pauses: u64,
    pub transfers: u64,
    /// And a change of members. There is one place more than members then.
    pub members: u64,
    /// Percent of crashes that take the disk.
    pub wipes: u64,
    /// Of 1000 ticks of a leader, those that prepare a bad moment.
    pub moments: u64,
    /// Bytes of a snapshot in one message, and in all a tick; 0: no limit.
    pub snapshot_part: u64,
    pub snapshot_pace: u64,
    /// Nodes have other settings, and clocks that do not run alike.
    pub unequal: bool,
    /// Processors are busy, and nothing else is wrong: nobody else is to be elected.
    pub busy: bool,
    /// The first node is the only one with a vote, for ever; all others come to learn.
    pub sole: bool,
    /// This node promises its leader much, all others little. See [`crate::promises`].
    pub promises_most: Option<usize>,
}

impl Net {
    fn draw(rng: &mut SimRng) -> Self {
        Self {
            delay_us: [300, 3_000, 60_000][rng.below(3) as usize],
            loss: [0, 0, 5, 25][rng.below(4) as usize],
            double: [0, 0, 5, 40][rng.below(4) as usize],
            late: [0, 0, 5, 50][rng.below(4) as usize],
            partitions: [0, 5, 30][rng.below(3) as usize],
            pauses: [0, 0, 3, 10][rng.below(4) as usize],
            transfers: [0, 0, 2, 10][rng.below(4) as usize],
            members: [0, 0, 3, 20][rng.below(4) as usize],
            wipes: [0, 0, 20, 100][rng.below(4) as usize],
            snapshot_part: [40, 300, 1 << 18][rng.below(3) as usize],
            snapshot_pace: [0, 1_000, 10_000][rng.below(3) as usize],
            moments: [0, 0, 50, 200][rng.below(4) as usize],
            unequal: rng.chance(1, 3),
            busy: false,
            sole: false,
            promises_most: None,
        }
    }

    /// No fault but that processors are busy.
    fn busy(&self) -> Self {
        Self {
            // A slow network beside that takes the rest of an election timeout.
            delay_us: self.delay_us.min(3_000),
            snapshot_part: self.snapshot_part,
            busy: true,
            ..Self::default()
        }
    }
}

/// A class drawn with this share of SYNC_FLUSH.
pub fn policy(rng: &mut SimRng, sync_share: u64) -> AckPolicy {
    AckPolicy {
        master: if rng.chance(1, 2) {
            MasterPolicy::Sync
        } else {
            MasterPolicy::Async
        },
        flush: if rng.chance(sync_share, 100) {
            FlushPolicy::Sync
        } else {
            FlushPolicy::Async
        },
    }
}

impl Plan {
    /// Draws a life; `minutes` stretches it beyond the usual 200 to 600 operations.
    pub fn draw(rng: &mut SimRng, minutes: Option<u32>, nodes: usize) -> Self {
        let mut plan = Self::draw_one(rng, minutes);
        if nodes > 1 {
            plan.net = Net::draw(rng);
            plan.unequal = rng.chance(1, 3);
            if plan.unequal {
                // The largest segment of any node is much less.
                plan.retention_bytes *= 2;
            }
            plan.misconfigured = rng.chance(1, 4);
            // A node has that many events, not all of them together.
            plan.crash_every = [0, 2_000, 6_000, 20_000][rng.below(4) as usize];
            // A machine that stops takes what is not synced: where not everything is, only a
            // minority of machines stops at a time.
            let synced = plan.sync_share == 100;
            if !synced && rng.chance(1, 3) {
                // Much is unsynced, machines stop and leaders stall.
                (plan.sync_share, plan.power_share) = (0, 100);
                (plan.crash_every, plan.net.pauses) = (2_000, 10);
                plan.flush_every_ms = plan.flush_every_ms.max(5_000);
            }
            if synced {
                plan.timer_policy.flush = FlushPolicy::Sync;
            }
            plan.synced = synced;
            if plan.net.moments > 0 {
                // There are to be several of them.
                plan.op_gap_us = 200_000;
            }
            if plan.net.unequal {
                plan.net.partitions = 30;
            }
            if rng.chance(1, 10) {
                plan.net = plan.net.busy();
                (plan.crash_every, plan.disk_errors, plan.stalls) = (0, false, false);
                // The same for mailboxes and disks.
                (plan.mail_us, plan.disk_us) = (plan.mail_us.min(500), plan.disk_us.min(5_000));
            } else if rng.chance(1, 10) {
                plan.net.sole = true;
                (plan.net.members, plan.net.wipes, plan.net.moments) = (300, 50, 0);
                plan.crash_every = [400, 1_200][rng.below(2) as usize];
                plan.stalls = true;
            }
            plan.queue_stalls = match plan.net.busy {
                true => 0,
                false => [0, 0, 10, 50][rng.below(4) as usize],
            };
            plan.spoilt_parts = [0, 0, 10][rng.below(3) as usize];
        }
        // Drawn apart, so that nothing else is drawn anew.
        let mut own = SimRng::new(rng.clone().next_u64());
        if own.chance(1, 3) {
            plan.members = own.between(3, 6) as u32;
            // What is sent back is of the strictest class.
            plan.timer_policy = AckPolicy::STRICTEST;
        }
        if nodes > 1 && own.chance(1, 4) {
            plan.doors = own.between(1, 3) as u32;
        }
        if plan.members > 0 || plan.doors > 0 {
            // Clients that wait for queues that stand still would see nothing else.
            plan.queue_stalls = 0;
        }
        plan
    }

    fn draw_one(rng: &mut SimRng, minutes: Option<u32>) -> Self {
        let op_gap_us = [20_000, 100_000, 200_000][rng.below(3) as usize];
        let ops = match minutes {
            // Half of the gap on average.
            Some(minutes) => (u64::from(minutes) * 120_000_000 / op_gap_us) as u32,
            None => rng.between(200, 600) as u32,
        };
        let sync_share = [0, 30, 70, 100][rng.below(4) as usize];
        let segment_bytes = [2_000, 8_000, 40_000][rng.below(3) as usize];
        // A shard writes due messages in its own class, which is the strictest of its messages.
        let timer_share = if sync_share == 0 { rng.below(101) } else { 100 };
        Self {
            ops,
            op_gap_us,
            topics: rng.between(1, 3) as u32,
            queues: rng.between(1, 4) as u32,
            producers: rng.between(1, 4) as u32,
            groups: rng.between(1, 2) as u32,
            sync_share,
            delayed_share: [0, 10, 30][rng.below(3) as usize],
            churn: rng.chance(1, 2),
            timer_policy: policy(rng, timer_share),
            mail_us: [10, 500, 20_000][rng.below(3) as usize],
            disk_us: [100, 5_000, 50_000][rng.below(3) as usize],
            stalls: rng.chance(1, 4),
            flush_every_ms: [50, 500, 5_000, 60_000][rng.below(4) as usize],
            crash_every: [0, 300, 1_000, 4_000][rng.below(4) as usize],
            power_share: [0, 50, 100][rng.below(3) as usize],
            disk_errors: rng.chance(1, 4),
            clock_jumps: rng.chance(1, 4),
            segment_bytes,
            retention_ms: [3_000, 15_000, 100_000_000][rng.below(3) as usize],
            retention_bytes: segment_bytes * [0, 5, 15][rng.below(3) as usize],
            max_entry_bytes: [300, 2_000, 1 << 20][rng.below(3) as usize],
            max_open_writes: rng.between(1, 4) as usize,
            unequal: false,
            misconfigured: false,
            synced: false,
            members: 0,
            doors: 0,
            queue_stalls: 0,
            spoilt_parts: 0,
            net: Net::default(),
            extra: Faults::default(),
            disk: DiskFaults::default(),
            behind: Behind::default(),
        }
    }
}
