//! One life of a node and its clients, decided by one seed.

use crate::behind::Behind;
use crate::clients::Clients;
use crate::consumers::People;
use crate::counters::Counters;
use crate::defects::Planted;
use crate::disk::Disk;
use crate::disk_faults::{DiskFaults, Trouble};
use crate::doors::Doors;
use crate::extra::Extra;
use crate::group::Group;
use crate::invariants::{self, Checker, Policy};
use crate::node::Node;
use crate::plan::Plan;
use crate::probe::Probe;
use crate::restart::SOON;
use crate::schedule::{Event, Schedule};
use crate::seen::Seen;
use crate::view::View;
use crate::Play;
use std::collections::BTreeMap;
use troupemq::actors::shard::core::ShardInput;
use troupemq::model::QueueKey;
use troupemq::storage::{LogStore, SimRng, SimStore};

const PAUSE_STEP_US: u64 = 100_000;
/// Quiet time after the faults, microseconds: longer than the longest delay.
const SETTLE_US: u64 = 25_000_000;
/// Within this time after it nothing must be under way for [`REST_US`]: a message may come due at any
/// time, and a slow node's tick takes 250 ms.
const REST_WITHIN_US: u64 = 5_000_000;
/// What a slow disk has still to do may take longer, as long as the log grows: no longer than this, microseconds, …
const BACKLOG_US: u64 = 90_000_000;
/// … and with no longer time between two entries than this.
const GROWS_WITHIN_US: u64 = 2_000_000;
/// Mail and writes that are under way show within this time.
const REST_US: u64 = 300_000;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub invariant: &'static str,
    pub what: String,
    /// Virtual time, ms.
    pub at_ms: u64,
}

/// See the module text.
pub struct Sim {
    pub plan: Plan,
    pub rng: SimRng,
    pub schedule: Schedule,
    pub store: Box<SimStore>,
    pub disk: Box<Disk>,
    pub node: Option<Box<Node>>,
    pub view: Box<View>,
    pub clients: Clients,
    pub(crate) people: People,
    pub(crate) doors: Doors,
    pub counters: Counters,
    pub defect: Option<Planted>,
    /// Counts restarts; messages of an earlier life are dropped.
    pub life: u64,
    /// Log index of every record shown so far.
    pub shown: BTreeMap<QueueKey, Vec<u64>>,
    /// Several nodes; the fields above and below are those of the one the world is in.
    pub group: Option<Group>,
    /// See [`crate::extra`].
    pub extra: Extra,
    /// Entries carried out in this life, with several nodes.
    pub entries_shown: u64,
    /// The machine lost power with unsynced entries written, and the replica was not filled since.
    pub hurt: bool,
    /// The store is new, and the replica was not let in with it yet.
    pub forgot: bool,
    /// The last index that it is known to have held before.
    pub owed: u64,
    /// Number of the store; later ones are larger.
    pub store_number: u64,
    /// The process is stopped until then, microseconds.
    pub paused_until: u64,
    /// Its leader may answer reads from memory until then, microseconds.
    pub lease_until: u64,
    /// The last tick came so late, microseconds.
    pub tick_late: u64,
    /// What comes from other nodes waits until then, microseconds.
    pub links_stall_until: u64,
    /// A disk fault was planted in this life.
    pub fault_planted: bool,
    pub sync_failed: bool,
    /// What is wrong with the disk.
    pub(crate) trouble: Trouble,
    pub ticks: u64,
    pub(crate) checkers: Vec<Box<dyn Checker>>,
    pub(crate) failure: Option<Failure>,
    pub(crate) seed: u64,
    /// How far the machine's clock is off, as clocks are.
    pub(crate) skew_ms: i64,
    /// And how far because somebody set it: only a minority's are.
    pub(crate) jump_ms: i64,
    /// The most that any clock was ever ahead, jumps left out.
    pub(crate) most_ahead_ms: i64,
    /// Events of the node until the next crash.
    pub(crate) crash_in: Option<u64>,
    ops_left: u32,
    /// Faults and clients have stopped since this time.
    pub(crate) settling: Option<u64>,
    /// What is written then, see [`crate::probe`].
    pub(crate) probe: Probe,
    /// The next that stops is back so soon, microseconds.
    pub(crate) comes_back_in: Option<u64>,
    trace: Option<Vec<u64>>,
    /// Print what happens.
    pub tell: bool,
}

impl Sim {
    pub fn new(seed: u64, how: Play, trace: bool) -> Self {
        let mut rng = SimRng::new(seed);
        let defect = how.defect;
        let mut plan = Plan::draw(&mut rng, how.minutes, how.nodes);
        plan.draw_promises(seed, how.nodes);
        let extra = Extra::draw(seed, &mut plan, how.nodes.max(1));
        plan.disk = DiskFaults::draw(seed, &plan);
        plan.behind = Behind::draw(seed, &mut plan, how.nodes);
        // Whoever leads goes by its own settings.
        let most = if plan.unequal {
            how.nodes as u64 + 1
        } else {
            1
        };
        let policy = Policy {
            retention_ms: plan.retention_ms,
            retention_bytes: plan.retention_bytes,
            // A segment ends with the entry that fills it, and the trim itself is an entry.
            slack_bytes: plan.segment_bytes * most,
        };
        let store = Box::new(plan.disk.new_store(defect));
        let ops_left = plan.ops;
        let people = People::new(plan.members, seed);
        let group = (how.nodes > 1).then(|| Group::new(seed, how.nodes, &plan, defect));
        Self {
            plan,
            rng,
            schedule: Schedule::default(),
            store,
            disk: Box::default(),
            node: None,
            view: Box::new(View::new(seed)),
            clients: Clients::default(),
            people,
            doors: Doors::new(seed),
            counters: Counters::default(),
            defect,
            life: 0,
            shown: BTreeMap::new(),
            group,
            extra,
            entries_shown: 0,
            hurt: false,
            forgot: true,
            owed: 0,
            store_number: 1,
            paused_until: 0,
            lease_until: 0,
            tick_late: 0,
            links_stall_until: 0,
            fault_planted: false,
            sync_failed: false,
            trouble: Trouble::default(),
            ticks: 0,
            checkers: invariants::all(policy),
            failure: None,
            seed,
            skew_ms: 0,
            jump_ms: 0,
            most_ahead_ms: 0,
            crash_in: None,
            ops_left,
            settling: None,
            probe: Probe::default(),
            comes_back_in: None,
            trace: trace.then(Vec::new),
            tell: false,
        }
    }

    /// Shows an observation to all checkers.
    pub fn see(&mut self, seen: Seen) {
        if self.tell && !matches!(seen, Seen::Clock { .. }) {
            println!("{:>10}     {seen:?}", "");
        }
        for checker in &mut self.checkers {
            if let Err(what) = checker.see(&seen) {
                let id = checker.id();
                return self.fail(id, what);
            }
        }
    }

    /// Notes the first failure; the run ends with it.
    pub fn fail(&mut self, invariant: &'static str, what: String) {
        let at_ms = self.schedule.now_us() / 1000;
        self.failure.get_or_insert(Failure {
            invariant,
            what,
            at_ms,
        });
    }

    /// Runs to the end.
    pub fn run(mut self) -> (Result<(), Failure>, Counters, Vec<u64>) {
        for node in 0..self.nodes() {
            self.schedule.after(0, Event::Restart { node, life: 0 });
            self.schedule.after(100_000, Event::Tick { node });
        }
        self.schedule.after(1000, Event::Client);
        if self.plan.members > 0 {
            self.schedule.after(2000, Event::Members);
        }
        if self.plan.doors > 0 {
            self.schedule.after(3000, Event::Doors);
        }
        let mut rests_since = 0;
        let (mut front, mut grew_at) = (0, 0);
        while self.failure.is_none() {
            let Some((now_us, event)) = self.schedule.pop() else {
                break;
            };
            self.counters.events += 1;
            if let Some(trace) = &mut self.trace {
                let before = trace.last().copied().unwrap_or(0);
                trace.push(hash(before, &format!("{now_us} {event:?}")));
            }
            self.happen(event);
            let since = self.settling.map(|since| since.max(self.probe.replaced));
            let calm_us = since.map_or(0, |since| now_us - since);
            if calm_us > SETTLE_US && !self.is_at_rest() {
                rests_since = now_us;
            }
            let rested = self.group.is_none() || now_us - rests_since > REST_US;
            let front_now = self.group.as_ref().map_or(0, |g| g.front());
            if front_now > front {
                (front, grew_at) = (front_now, now_us);
            }
            let within = match now_us - grew_at > GROWS_WITHIN_US {
                true => REST_WITHIN_US,
                false => BACKLOG_US,
            };
            if calm_us > SETTLE_US + within || calm_us > SETTLE_US && rested {
                self.end();
                break;
            }
        }
        let result = self.failure.map_or(Ok(()), Err);
        (result, self.counters, self.trace.unwrap_or_default())
    }

    fn happen(&mut self, event: Event) {
        if self.tell {
            println!("{:>10} {}", self.schedule.now_us(), text_of(&event));
        }
        if let Some(node) = event.node() {
            self.enter(node);
            // A stopped process takes nothing in; it all waits in the kernel.
            let now_us = self.schedule.now_us();
            if self.paused_until > now_us {
                // All look again at the same times, so that their order stays; the pause may be
                // cut short.
                let at = self.looks_at().min(self.paused_until);
                return self.schedule.put_off(at - now_us, event);
            }
        }
        match event {
            Event::Mail { life, mail, .. } if life == self.life => {
                self.deliver(mail);
                self.count_down();
            }
            Event::DiskStep { life, .. }
                if life == self.life && self.disk.is_due(self.schedule.now_us()) =>
            {
                self.disk_step();
                self.count_down();
            }
            Event::Mail { .. } | Event::DiskStep { .. } => {}
            Event::Crash { node, life, power } => {
                self.enter(node);
                if life == self.life {
                    self.crash(power);
                }
            }
            Event::Restart { node, life } => {
                self.enter(node);
                if life == self.life {
                    self.restart();
                }
            }
            Event::Stop {
                node,
                life,
                wipe,
                power,
            } => {
                self.enter(node);
                if life == self.life {
                    self.stop(wipe, power);
                }
            }
            Event::Cut {
                from,
                to,
                both,
                until,
            } => self.cut(from, to, both, until),
            Event::LeadAgain { node } => self.lead_again(node),
            Event::PowerCut => self.cut_power(),
            Event::Pause { node, lasts_us } => {
                self.enter(node);
                self.pause(lasts_us);
            }
            Event::Packet { from, to, bytes } => {
                self.arrived(from, to, bytes);
                self.count_down();
            }
            Event::Replay { from, to, bytes } => self.replayed(from, to, bytes),
            Event::Clock { from, to, wall_ms } => self.clock_heard(from, to, wall_ms),
            Event::Digest { from, to, at } => self.hear_digest(from, to, at),
            Event::LinkClosed { to, .. } => {
                if self.node.is_some() {
                    let node = to as u64 + 1;
                    self.post_shard(ShardInput::PeerLost { node });
                }
            }
            Event::Link { from, to, breaks } => self.link_event(from, to, breaks),
            Event::Probe => self.probe(),
            Event::Timeout { slot } => self.timed_out(slot),
            Event::Tick { node } => {
                self.see_clock();
                self.tell_unheard();
                self.tick();
                self.tell_clock();
                self.world_faults();
                let next = self.next_tick();
                self.schedule.after(next, Event::Tick { node });
            }
            Event::Client => self.client_turn(),
            Event::Members => self.members_turn(),
            Event::Doors => self.doors_turn(),
            Event::Relay {
                from,
                link,
                door,
                frame,
                ..
            } => self.relayed(from, link, door, frame),
            Event::RelayLost { node, to, link } => self.relay_lost(node, to, link),
        }
    }

    /// When what waits for a stopped process looks again whether it runs.
    pub(crate) fn looks_at(&self) -> u64 {
        (self.schedule.now_us() / PAUSE_STEP_US + 1) * PAUSE_STEP_US
    }

    /// Crashes come after a drawn number of the node's events: between any two of them.
    fn count_down(&mut self) {
        let Some(left) = &mut self.crash_in else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.crash_in = None;
            let power = self.rng.chance(self.plan.power_share, 100) || self.sync_failed;
            let power = power && (self.sync_failed || self.may_lose_power());
            let wipe = !self.sync_failed && self.rng.chance(self.plan.net.wipes, 100);
            let wipe = wipe && self.may_lose_store();
            self.crash(power);
            if wipe {
                self.lose_store();
            }
            if self.plan.net.sole && self.here() == 0 {
                self.wipe_a_learner();
            }
        }
    }

    /// What the only voter says first after its start is about a learner with a new store, and
    /// something else each time.
    fn wipe_a_learner(&mut self) {
        let one = 1 + self.rng.below(self.nodes() as u64 - 1) as usize;
        self.enter(one);
        if self.rng.chance(2, 3) && self.node.is_some() && self.may_lose_store() {
            self.crash(false);
            self.lose_store();
        }
    }

    fn client_turn(&mut self) {
        if self.settling.is_some() {
            return;
        }
        if self.ops_left == 0 {
            return self.settle();
        }
        self.see_claims(true);
        let quiet_us = self.lull_left();
        if quiet_us > 0 {
            return self.schedule.after(quiet_us, Event::Client);
        }
        self.ops_left -= 1;
        if let Some(group) = &self.group {
            let (hint, nodes) = (group.hint, group.places.len() as u64);
            let at = match self.rng.chance(1, 6) {
                true => self.rng.below(nodes) as usize,
                false => hint,
            };
            self.enter(at);
            self.note_alone();
        }
        if self.node.is_some() && !self.is_cut_off(self.here()) {
            self.client();
        }
        // Bursts are common.
        let gap = if self.rng.chance(1, 2) {
            self.rng.below(200)
        } else {
            self.rng.below(self.plan.op_gap_us)
        };
        self.schedule.after(gap, Event::Client);
    }

    /// Disk faults and steps of the clock.
    fn world_faults(&mut self) {
        if self.settling.is_some() {
            return;
        }
        self.group_faults();
        self.disk_faults();
        let cuts = self.plan.disk.power_cuts;
        self.power_fails(cuts, 1000 * self.nodes() as u64);
        if self.plan.clock_jumps && self.rng.chance(1, 100) {
            self.counters.clock_jumps += 1;
            let by = self.rng.below(20_000) as i64 - 10_000;
            self.set_clock(by);
        }
        if self.group.is_some() {
            self.link_faults();
            self.resize();
            self.process_faults();
            self.leave_behind();
        }
    }

    /// Schedules the disk's next step if it has work.
    pub fn wake_disk(&mut self) {
        if self.disk.busy || !self.disk.has_work() {
            return;
        }
        self.disk.busy = true;
        let mut delay = self.rng.below(self.disk_us());
        // While a snapshot is written much may happen to the leader.
        let often = match self.disk.installs_next() {
            true => 3,
            // The only voter is to die before its term is on disk.
            false if self.plan.net.sole && self.crash_in.is_some_and(|n| n <= SOON) => 2,
            false => 500,
        };
        if self.plan.stalls && self.settling.is_none() && self.rng.chance(1, often) {
            delay += self.stall();
        }
        if self.disk.installs_next() {
            delay += self.snapshot_waits();
        }
        delay += self.slowness();
        self.disk.at_us = self.schedule.now_us() + delay;
        self.schedule.after(
            delay,
            Event::DiskStep {
                node: self.here(),
                life: self.life,
            },
        );
    }

    fn disk_step(&mut self) {
        self.disk.busy = false;
        let flush_us = self.plan.flush_every_ms * 1000;
        let now_us = self.schedule.now_us();
        let cuts = self.disk.cuts_before_rows() && !self.is_calm();
        if cuts && self.plan.crash_every > 0 && self.rng.chance(1, 4) {
            // The log is cut, and its rows are not written.
            self.counters.cut_trims += 1;
            self.crash_in = Some(1);
        }
        let done = self.disk.step(
            &mut self.store,
            &mut self.rng,
            now_us,
            flush_us,
            self.defect,
            &mut self.counters,
        );
        if let Some(input) = done {
            self.post_shard(input);
        }
        self.wake_disk();
    }

    pub(crate) fn last_index(&mut self) -> u64 {
        self.store.bounds(crate::SHARD).map_or(0, |b| b.last)
    }

    /// Faults have stopped.
    pub fn is_calm(&self) -> bool {
        self.settling.is_some()
    }
}

/// FNV-1a over a text, chained.
fn hash(before: u64, text: &str) -> u64 {
    text.bytes().fold(before ^ 0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An event for people: bytes of records are left out.
fn text_of(event: &Event) -> String {
    let text = format!("{event:?}");
    let mut out = String::with_capacity(text.len());
    let mut digits = 0;
    for part in text.split_inclusive(", ") {
        // Runs of numbers are bytes.
        digits = if part
            .trim_end_matches(", ")
            .chars()
            .all(|c| c.is_ascii_digit())
        {
            digits + 1
        } else {
            0
        };
        if digits < 3 {
            out.push_str(part);
        }
    }
    if let Some((at, _)) = out.char_indices().nth(1200) {
        out.truncate(at);
    }
    out
}
