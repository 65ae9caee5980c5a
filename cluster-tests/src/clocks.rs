//! The clocks of a cluster over ten minutes, beside the world of messages, which is too short for what a clock waits
//! for: a minority of the machines has its clock set wrong, also alike and also at the start; all are set wrong for
//! less than a minute; nodes are cut off, stopped and started. Held against it: the time of a node that a majority
//! of the cluster's clocks has confirmed is right, and one that waits for them waits as long as it says.

use crate::counters::Counters;
use crate::sim::Failure;
use troupemq::actors::clock::core::{ClockCore, Event, BOOT_MS, HEARD_MS, NEAR_MS, STEADY_MS};
use troupemq::storage::SimRng;

/// True time begins here, ms.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// A node looks at its clock, and tells the others, so often, ms.
const STEP_MS: i64 = 1_000;
const STEPS: i64 = 600;
/// Clocks that are right differ by so much at most, ms.
const SKEW_MS: i64 = 2_000;
/// What is heard is so old at most, ms; a node that was stopped hears what is older.
const ROUGH_MS: i64 = 5_000;
/// A clock that is wrong is so far off at least, ms.
const LEAST_JUMP_MS: i64 = 2 * NEAR_MS;
/// A clock that all agree on is not believed when it lasts for less than [`STEADY_MS`], and what was heard
/// meanwhile counts a while longer.
const LONGEST_BRIEF_MS: i64 = STEADY_MS - 15_000;
const BETWEEN_BRIEF_MS: i64 = STEADY_MS + 20_000;
/// A node is stopped for so long at most, and what it heard of a clock counts for a while after it: so long a clock
/// that is right again is wrong to others, ms.
const LONGEST_STOP_MS: u64 = 20_000;
const WRONG_FOR_MS: i64 = LONGEST_STOP_MS as i64 + HEARD_MS + ROUGH_MS;

struct Node {
    /// `None`: its process does not run.
    core: Option<ClockCore>,
    started_ms: i64,
    /// A majority of the cluster's clocks was heard since it started.
    confirmed: bool,
    /// Its machine's clock minus true time, had nobody set it.
    skew_ms: i64,
    /// How far it was set wrong, and until when; kept while others may think so.
    jump: Option<(i64, i64)>,
    /// Its process starts, or goes on, then.
    back_ms: i64,
    stopped_until_ms: i64,
    /// What comes while it is stopped: from whom, and what.
    inbox: Vec<(usize, i64)>,
}

struct World {
    rng: SimRng,
    now_ms: i64,
    nodes: Vec<Node>,
    /// The side that each node is on: those of two sides do not hear each other.
    sides: Vec<u8>,
    sides_until_ms: i64,
    /// How far clocks are wrong, where all that are wrong are wrong alike.
    alike_ms: Option<i64>,
    /// All clocks are set wrong by so much until then.
    brief: Option<(i64, i64)>,
    brief_again_ms: i64,
    held: u64,
}

impl World {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = SimRng::new(seed ^ 0x636c_6f63_6b73_2121);
        let alike_ms = rng.chance(2, 3).then(|| jump(&mut rng));
        let node = |rng: &mut SimRng| Node {
            core: None,
            started_ms: 0,
            confirmed: false,
            skew_ms: rng.below(2 * SKEW_MS as u64) as i64 - SKEW_MS,
            jump: None,
            back_ms: 0,
            stopped_until_ms: 0,
            inbox: Vec::new(),
        };
        let all = (0..nodes).map(|_| node(&mut rng)).collect();
        Self {
            rng,
            now_ms: 0,
            nodes: all,
            sides: vec![0; nodes],
            sides_until_ms: 0,
            alike_ms,
            brief: None,
            brief_again_ms: 0,
            held: 0,
        }
    }

    fn wall_ms(&self, n: usize) -> i64 {
        let node = &self.nodes[n];
        let jump = node.jump.filter(|(_, until)| *until > self.now_ms);
        let jump = jump.map_or(0, |(by, _)| by);
        let brief = self.brief.map_or(0, |(by, _)| by);
        EPOCH_MS + self.now_ms + node.skew_ms + if jump == 0 { brief } else { jump }
    }

    fn hears(&self, n: usize, other: usize) -> bool {
        n != other && self.sides[n] == self.sides[other] && self.nodes[other].core.is_some()
    }

    fn faults(&mut self) {
        let now_ms = self.now_ms;
        for node in &mut self.nodes {
            node.jump
                .take_if(|(_, until)| *until + WRONG_FOR_MS <= now_ms);
        }
        if self.brief.take_if(|(_, until)| *until <= now_ms).is_some() {
            self.brief_again_ms = now_ms + BETWEEN_BRIEF_MS;
        }
        let count = self.nodes.len();
        let wrong = self.nodes.iter().filter(|n| n.jump.is_some()).count();
        let n = self.rng.below(count as u64) as usize;
        if wrong < (count - 1) / 2 && self.nodes[n].jump.is_none() && self.rng.chance(1, 15) {
            let by = self.alike_ms.unwrap_or_else(|| jump(&mut self.rng));
            let lasts = self.rng.between(2_000, 300_000) as i64;
            self.nodes[n].jump = Some((by, now_ms + lasts));
        }
        if self.sides_until_ms <= now_ms && self.rng.chance(1, 30) {
            self.sides = (0..count).map(|_| self.rng.below(2) as u8).collect();
            self.sides_until_ms = now_ms + self.rng.between(1_000, 150_000) as i64;
        } else if self.sides_until_ms <= now_ms {
            self.sides = vec![0; count];
        }
        // Whoever starts believes what most say.
        let starts = |n: &Node| n.core.as_ref().is_none_or(|core| !core.is_settled());
        let may = self.brief.is_none() && self.brief_again_ms <= now_ms && wrong == 0;
        let few = |n: &Node| !n.confirmed;
        if may && !self.nodes.iter().any(|n| starts(n) || few(n)) && self.rng.chance(1, 40) {
            let lasts = self.rng.between(1_000, LONGEST_BRIEF_MS as u64) as i64;
            self.brief = Some((jump(&mut self.rng), now_ms + lasts));
        }
        let n = self.rng.below(count as u64) as usize;
        if self.brief.is_none() && self.rng.chance(1, 60) {
            let node = &mut self.nodes[n];
            (node.core, node.confirmed) = (None, false);
            node.inbox.clear();
            node.back_ms = now_ms + self.rng.between(0, 20_000) as i64;
        } else if self.brief.is_none() && self.rng.chance(1, 60) {
            self.nodes[n].stopped_until_ms =
                now_ms + self.rng.between(1_000, LONGEST_STOP_MS) as i64;
        }
    }

    fn step(&mut self, n: usize) -> Result<(), String> {
        let (now_ms, wall_ms, count) = (self.now_ms, self.wall_ms(n), self.nodes.len());
        let heard: Vec<(usize, i64)> = (0..count)
            .filter(|other| self.hears(n, *other) && self.nodes[*other].stopped_until_ms <= now_ms)
            .map(|other| (other, self.wall_ms(other)))
            .collect();
        let node = &mut self.nodes[n];
        if node.core.is_none() && node.back_ms <= now_ms && self.brief.is_none() {
            node.core = Some(ClockCore::new(count - 1, now_ms, wall_ms));
            node.started_ms = now_ms;
        }
        let Some(core) = &mut node.core else {
            return Ok(());
        };
        node.inbox.extend(heard);
        if node.stopped_until_ms > now_ms {
            // The rest is on its way still.
            node.inbox.truncate(20);
            return Ok(());
        }
        for (other, wall_ms) in node.inbox.drain(..) {
            core.heard(other as u64 + 1, wall_ms, now_ms);
        }
        match core.look(now_ms, wall_ms) {
            Some(Event::Settled { confirmed, .. }) => node.confirmed |= confirmed,
            Some(Event::Held { .. }) => self.held += 1,
            Some(Event::Jumped { by_ms }) => {
                return Err(format!("the time of node {n} jumps by {by_ms} ms"));
            }
            Some(Event::Freed) | None => {}
        }
        let off_ms = core.now_ms(now_ms) - EPOCH_MS - now_ms;
        if node.confirmed && off_ms.abs() > NEAR_MS + ROUGH_MS {
            return Err(format!(
                "the time of node {n} is {off_ms} ms off, and most clocks are right"
            ));
        }
        let waited_ms = now_ms - node.started_ms;
        if count > 1 && core.is_settled() && !node.confirmed && waited_ms < BOOT_MS {
            return Err(format!(
                "node {n} goes by its own clock {waited_ms} ms after its start"
            ));
        }
        Ok(())
    }
}

fn jump(rng: &mut SimRng) -> i64 {
    let by = LEAST_JUMP_MS + rng.below(172_800_000) as i64;
    if rng.chance(1, 2) {
        by
    } else {
        -by
    }
}

/// See the module text.
pub fn play(seed: u64, nodes: usize, counters: &mut Counters) -> Result<(), Failure> {
    let mut world = World::new(seed, nodes);
    for _ in 0..STEPS {
        world.now_ms += STEP_MS;
        world.faults();
        for n in 0..nodes {
            world.step(n).map_err(|what| Failure {
                invariant: "clocks",
                what,
                at_ms: world.now_ms as u64,
            })?;
        }
    }
    counters.long_holds += world.held;
    Ok(())
}
