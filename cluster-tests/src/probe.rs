//! I19: when faults stop and all are connected, writes succeed soon. And when a machine stops after the
//! last write of all, its replica gets back what it lost although nobody writes any more.

use crate::clients::Waiting;
use crate::schedule::Event;
use crate::sim::Sim;
use troupemq::actors::queue::core::QueueInput;
use troupemq::model::append::{AppendBatch, AppendRequest, RecordMeta};
use troupemq::model::command::MetaOp;
use troupemq::model::policy::{AckPolicy, FlushPolicy};
use troupemq::model::topic::{TopicConfig, PERM_READ, PERM_WRITE};
use troupemq::model::{QueueKey, TopicId};

/// The processes that start then have started by this time, microseconds.
const STARTED_US: u64 = 1_000_000;
/// And a message of the strictest class is stored so long after it, with an election timeout of 1 s.
const WITHIN_US: u64 = 5_000_000;
/// Steps of the disk for what was asked before, and entries.
const BACKLOG: u64 = 200;
/// With a voter that recovers all must come together, which some elections later is tried.
const RECOVERING: u64 = 3;
/// A client that waits asks again.
const EVERY_US: u64 = 100_000;
const AGAIN_US: u64 = 500_000;
const TOPIC: &str = "probe";

/// The write under way.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// The message, and when it was sent, microseconds.
    sent: Option<(u64, u64)>,
    /// A replica recovers.
    recovers: bool,
    /// When a topic for it was asked for.
    asked: Option<u64>,
    /// When any message came to be visible last: a backlog shrinks, microseconds.
    pub(crate) last: u64,
    /// When an operator gave a replica an empty disk: it is to be filled from then on, microseconds.
    pub(crate) replaced: u64,
    /// Entries since the faults stopped.
    entries: u64,
    /// One is stored.
    done: bool,
    /// The last message of all, unsynced.
    last_word: Option<u64>,
}

impl Sim {
    /// A producer writes until one message is stored.
    pub(crate) fn probe(&mut self) {
        let Some(since) = self.settling.filter(|_| !self.probe.done) else {
            return;
        };
        let now = self.schedule.now_us();
        let took = now - since.max(self.probe.last);
        if took > STARTED_US + self.stored_within() && !self.replace_apart() {
            let replicas = self.replicas();
            let what = format!("no message is stored for {took} us without a fault:{replicas}");
            return self.fail("I19", what);
        }
        let again = |at: Option<u64>| at.is_none_or(|at| now - at > AGAIN_US);
        let serves = (0..self.nodes()).find(|node| {
            self.enter(*node);
            self.node.is_some() && self.view.serving.is_some()
        });
        if let Some(node) = serves {
            self.enter(node);
            match self.view.topics.get(TOPIC).map(|t| t.id) {
                None if again(self.probe.asked) => {
                    self.probe.asked = Some(now);
                    let topic = TopicConfig::new(TOPIC, 1, PERM_READ | PERM_WRITE);
                    self.command(MetaOp::EnsureTopic(topic), "topic");
                }
                Some(topic) if again(self.probe.sent.map(|(_, at)| at)) => {
                    let uid =
                        self.send_probe(QueueKey::new(TopicId(topic), 0), AckPolicy::STRICTEST);
                    self.probe.sent = Some((uid, now));
                }
                _ => {}
            }
        }
        self.schedule.after(EVERY_US, Event::Probe);
    }

    /// Something is committed: of what was asked before, or at least that may be.
    pub(crate) fn backlog_shrinks(&mut self) {
        if self.settling.is_some() && self.probe.entries < BACKLOG {
            self.probe.entries += 1;
            self.probe.last = self.schedule.now_us();
        }
    }

    /// What each replica knows of who is to lead.
    pub(crate) fn replicas(&mut self) -> String {
        let mut all = String::new();
        for node in 0..self.nodes() {
            self.enter(node);
            let last = self.last_index();
            let told = self.node.as_ref().map(|n| {
                let raft = n.shard.raft();
                let (term, owed, recovering) = (raft.term(), raft.owed(), raft.is_recovering());
                let (applied, members) = (n.shard.machine().applied, raft.members());
                format!("last {last}, applied {applied:?}, term {term}, owed {owed:?}, recovering {recovering}, {members:?}")
            });
            let told = told.unwrap_or_else(|| "down".into());
            all = format!("{all} {}: {told};", node + 1);
        }
        all
    }

    fn stored_within(&mut self) -> u64 {
        let times = if self.probe.recovers { RECOVERING } else { 1 };
        let slow = self.plan.disk_us * BACKLOG;
        slow + WITHIN_US * times * self.slowest_election_ms() / 1_000
    }

    /// The node here may have to be filled before the group can do without all others.
    pub(crate) fn note_recovering(&mut self) {
        self.probe.recovers |= self.group.is_some() && (self.hurt || self.forgot);
    }

    fn send_probe(&mut self, key: QueueKey, policy: AckPolicy) -> u64 {
        let producer = 0;
        let uid = self.new_uid(producer, key, policy.flush, None);
        let records = crate::view::make_record(uid, 0);
        let waiting = Waiting::Send {
            uids: vec![uid],
            key,
            producer,
            policy,
            bodies: Vec::new(),
        };
        let here = self.here();
        let token = self.clients.slot(here, waiting);
        self.timeout(token);
        let size = records.len() as u32;
        let request = AppendRequest {
            token,
            count: 1,
            policy,
        };
        let batch = AppendBatch {
            metas: vec![RecordMeta { size, tag: 0 }],
            records,
            requests: vec![request],
        };
        let fired = Vec::new();
        self.post_queue(key, QueueInput::Append { batch, fired });
        uid
    }

    pub(crate) fn probe_is_done(&self) -> bool {
        self.probe.done
    }

    /// A message was stored.
    pub(crate) fn probed(&mut self, uid: u64) {
        let Some(since) = self.settling else { return };
        if !self.probe.done && self.probe.sent.is_some_and(|(sent, _)| sent == uid) {
            self.probe.done = true;
            self.counters.probes += 1;
            let took_ms = (self.schedule.now_us() - since) / 1_000;
            self.counters.probe_ms += took_ms;
            self.say_last_word();
        } else if self.probe.last_word.take_if(|last| *last == uid).is_some() {
            self.stop_another();
        }
    }

    fn say_last_word(&mut self) {
        let topic = self.view.topics.get(TOPIC).map(|t| t.id);
        let may = self.group.is_some() && !self.plan.synced && !self.probe.recovers;
        let Some(topic) = topic.filter(|_| may) else {
            return;
        };
        let policy = AckPolicy {
            flush: FlushPolicy::Async,
            ..AckPolicy::STRICTEST
        };
        let uid = self.send_probe(QueueKey::new(TopicId(topic), 0), policy);
        self.probe.last_word = Some(uid);
    }

    /// The machine of another node than this one, which leads, stops for a moment.
    fn stop_another(&mut self) {
        let here = self.here();
        let other = (here + 1 + self.rng.below(self.nodes() as u64 - 1) as usize) % self.nodes();
        self.enter(other);
        if self.node.is_some() && self.is_member() && self.may_lose_power() {
            self.counters.stopped_at_last += 1;
            self.comes_back_in = Some(self.rng.below(100_000));
            self.crash(true);
        }
        self.enter(here);
    }
}
