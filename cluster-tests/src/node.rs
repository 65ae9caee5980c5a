//! The node's shell: carries out the effects of the cores as the actix shells do, but through the
//! seeded schedule.

use crate::consumers::shell::{Groups, IDS};
use crate::defects::Planted;
use crate::schedule::Mail;
use crate::seen::Seen;
use crate::sim::Sim;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use troupemq::actors::clock::core::ClockCore;
use troupemq::actors::effect::{DiskWork, Effect};
use troupemq::actors::queue::core::{refuse_batch, QueueCore, QueueInput};
use troupemq::actors::shard::core::{ShardCore, ShardInput};
use troupemq::actors::timer::core::{orphans, TimerCore, TimerInput};
use troupemq::model::outcome::{Outcome, Refusal};
use troupemq::model::policy::AckPolicy;
use troupemq::model::QueueKey;
use troupemq::storage::LogStore;

/// A queue's actor.
pub struct Queue {
    core: QueueCore,
    /// It offered to go to sleep and waits to be asked.
    offered: bool,
    closed: bool,
}

/// One life of the node.
pub struct Node {
    pub shard: ShardCore,
    timer: TimerCore,
    pub clock: ClockCore,
    queues: BTreeMap<(QueueKey, u64), Queue>,
    /// The actor that is a queue's now.
    active: BTreeMap<QueueKey, u64>,
    /// Those that clients reach directly.
    listed: BTreeMap<QueueKey, u64>,
    /// Messages of clients on their way by the shard: while there are some, a queue is not
    /// listed, or later ones would overtake them.
    detours: BTreeMap<QueueKey, u64>,
    /// Queues asked whether they are idle, and whether something was sent to them since.
    leaving: BTreeMap<QueueKey, bool>,
    next_queue: u64,
    flush_due: bool,
    pub(crate) groups: Groups,
    /// The entry whose state was compared with the others'.
    pub(crate) compared: Option<u64>,
}

impl Node {
    pub fn new(shard: ShardCore, timer: TimerCore, clock: ClockCore) -> Self {
        Self {
            shard,
            timer,
            clock,
            queues: BTreeMap::new(),
            active: BTreeMap::new(),
            listed: BTreeMap::new(),
            detours: BTreeMap::new(),
            leaving: BTreeMap::new(),
            next_queue: 0,
            flush_due: false,
            groups: Groups::default(),
            compared: None,
        }
    }

    /// The state was replaced: its timers are others.
    pub fn restart_timer(&mut self, policy: AckPolicy) {
        self.timer = TimerCore::new(self.shard.machine().timers(), policy);
    }

    fn list(&mut self, key: QueueKey, early: bool) {
        let clear = early || self.detours.get(&key).is_none_or(|n| *n == 0);
        if let Some(life) = self
            .active
            .get(&key)
            .filter(|_| clear && !self.leaving.contains_key(&key))
        {
            self.listed.insert(key, *life);
        }
    }

    /// Nothing is left to be done but timers that are not due.
    pub fn is_quiet(&self) -> bool {
        !self.shard.wants_flush() && self.queues.values().all(|q| q.core.pending() == 0)
    }
}

impl Sim {
    /// Puts a message into a mailbox of the node (or of its clients).
    pub fn post(&mut self, mail: Mail) {
        let delay = self.rng.below(self.mail_us());
        let overtake = self.defect == Some(Planted::MailOvertakes)
            && matches!(mail, Mail::Shard(ShardInput::Append(_)))
            && self.rng.chance(1, 10);
        let delay = if overtake { 0 } else { delay };
        let delay = delay + self.stall_of(&mail);
        let at = (self.here(), self.life);
        self.schedule.post(at, delay, mail, overtake);
    }

    pub fn post_shard(&mut self, input: ShardInput) {
        self.post(Mail::Shard(input));
    }

    /// From a client: to the queue's actor if one is listed, else by way of the shard.
    pub fn post_queue(&mut self, key: QueueKey, input: QueueInput) {
        let listed = self
            .node
            .as_ref()
            .and_then(|node| node.listed.get(&key).copied());
        if let (None, Some(node)) = (listed, &mut self.node) {
            *node.detours.entry(key).or_default() += 1;
        }
        self.post(match listed {
            Some(life) => Mail::Queue(key, life, input),
            None => Mail::Forward(key, input),
        });
    }

    /// A message is taken from its mailbox.
    pub fn deliver(&mut self, mail: Mail) {
        if mail.reads_clock() {
            self.see_clock();
        }
        match mail {
            Mail::Shard(ShardInput::Tick { .. }) => {
                self.look_at_clock();
                let now_ms = self.due_ms();
                self.shard(ShardInput::Tick { now_ms });
            }
            Mail::Shard(input) => self.shard(input),
            Mail::Flush => {
                if let Some(node) = &mut self.node {
                    node.flush_due = false;
                }
                let now_ms = self.node_ms();
                self.shard(ShardInput::Flush { now_ms });
            }
            Mail::Forward(key, input) => {
                self.carry_out(vec![Effect::ToQueue(key, input)]);
                let early = self.defect == Some(Planted::ListedTooEarly);
                if let Some(node) = &mut self.node {
                    if let Some(n) = node.detours.get_mut(&key) {
                        *n = n.saturating_sub(1);
                    }
                    node.list(key, early);
                }
            }
            Mail::FromTimer(effects) => self.carry_out(effects),
            Mail::Decided(input) => self.post_shard(input),
            Mail::Parking(key, input) => self.post_queue(key, input),
            Mail::Retire(key, life) => {
                let Some(node) = self
                    .node
                    .as_mut()
                    .filter(|n| n.active.get(&key) == Some(&life))
                else {
                    return;
                };
                node.listed.remove(&key);
                node.leaving.insert(key, false);
                self.post(Mail::AskIdle(key, life));
            }
            Mail::AskIdle(key, life) => {
                let mono_ms = self.mono_ms();
                let Some(queue) = self
                    .node
                    .as_mut()
                    .and_then(|n| n.queues.get_mut(&(key, life)))
                else {
                    return;
                };
                queue.offered = false;
                let idle = queue.core.is_idle(mono_ms, 2_000);
                self.post(Mail::IdleIs(key, life, idle));
            }
            Mail::IdleIs(key, life, idle) => {
                let Some(node) = self
                    .node
                    .as_mut()
                    .filter(|n| n.active.get(&key) == Some(&life))
                else {
                    return;
                };
                if node.leaving.remove(&key) == Some(false) && idle {
                    self.counters.queues_asleep += 1;
                    node.active.remove(&key);
                    node.queues.remove(&(key, life));
                } else {
                    node.list(key, false);
                }
            }
            Mail::Queue(key, life, input) => self.queue(key, life, input),
            Mail::Timer(input) => {
                let input = match input {
                    TimerInput::Tick { .. } => {
                        let ahead = if self.defect == Some(Planted::TimerAhead) {
                            700
                        } else {
                            0
                        };
                        TimerInput::Tick {
                            now_ms: self.due_ms() + ahead,
                        }
                    }
                    input => input,
                };
                let mut out = Vec::new();
                if let Some(node) = &mut self.node {
                    node.timer.step(input, &mut out);
                }
                if !out.is_empty() {
                    self.post(Mail::FromTimer(out));
                }
            }
            Mail::Disk(work) => {
                if let DiskWork::Stage { batch } = &work {
                    self.counters.snapshot_parts += batch.ops.len() as u64;
                }
                self.disk.take(work);
                self.wake_disk();
            }
            Mail::Load(timers) => {
                for (timer, target) in timers {
                    let found = self.scheduled_record(timer);
                    let (tag, record) =
                        found.map_or((0, None), |(tag, record)| (tag, Some(record)));
                    let input = TimerInput::Loaded {
                        timer,
                        target,
                        tag,
                        record,
                    };
                    // Told twice: only the first may count.
                    if self.rng.chance(1, 20) {
                        self.post(Mail::Timer(input.clone()));
                    }
                    self.post(Mail::Timer(input));
                }
            }
            Mail::Group(group, life, mail) => self.group_mail(group, life, *mail),
            Mail::LoadGroup(group, life, id, of) => self.load_group(group, life, id, of),
            Mail::Told(request, told) => self.member_told(request, told),
            Mail::Answer(token, outcome) => self.answered(token, outcome),
            Mail::Proposal(id, result) => self.proposed(id, result),
        }
    }

    fn shard(&mut self, input: ShardInput) {
        let input = self.before_step(input);
        let mut out = Vec::new();
        let Some(node) = &mut self.node else { return };
        node.shard.step(input, &mut out);
        self.carry_out(out);
    }

    fn queue(&mut self, key: QueueKey, life: u64, input: QueueInput) {
        let now_ms = self.mono_ms();
        let tick = matches!(input, QueueInput::Tick { .. });
        let input = if tick {
            QueueInput::Tick { now_ms }
        } else {
            input
        };
        let mut out = Vec::new();
        let Some(queue) = self
            .node
            .as_mut()
            .and_then(|n| n.queues.get_mut(&(key, life)))
        else {
            return;
        };
        queue.core.step(input, &mut out);
        queue.closed |= queue.core.is_closed();
        if tick && !queue.closed && !queue.offered && queue.core.is_idle(now_ms, 2_000) {
            queue.offered = true;
            self.post(Mail::Retire(key, life));
        }
        for effect in out {
            match effect {
                Effect::Answer(token, outcome) => self.post(Mail::Answer(token, outcome)),
                Effect::ToShard(input) => self.post_shard(input),
                other => self.fail("shell", format!("a queue core asked for {other:?}")),
            }
        }
    }

    /// The effects of the shard's core, and of what runs on its actor.
    pub fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        let mut unreachable = BTreeSet::new();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::ToShard(input) => {
                    if matches!(input, ShardInput::Orphans(_)) {
                        self.counters.orphaned_timers += 1;
                    }
                    let mut more = Vec::new();
                    if let Some(node) = &mut self.node {
                        node.shard.step(input, &mut more);
                    }
                    effects.extend(more);
                }
                Effect::ToQueue(key, input) => self.hand_to_queue(key, input, &mut effects),
                Effect::ToTimer(input) => {
                    self.counters.fired += u64::from(matches!(input, TimerInput::Fired(_)));
                    self.post(Mail::Timer(input));
                }
                Effect::LoadScheduled(timers) => self.post(Mail::Load(timers)),
                Effect::Disk(work) => {
                    if matches!(work, DiskWork::Trim { .. }) {
                        self.stop_in_the_middle();
                    }
                    if self.group.is_some() {
                        match &work {
                            DiskWork::State { .. } => self.entry_applied(),
                            DiskWork::Fetch(_) => self.counters.fetches += 1,
                            DiskWork::Append { append, .. } => {
                                let last = self.store.bounds(crate::SHARD).map_or(0, |b| b.last);
                                let first = append.entries.first();
                                let cuts = first.is_some_and(|first| first.index <= last);
                                self.counters.overwritten += u64::from(cuts);
                            }
                            DiskWork::Stage { .. } => self.stop_in_the_middle(),
                            DiskWork::Trim { .. }
                            | DiskWork::Install { .. }
                            | DiskWork::Forget { .. }
                            | DiskWork::Copy { .. }
                            | DiskWork::Base { .. }
                            | DiskWork::Mend { .. }
                            | DiskWork::Condemn(_) => {}
                        }
                    } else if let DiskWork::State { applied, .. } = &work {
                        let applied = *applied;
                        self.see_changes_to(applied);
                    } else if let DiskWork::Append { append, .. } = &work {
                        for e in &append.entries {
                            let bytes = e.data.len() as u64 + 64;
                            self.see(Seen::Logged {
                                index: e.index,
                                bytes,
                            });
                        }
                    }
                    self.post(Mail::Disk(work));
                }
                Effect::Send { to, bytes } => {
                    // As the shell of the product: told once, what is said next fails the same way.
                    if !self.send(to, bytes) && unreachable.insert(to) {
                        let input = ShardInput::Unreachable { node: to };
                        effects.push_back(Effect::ToShard(input));
                    }
                }
                Effect::Answer(token, outcome) => self.post(Mail::Answer(token, outcome)),
                Effect::Proposal { id, result } if id >= IDS => self.group_proposed(id, result),
                Effect::Proposal { id, result } => self.post(Mail::Proposal(id, result)),
                Effect::Publish(publish) => self.publish(publish),
            }
        }
        self.compare_state();
        if let Some(node) = &mut self.node {
            if !node.flush_due && node.shard.wants_flush() {
                node.flush_due = true;
                self.post(Mail::Flush);
            }
        }
    }

    fn hand_to_queue(&mut self, key: QueueKey, input: QueueInput, effects: &mut VecDeque<Effect>) {
        let Some(node) = &mut self.node else { return };
        if let QueueInput::Abandoned {
            why: Refusal::NotFound(_),
            ..
        } = &input
        {
            self.counters.dropped_appends += 1;
        }
        if let Some(life) = node.active.get(&key).copied() {
            node.leaving.entry(key).and_modify(|sent| *sent = true);
            return self.post(Mail::Queue(key, life, input));
        }
        let topic = node.shard.machine().has_topic(key.topic.0);
        let epoch = match node.shard.serving() {
            Some(_) if topic => node.shard.epoch(),
            serving => {
                let why = match serving {
                    Some(_) => Refusal::NotFound("topic"),
                    None if node.shard.failed().is_some() => Refusal::Unavailable("storage failed"),
                    None => Refusal::NotLeader,
                };
                let mut out = Vec::new();
                match input {
                    QueueInput::Append { batch, fired } => {
                        refuse_batch(&batch, &why, &mut out);
                        if why == Refusal::NotFound("topic") {
                            out.extend(orphans(fired));
                        }
                    }
                    QueueInput::Park(request) => {
                        out.push(Effect::Answer(request.token, Outcome::Wake { data: false }));
                    }
                    _ => {}
                }
                effects.extend(out);
                return;
            }
        };
        if !matches!(input, QueueInput::Append { .. } | QueueInput::Park(_)) {
            return;
        }
        let twice = self.defect == Some(Planted::AnsweredTwice);
        let next = node.shard.machine().queue(key).next;
        let core = QueueCore::new(key, epoch, next).that_answers_twice(twice);
        node.next_queue += 1;
        let life = node.next_queue;
        node.queues.insert(
            (key, life),
            Queue {
                core,
                offered: false,
                closed: false,
            },
        );
        node.active.insert(key, life);
        node.list(key, false);
        self.post(Mail::Queue(key, life, input));
    }

    /// Ends these queues' actors.
    pub fn close_queues(&mut self, which: impl Fn(&QueueKey) -> bool, why: Refusal) {
        let Some(node) = &mut self.node else { return };
        let gone: Vec<_> = node
            .active
            .iter()
            .filter(|(k, _)| which(k))
            .map(|(k, l)| (*k, *l))
            .collect();
        node.active.retain(|k, _| !which(k));
        node.listed.retain(|k, _| !which(k));
        node.leaving.retain(|k, _| !which(k));
        for (key, life) in gone {
            self.post(Mail::Queue(key, life, QueueInput::Closed(why.clone())));
        }
    }

    /// The clock ticks for all parts of the node.
    pub fn tick(&mut self) {
        let Some(node) = &self.node else { return };
        let queues: Vec<_> = node.active.iter().map(|(k, l)| (*k, *l)).collect();
        self.ticks += 1;
        self.rot();
        self.scrub();
        self.post_shard(ShardInput::Tick { now_ms: 0 });
        self.ask_for_lease();
        self.groups_tick();
        self.post(Mail::Timer(TimerInput::Tick { now_ms: 0 }));
        if self.ticks.is_multiple_of(5) {
            for (key, life) in queues {
                self.post(Mail::Queue(key, life, QueueInput::Tick { now_ms: 0 }));
            }
        }
    }
}
