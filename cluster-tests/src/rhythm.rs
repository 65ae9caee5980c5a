//! How the clock of each node ticks: alike, or by other settings and at another speed. And nodes
//! that get too little of their processors.

use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;

/// The speed of clocks, in hundredths.
const SPEEDS: (u64, u64) = (80, 125);
/// A process gets no processor for so long at most, microseconds. A sign of life passes two nodes
/// and must not take an election timeout.
const LONGEST_STALL_US: u64 = 300_000;
/// The links of a follower get none for so long at most. Only what it hears is late.
const LONGEST_LINK_STALL_US: u64 = 4_000_000;
/// A first leader may still be replaced for so long, microseconds: at the beginning votes are split.
const SETTLED_US: u64 = 3_000_000;

/// The settings of a node, and the speed of its clock.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    pub tick_ms: u64,
    pub election_ticks: usize,
    pub promise_ticks: usize,
    /// Hundredths.
    speed: u64,
}

impl Rhythm {
    /// What this clock counts while the world goes on for so many ms.
    pub fn local_ms(&self, world_ms: i64) -> i64 {
        world_ms * self.speed as i64 / 100
    }

    /// How long the world goes on while this clock counts so many ms.
    pub fn world_us(&self, ms: u64) -> u64 {
        ms * 1_000 * 100 / self.speed
    }

    /// How far this clock counts in so many ms of the world.
    pub fn own_ms(&self, ms: u64) -> u64 {
        ms * self.speed / 100
    }
}

impl Sim {
    /// That of the node here.
    pub fn rhythm(&self) -> Rhythm {
        self.rhythm_of(self.here())
    }

    pub(crate) fn rhythm_of(&self, node: usize) -> Rhythm {
        let mut rhythm = Rhythm {
            tick_ms: 100,
            election_ticks: 10,
            promise_ticks: 10,
            speed: 100,
        };
        if self.plan.net.unequal {
            // Of the seed and the node: a restart changes neither.
            let x = (self.seed ^ (node as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (ticks, election) =
                [(100, 10), (50, 20), (100, 20), (200, 10)][(x >> 60) as usize % 4];
            (rhythm.tick_ms, rhythm.election_ticks) = (ticks, election);
            // Where they differ most, leases do.
            rhythm.promise_ticks = [3, election - 1][(x >> 50) as usize % 2];
            if let Some(most) = self.plan.net.promises_most {
                (rhythm.tick_ms, rhythm.election_ticks) = (50, 20);
                rhythm.promise_ticks = if node == most { 19 } else { 3 };
            }
            let (slow, fast) = SPEEDS;
            rhythm.speed = match (x >> 40) % 4 {
                0 => slow,
                1 => fast,
                _ => slow + (x >> 32) % (fast - slow + 1),
            };
        }
        rhythm
    }

    /// The longest election timeout of any node, in ms of the world.
    pub(crate) fn slowest_election_ms(&mut self) -> u64 {
        let here = self.here();
        let mut slowest = 0;
        for node in 0..self.nodes() {
            self.enter(node);
            let rhythm = self.rhythm();
            let ms = rhythm.tick_ms * rhythm.election_ticks as u64;
            slowest = slowest.max(rhythm.world_us(ms) / 1_000);
        }
        self.enter(here);
        slowest
    }

    /// Time until the next tick. Ticks come late, up to half of their distance, and do not put off
    /// those that follow.
    pub(crate) fn next_tick(&mut self) -> u64 {
        let rhythm = self.rhythm();
        let every = rhythm.world_us(rhythm.tick_ms);
        let late = self.rng.below(every / 2);
        every - std::mem::replace(&mut self.tick_late, late).min(every / 2) + late
    }

    /// How much longer what comes from other nodes waits.
    pub(crate) fn links_stall(&self) -> Option<u64> {
        let left = self.links_stall_until.checked_sub(self.schedule.now_us());
        left.filter(|left| *left > 0)
    }

    /// Processors are busy: at a tick.
    pub(crate) fn starve(&mut self) {
        let leads = self
            .node
            .as_ref()
            .is_some_and(|n| n.shard.raft().is_leader());
        let now_us = self.schedule.now_us();
        if self.rng.chance(1, 8) {
            self.counters.stalled_nodes += 1;
            self.paused_until = now_us + self.rng.below(LONGEST_STALL_US);
        }
        // With two of three the leader would rightly give up.
        let others = self.group.iter().flat_map(|g| &g.places);
        let one = others.into_iter().all(|p| p.links_stall_until <= now_us);
        if !leads && one && self.rng.chance(1, 50) {
            self.counters.stalled_links += 1;
            self.links_stall_until = now_us + self.rng.below(LONGEST_LINK_STALL_US);
        }
    }

    /// The shell of the product sees that its links stand still.
    pub(crate) fn tell_unheard(&mut self) {
        if self.links_stall().is_some() {
            self.post_shard(ShardInput::Unheard);
        }
    }

    /// A replica begins to serve: without a fault nobody does after the first.
    pub(crate) fn no_needless_leader(&mut self) {
        let now_us = self.schedule.now_us();
        let Some(group) = &mut self.group else { return };
        let first = *group.first_served.get_or_insert(now_us);
        if self.plan.net.busy
            && self.counters.fooled == 0
            && now_us > first + SETTLED_US
            && !self.is_calm()
        {
            let what = format!("node {} leads, and nothing was wrong", self.here());
            self.fail("I19", what);
        }
    }
}
