//! Several nodes in one world: each has its own place (stores, disk, clock, mailboxes); the world
//! steps into one at a time. Between them lies a network that delays, drops, doubles and cuts.
//!
//! What consumers see is told by an oracle: the state machine once more, fed with each committed
//! entry the first time any replica applies it. Every replica is held to it.

use crate::defects::Planted;
use crate::disk::Disk;
use crate::disk_faults::{DiskFaults, Trouble};
use crate::losses::Lost;
use crate::moments::Moment;
use crate::node::Node;
use crate::plan::Plan;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use crate::view::{self, View};
use bytes::Bytes;
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::shard::machine::{Event as Applied, Machine, MachineOptions};
use troupemq::model::topic::TopicConfig;
use troupemq::model::{GroupId, Position, QueueKey, TopicId};
use troupemq::raft::members::Members;
use troupemq::storage::{keys, LogEntry, LogStore, SimStore};

/// The digest is compared at every so many entries.
const DIGEST_EVERY: u64 = 16;

/// One node's part of the world. The node the world is in has its parts in [`Sim`] itself.
pub struct Place {
    pub store: Box<SimStore>,
    pub disk: Box<Disk>,
    /// Boxed: the world steps from place to place for every event.
    pub node: Option<Box<Node>>,
    pub view: Box<View>,
    pub life: u64,
    pub fault_planted: bool,
    pub sync_failed: bool,
    pub(crate) trouble: Trouble,
    pub ticks: u64,
    pub skew_ms: i64,
    /// See [`Sim::jump_ms`].
    pub jump_ms: i64,
    pub crash_in: Option<u64>,
    /// The last entry whose effects were carried out in this life.
    pub shown: u64,
    /// See [`Sim::hurt`].
    pub hurt: bool,
    /// See [`Sim::forgot`].
    pub forgot: bool,
    /// See [`Sim::owed`].
    pub owed: u64,
    pub store_number: u64,
    /// The process is stopped until then, microseconds.
    pub paused_until: u64,
    /// See [`Sim::lease_until`].
    pub lease_until: u64,
    /// See [`Sim::tick_late`].
    pub tick_late: u64,
    /// See [`Sim::links_stall_until`].
    pub links_stall_until: u64,
    /// An entry on this node's disk whose bits have changed.
    pub rotten: Option<u64>,
}

impl Place {
    pub fn new(seed: u64, disk: &DiskFaults, defect: Option<Planted>) -> Self {
        let store = Box::new(disk.new_store(defect));
        Self {
            store,
            disk: Box::default(),
            node: None,
            view: Box::new(View::new(seed)),
            life: 0,
            fault_planted: false,
            sync_failed: false,
            trouble: Trouble::default(),
            ticks: 0,
            skew_ms: 0,
            jump_ms: 0,
            crash_in: None,
            shown: 0,
            hurt: false,
            forgot: true,
            owed: 0,
            store_number: 1,
            paused_until: 0,
            lease_until: 0,
            tick_late: 0,
            links_stall_until: 0,
            rotten: None,
        }
    }
}

/// See the module text.
pub struct Group {
    pub places: Vec<Place>,
    /// The place the world is in.
    pub here: usize,
    /// Members at first: the places from the first on.
    pub(crate) members: usize,
    pub oracle: Machine,
    /// Operators take voters away until few are left.
    shrinks: bool,
    /// Term and checksum of each committed entry.
    pub(crate) log: Vec<(u64, u32)>,
    /// And the entries themselves.
    pub(crate) entries: Vec<LogEntry>,
    /// See [`crate::losses`].
    pub(crate) lost: Vec<Lost>,
    /// From, to: nothing gets through.
    pub(crate) cut: Vec<bool>,
    pub(crate) heal_at_us: u64,
    /// Who served last: clients ask there first.
    pub hint: usize,
    /// Someone serves since the faults stopped.
    pub served: bool,
    /// When anybody served first, microseconds.
    pub(crate) first_served: Option<u64>,
    /// See [`crate::moments`].
    pub(crate) moment: Option<Moment>,
}

impl Group {
    pub fn new(seed: u64, members: usize, plan: &Plan, defect: Option<Planted>) -> Self {
        let segment_bytes = plan.segment_bytes;
        let (nodes, members) = match plan.net.sole || plan.extra.resizes > 0 {
            true => (members, 1),
            false => (members + usize::from(plan.net.members > 0), members),
        };
        let mut oracle = Machine::new(crate::SHARD, MachineOptions { segment_bytes });
        oracle.members = Members::of((1..=members as u64).collect());
        Self {
            places: (0..nodes)
                .map(|_| Place::new(seed, &plan.disk, defect))
                .collect(),
            here: 0,
            members,
            oracle,
            shrinks: plan.extra.resizes > 0,
            log: Vec::new(),
            entries: Vec::new(),
            lost: Vec::new(),
            cut: vec![false; nodes * nodes],
            heal_at_us: 0,
            hint: 0,
            served: false,
            first_served: None,
            moment: None,
        }
    }

    /// The store of a replica; `here` is that of the node that is out of its place.
    pub(crate) fn store_of<'a>(&'a self, node: usize, here: &'a SimStore) -> &'a SimStore {
        match node == self.here {
            true => here,
            false => &self.places[node].store,
        }
    }

    /// The last committed entry that was seen.
    pub fn front(&self) -> u64 {
        self.log.len() as u64
    }

    /// With one more only a minority of the voters, old and new, misses something.
    fn may_hurt_one(&self) -> bool {
        let members = &self.oracle.members;
        let both = [&members.voters, &members.voters_outgoing];
        let least = both.iter().map(|v| v.len()).filter(|n| *n > 0).min();
        // One voter less may be on its way into the log.
        let least = least.map(|n| n - usize::from(self.shrinks).min(n));
        self.others_hurt() < (least.unwrap_or(0).saturating_sub(1)) / 2
    }

    /// Other nodes that miss something.
    fn others_hurt(&self) -> usize {
        let others = self.places.iter().enumerate();
        let members = &self.oracle.members;
        let others = others.filter(|(n, _)| *n != self.here && members.has_vote(*n as u64 + 1));
        let hurt = others.filter(|(_, p)| p.hurt || p.forgot || p.sync_failed);
        hurt.count()
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.places.len() + to]
    }
}

pub(crate) fn sum(entry: &LogEntry) -> u32 {
    crc(&entry.data) ^ u32::from(entry.kind)
}

/// The state's digest, and the members with it.
fn whole_digest(machine: &Machine) -> u64 {
    let members = keys::members::encode(&machine.members);
    machine.digest() ^ u64::from(crc(&members.into())) << 16
}

/// FNV-1a; the stores have checksums of their own.
fn crc(data: &Bytes) -> u32 {
    data.iter().fold(0x811c_9dc5, |h, b| {
        (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

impl Sim {
    /// Steps into the place of a node.
    pub fn enter(&mut self, to: usize) {
        let Some(here) = self.group.as_ref().map(|g| g.here) else {
            return;
        };
        if here != to {
            self.swap(here);
            self.swap(to);
        }
        if let Some(group) = &mut self.group {
            group.here = to;
        }
    }

    fn swap(&mut self, with: usize) {
        use std::mem::swap;
        let Some(group) = &mut self.group else { return };
        let place = &mut group.places[with];
        swap(&mut self.store, &mut place.store);
        swap(&mut self.disk, &mut place.disk);
        swap(&mut self.node, &mut place.node);
        swap(&mut self.view, &mut place.view);
        swap(&mut self.life, &mut place.life);
        swap(&mut self.fault_planted, &mut place.fault_planted);
        swap(&mut self.sync_failed, &mut place.sync_failed);
        swap(&mut self.trouble, &mut place.trouble);
        swap(&mut self.ticks, &mut place.ticks);
        swap(&mut self.skew_ms, &mut place.skew_ms);
        swap(&mut self.jump_ms, &mut place.jump_ms);
        swap(&mut self.crash_in, &mut place.crash_in);
        swap(&mut self.entries_shown, &mut place.shown);
        swap(&mut self.hurt, &mut place.hurt);
        swap(&mut self.forgot, &mut place.forgot);
        swap(&mut self.owed, &mut place.owed);
        swap(&mut self.store_number, &mut place.store_number);
        swap(&mut self.paused_until, &mut place.paused_until);
        swap(&mut self.lease_until, &mut place.lease_until);
        swap(&mut self.tick_late, &mut place.tick_late);
        swap(&mut self.links_stall_until, &mut place.links_stall_until);
    }

    /// Nodes of the world.
    pub fn nodes(&self) -> usize {
        self.group.as_ref().map_or(1, |g| g.places.len())
    }

    /// Members of the new group.
    pub fn first_members(&self) -> usize {
        self.group.as_ref().map_or(1, |g| g.members)
    }

    /// The place the world is in.
    pub fn here(&self) -> usize {
        self.group.as_ref().map_or(0, |g| g.here)
    }

    /// Whether the class allows this node to lose power now: where entries are unsynced, only a
    /// minority may be without its tail at a time.
    pub fn may_lose_power(&self) -> bool {
        let Some(group) = &self.group else {
            return true;
        };
        self.plan.synced || self.plan.disk.power_cuts > 0 || group.may_hurt_one()
    }

    /// The disk of this node may be lost now: at most a minority is without its data at a time.
    pub fn may_lose_store(&self) -> bool {
        let group = self.group.as_ref();
        // Nobody counts on one that only learns; any may have the only good copy of what is bad elsewhere.
        let learns =
            |g: &Group| self.plan.net.sole && !g.oracle.members.has_vote(g.here as u64 + 1);
        let sound = |g: &Group| g.places.iter().all(|p| p.rotten.is_none());
        group.is_some_and(|g| !self.is_calm() && (learns(g) || g.may_hurt_one()) && sound(g))
    }

    /// The node here comes back with an empty disk.
    pub fn lose_store(&mut self) {
        self.counters.stores_lost += 1;
        let node = self.here();
        self.see(Seen::StoreLost { node });
        let owed = match self.settling {
            None => self.lose_end(),
            // An operator's disk, not a loss.
            Some(_) => 0,
        };
        // An empty disk knows of nothing.
        if owed == 0 {
            *self.store = self.plan.disk.new_store(self.defect);
        }
        self.store_number += 1;
        (self.hurt, self.forgot) = (false, true);
        // Lives are counted anew too, but events of earlier ones must stay apart here.
        self.entries_shown = 0;
        self.owed = owed;
        self.see_losses();
    }

    /// The node here belongs to the group in the end.
    pub fn is_member(&self) -> bool {
        let me = self.here() as u64 + 1;
        self.group
            .as_ref()
            .is_none_or(|g| g.oracle.members.nodes().contains(&me))
    }

    /// The node here carried out what the next entry brought.
    pub fn entry_applied(&mut self) {
        self.entries_shown += 1;
        let index = self.entries_shown;
        match self.store.read(crate::SHARD, index, index + 1, u64::MAX) {
            Ok(found) if !found.is_empty() => self.committed(&found[0]),
            Ok(_) => self.fail(
                "I2",
                format!("entry {index} was applied and is not in the log"),
            ),
            Err(error) => self.fail("I2", format!("applied entry {index}: {error}")),
        }
    }

    /// A replica holds this entry to be committed.
    fn committed(&mut self, entry: &LogEntry) {
        if self.is_apart() {
            return;
        }
        let node = self.here();
        let (index, term, sum) = (entry.index, entry.term, sum(entry));
        self.see(Seen::Committed {
            node,
            index,
            term,
            sum,
        });
        let Some(group) = &mut self.group else { return };
        if index != group.front() + 1 || self.failure.is_some() {
            return;
        }
        self.backlog_shrinks();
        let Some(group) = &mut self.group else { return };
        group.log.push((term, sum));
        group.entries.push(entry.clone());
        let bytes = entry.data.len() as u64 + 64;
        let before = group.oracle.members.clone();
        let ensured = crate::changes::ensured(entry);
        let named = |t: &&TopicConfig| ensured.contains(&t.name);
        let kept: Vec<TopicConfig> = group.oracle.topics().filter(named).cloned().collect();
        let applied = match group.oracle.apply(entry) {
            Ok(applied) => applied,
            Err(error) => return self.fail("I3", format!("the oracle: {error}")),
        };
        let same = |topic: &&TopicConfig| group.oracle.topics().any(|t| t == *topic);
        let changed = kept.iter().find(|topic| !same(topic));
        if let Some(topic) = changed {
            let what = format!("entry {index} makes a topic again that is there: {topic:?}");
            return self.fail("I16", what);
        }
        if index.is_multiple_of(DIGEST_EVERY) {
            let digest = whole_digest(&group.oracle);
            self.see(Seen::Digest { index, digest });
        }
        self.see(Seen::Logged { index, bytes });
        self.see_changes(entry, Some(&before));
        for event in applied.events {
            self.happened(event, entry, applied.at_ms);
        }
    }

    fn happened(&mut self, event: Applied, entry: &LogEntry, at_ms: i64) {
        match event {
            Applied::Appended(block) => {
                match view::block_records(entry.index, &block, &entry.data) {
                    Ok(records) => {
                        for (offset, uid, at) in records {
                            self.visible(block.key, offset, uid, at, at_ms);
                        }
                    }
                    Err(what) => self.fail("I5", what),
                }
                if self.defect == Some(Planted::ReplyOfAnotherTerm) {
                    let at = Position {
                        index: entry.index,
                        ordinal: block.first_ordinal,
                    };
                    self.answer_ghost(block.key, block.base, at);
                }
            }
            Applied::Topic(topic) => {
                let (id, name) = (topic.id, topic.name);
                self.see(Seen::Topic { id, name });
            }
            Applied::TopicDeleted { id, .. } => {
                self.counters.topics_deleted += 1;
                self.see(Seen::TopicDeleted { id });
            }
            Applied::Offsets { group, offsets, .. } => {
                for o in offsets {
                    let key = QueueKey::new(TopicId(o.topic), o.queue);
                    self.counters.offsets_moved += 1;
                    let (GroupId(group), offset) = (GroupId(group), o.offset);
                    self.see(Seen::Offset { group, key, offset });
                }
            }
            Applied::Trimmed { queues, .. } => {
                for (key, min) in queues {
                    self.counters.queue_trims += 1;
                    self.see(Seen::Trimmed { key, min });
                }
            }
            _ => {}
        }
    }

    /// The node here has done what it could: its state is compared now and then.
    pub fn compare_state(&mut self) {
        let Some(node) = &mut self.node else { return };
        let index = node.shard.machine().applied.0;
        // What is being filled is compared once it is full.
        if node.shard.machine().is_filling() {
            node.compared = None;
        } else if node.compared.replace(index) == Some(index) {
            return;
        }
        let Some(node) = &self.node else { return };
        let machine = node.shard.machine();
        let raft = node.shard.raft().members();
        if *raft != machine.members && node.shard.failed().is_none() {
            let what = format!(
                "node {} goes by {raft:?}, and its state says {:?}",
                self.here(),
                machine.members
            );
            return self.fail("I16", what);
        }
        if machine.is_filling() || self.is_apart() {
            return;
        }
        if self.group.is_some() && index > 0 && index.is_multiple_of(DIGEST_EVERY) {
            let digest = whole_digest(machine);
            let right = machine.digest_is_right();
            self.see(Seen::Digest { index, digest });
            if !right {
                self.fail(
                    "I3",
                    format!("the digest kept at {index} is not the state's"),
                );
            }
        }
    }

    /// The node here tells the others the digest of its state; words may be lost.
    pub fn tell_digest(&mut self, index: u64, digest: u64) {
        let Some(from) = self.group.as_ref().map(|g| g.here) else {
            return;
        };
        for to in (0..self.nodes()).filter(|to| *to != from) {
            if self.rng.chance(3, 4) {
                let after = self.rng.below(2_000_000);
                let at = (index, digest);
                self.schedule.after(after, Event::Digest { from, to, at });
            }
        }
    }

    pub(crate) fn hear_digest(&mut self, from: usize, to: usize, at: (u64, u64)) {
        let cut = self.group.as_ref().is_some_and(|g| g.is_cut(from, to));
        if cut || self.node.is_none() || self.is_silent(from, to) {
            return;
        }
        self.counters.digests += 1;
        let at = (at.0, self.digest_as_heard(to, at.1));
        let (from, digests) = (from as u64 + 1, vec![at]);
        self.post_shard(ShardInput::Digests { from, digests });
    }

    /// After a restart: what the recovery applied was committed.
    pub fn recovered(&mut self, applied: u64) {
        let Some(group) = &self.group else { return };
        let first = self.store.bounds(crate::SHARD).map_or(1, |b| b.first);
        let from = (group.front() + 1)
            .min(applied.saturating_sub(8))
            .max(first);
        let entries = self
            .store
            .read(crate::SHARD, from, applied + 1, u64::MAX)
            .unwrap_or_default();
        for entry in &entries {
            self.committed(entry);
        }
        self.entries_shown = applied;
        let front = self.group.as_ref().map_or(0, Group::front);
        if front < applied && self.failure.is_none() && !self.is_apart() {
            self.fail(
                "I2",
                format!("applied {applied}, but only {front} are known"),
            );
        }
        self.compare_state();
    }

    /// The replica here says that it leads.
    pub fn leads(&mut self, term: u64) {
        self.counters.elections += 1;
        if self.is_barred() {
            let what = format!(
                "node {} leads, and most say that its state is wrong",
                self.here()
            );
            return self.fail("I3", what);
        }
        self.step_as_it_leads();
        self.leads_again_and_stops();
        self.hand_on_while_it_waits();
        if self.plan.net.transfers > 0 && !self.is_calm() && self.rng.chance(1, 6) {
            // Also by one that must wait itself.
            let to = 1 + self.rng.below(self.nodes() as u64);
            self.post_shard(ShardInput::Transfer { to });
        }
        let Some(group) = &self.group else { return };
        let (node, front) = (group.here, group.front());
        let newest = group.log.last().copied();
        let bounds = self.store.bounds(crate::SHARD);
        // One that won long ago and learns of it late may miss what a later term committed.
        let complete = match (newest, bounds) {
            (Some((newest, _)), _) if newest >= term => true,
            (Some(_), Ok(bounds)) if front < bounds.first => true,
            (Some(there), Ok(_)) => {
                let found = self.store.read(crate::SHARD, front, front + 1, u64::MAX);
                let found = found.ok().and_then(|e| e.first().map(|e| (e.term, sum(e))));
                found == Some(there)
            }
            _ => true,
        };
        self.see(Seen::Leads {
            node,
            term,
            complete,
        });
    }

    /// This node's state is the newest there is.
    pub fn is_current(&self) -> bool {
        let applied = self.node.as_ref().map(|n| n.shard.machine().applied.0);
        self.group
            .as_ref()
            .is_none_or(|g| applied == Some(g.front()) && !self.is_apart())
    }
}
