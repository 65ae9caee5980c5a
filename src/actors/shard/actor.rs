//! The actix shell of a shard: hands events to the core and carries its effects out.

use super::core::{ShardCore, ShardInput, INTERNAL};
use super::directory::QueueDirectory;
use super::handle::ProposalResult;
pub use super::mail::{
    DiskDone, FromTimer, GroupStateMail, MembersMail, ProposeMail, ReplicasMail, ShardMail,
};
use super::meta::MetaTable;
use super::pace::Pace;
use super::reads::Reads;
use super::status::{boot_ns, ShardStatus};
use super::views::Views;
use crate::actors::abort::AbortOnPanic;
use crate::actors::clock::{boot_ms, NodeClock};
use crate::actors::effect::{written, DiskWork, Effect, Handed};
use crate::actors::link::ReplicaLink;
use crate::actors::queue::actor::{QueueActor, QueueMail};
use crate::actors::queue::core::{refuse_batch, QueueCore, QueueInput};
use crate::actors::sinks::{SharedOutbox, Sinks};
use crate::actors::timer::actor::{TimerActor, TimerMail};
use crate::actors::timer::core::{orphans, TimerCore, TimerInput};
use crate::model::outcome::{Outcome, Refusal};
use crate::model::policy::AckPolicy;
use crate::model::{QueueKey, ShardId};
use crate::raft::{Fetch, PeerProgress};
use crate::storage::points::{pass, FailPoint};
use crate::storage::writer::{Job, WriterHandle};
use crate::storage::{ReadPool, StoreError};
use actix::prelude::*;
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A leader asks so often whether it still leads.
const CONFIRM_TICKS: u64 = 2;
/// A follower this many entries behind, or fewer, may serve what was stored earlier.
const READER_LAG: u64 = 1_000;
/// Queues look at their deadlines so often.
const QUEUE_TICK: Duration = Duration::from_millis(500);

/// The most bytes and rows written by the shard's own thread. See [`ShardActor::does_here`].
const HERE_BYTES: usize = 16 << 10;
const HERE_ROWS: usize = 32;

#[derive(Message)]
#[rtype(result = "()")]
struct FlushMail;

/// What a shard's shell is given.
#[derive(Clone)]
pub struct ShardDeps {
    pub shard: ShardId,
    pub views: Arc<Views>,
    pub meta: MetaTable,
    pub reads: Arc<Reads>,
    pub sinks: Sinks,
    pub writer: WriterHandle,
    pub pool: Arc<ReadPool>,
    pub directory: QueueDirectory,
    pub status: Arc<ShardStatus>,
    /// Class in which fired timers are written.
    pub policy: AckPolicy,
    /// The way to the other replicas.
    pub replicas: Arc<dyn ReplicaLink>,
    /// One tick of raft's clock.
    pub tick: Duration,
    /// What followers far behind may be given, all shards together.
    pub pace: Arc<Pace>,
    /// The node's time.
    pub clock: Arc<NodeClock>,
}

/// See the module text.
pub struct ShardActor {
    pub(super) core: ShardCore,
    pub(super) deps: ShardDeps,
    pub(super) timer: Option<Addr<TimerActor>>,
    pub(super) me: Option<Addr<ShardActor>>,
    pub(super) queues: FxHashMap<QueueKey, Addr<QueueActor>>,
    /// Queues asked whether they are idle, and whether something was sent to them since.
    pub(super) leaving: FxHashMap<QueueKey, bool>,
    pub(super) waiting: FxHashMap<u64, Box<dyn FnOnce(ProposalResult) + Send>>,
    pub(super) next_proposal: u64,
    flush_due: bool,
    ticks: u64,
    last_tick: Option<Instant>,
    /// [`ReplicaLink::pulse`] at the last tick.
    last_pulse: Option<u64>,
    /// Followers that may serve pulls, found since the last look.
    readers: BTreeSet<u64>,
    outbox: Rc<SharedOutbox>,
}

impl ShardActor {
    pub(super) fn start_timer(&mut self) {
        let Some(me) = self.me.clone() else { return };
        let timers: Vec<_> = self.core.machine().timers().collect();
        let core = TimerCore::new(timers, self.deps.policy);
        self.timer = Some(TimerActor::new(core, me).start());
    }

    /// The shell of a restored shard, made on the thread that runs it.
    pub fn new(core: ShardCore, deps: ShardDeps) -> Self {
        let outbox = SharedOutbox::new(deps.sinks.clone());
        Self {
            core,
            deps,
            timer: None,
            me: None,
            queues: FxHashMap::default(),
            leaving: FxHashMap::default(),
            waiting: FxHashMap::default(),
            next_proposal: INTERNAL + 1,
            flush_due: false,
            ticks: 0,
            last_tick: None,
            last_pulse: None,
            readers: BTreeSet::new(),
            outbox,
        }
    }

    pub(super) fn input(&mut self, input: ShardInput, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.step(input, &mut effects);
        self.carry_out(effects, ctx);
    }

    /// Carries effects out in the order given, and asks for a flush when something waits for one.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        let mut queue = VecDeque::from(effects);
        let mut unreachable = BTreeSet::new();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::ToShard(input) => {
                    let mut more = Vec::new();
                    self.core.step(input, &mut more);
                    queue.extend(more);
                }
                Effect::ToQueue(key, input) => self.send_queue(key, input, &mut queue, ctx),
                Effect::ToTimer(input) => self.send_timer(input),
                Effect::LoadScheduled(timers) => self.load_scheduled(timers),
                Effect::Disk(work) => self.disk(work, &mut queue),
                Effect::Send { to, bytes } => {
                    let sent = self.deps.replicas.send(self.deps.shard, to, bytes);
                    // Told once: what is said to it next fails the same way.
                    if !sent && unreachable.insert(to) {
                        queue.push_back(Effect::ToShard(ShardInput::Unreachable { node: to }));
                    }
                }
                Effect::Answer(token, outcome) => {
                    if let Outcome::Refused(Refusal::Quota(why)) = &outcome {
                        self.deps.status.quota_refused(why.kind);
                    }
                    pass(FailPoint::Answer);
                    self.outbox.push(token, outcome);
                }
                Effect::Proposal { id, result } => {
                    if let Err(Refusal::Quota(why)) = &result {
                        self.deps.status.quota_refused(why.kind);
                    }
                    if let Some(done) = self.waiting.remove(&id) {
                        done(result);
                    }
                }
                Effect::Publish(publish) => self.publish(publish),
            }
        }
        if !self.flush_due && self.core.wants_flush() {
            self.flush_due = true;
            ctx.notify(FlushMail);
        }
        let raft = self.core.raft();
        let applied = self.core.machine().applied.0;
        self.deps.views.set_applied(applied);
        let status = &self.deps.status;
        status.set(raft.term(), raft.committed(), applied);
        status.set_holdings(self.core.machine().holdings());
        status.set_lead(raft.term(), raft.leader());
        status.set_recovering(raft.is_recovering());
        status.set_log(raft.next_index() - 1, raft.is_lone());
        status.set_owed(raft.owed());
        status.set_receiving(raft.receiving());
        if raft.is_transferring() {
            // The next leader need not wait until the others' promise to this one is over.
            status.set_lease(0);
        }
        let (members, me) = (raft.members(), raft.id());
        status.set_member(
            members.has_vote(me)
                || members.learners.contains(&me)
                || members.learners_next.contains(&me),
        );
    }

    /// Collects the followers that may serve what was stored earlier.
    fn look_for_readers(&mut self) {
        let raft = self.core.raft();
        let (me, needed) = (raft.id(), raft.committed().saturating_sub(READER_LAG));
        let near = |p: &PeerProgress| p.active && !p.snapshot && p.matched >= needed;
        let found = raft.progress().into_iter().filter(near).map(|p| p.node);
        self.readers.extend(found.filter(|node| *node != me));
    }

    /// After a stop of the process, or a long stall of this thread, what waited to be heard is old.
    fn notice_sleep(&mut self, ctx: &mut Context<Self>) {
        let timeout = self.deps.tick * self.core.raft().election_ticks() as u32;
        if self.last_tick.is_some_and(|at| at.elapsed() >= timeout) {
            self.input(ShardInput::Slept, ctx);
        }
    }

    /// Asks the others whether this replica still leads.
    fn confirm(&mut self, ctx: &mut Context<Self>) {
        if self.core.raft().is_leader() {
            self.input(ShardInput::Confirm { stamp: boot_ns() }, ctx);
        }
    }

    fn send_timer(&self, input: TimerInput) {
        if let Some(timer) = &self.timer {
            timer.do_send(TimerMail(input));
        }
    }

    fn send_queue(
        &mut self,
        key: QueueKey,
        input: QueueInput,
        effects: &mut VecDeque<Effect>,
        ctx: &mut Context<Self>,
    ) {
        if let Some(addr) = self.queues.get(&key) {
            self.leaving.entry(key).and_modify(|sent| *sent = true);
            return addr.do_send(QueueMail(input));
        }
        match input {
            QueueInput::Append { .. } | QueueInput::Park(_) => {}
            // Nobody waits in a queue that sleeps.
            _ => return,
        }
        let epoch = match self.core.serving() {
            Some(_) if self.core.machine().has_topic(key.topic.0) => self.core.epoch(),
            serving => {
                let why = match serving {
                    Some(_) => Refusal::NotFound("topic"),
                    None if self.core.failed().is_some() => Refusal::Unavailable("storage failed"),
                    None => Refusal::NotLeader,
                };
                return self.refuse(input, why, effects);
            }
        };
        let core = QueueCore::new(key, epoch, self.core.machine().queue(key).next);
        let addr = QueueActor::new(key, core, ctx.address(), self.outbox.clone()).start();
        addr.do_send(QueueMail(input));
        // Listed only after the first event is in its mailbox, so that nothing overtakes it.
        self.deps.directory.list(key, &addr);
        self.queues.insert(key, addr);
    }

    fn refuse(&mut self, input: QueueInput, why: Refusal, effects: &mut VecDeque<Effect>) {
        let mut out = Vec::new();
        match input {
            QueueInput::Append { batch, fired } => {
                refuse_batch(&batch, &why, &mut out);
                // Without its topic a delayed message has nowhere to go; otherwise it fires later.
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
    }

    fn disk(&mut self, work: DiskWork, effects: &mut VecDeque<Effect>) {
        let shard = self.deps.shard;
        if let DiskWork::Append { append, .. } = &work {
            let bytes = append.entries.iter().map(|e| e.data.len() as u64).sum();
            self.deps.pace.written(bytes);
        }
        let job = match work.handed(shard) {
            Handed::ToWriter(job) => job,
            Handed::ToReaders(work) => return self.reads(work, effects),
        };
        let handed = match self.does_here(&job) {
            true => self.deps.writer.submit_here(job).map(|_| ()),
            false => self.deps.writer.submit(job),
        };
        if let Err(error) = handed {
            effects.push_back(Effect::ToShard(ShardInput::DiskFailed(error.to_string())));
        }
    }

    fn reads(&mut self, work: DiskWork, effects: &mut VecDeque<Effect>) {
        match work {
            DiskWork::Fetch(fetch) => self.fetch(fetch, effects),
            DiskWork::Base { members } => self.make_base(members, effects),
            DiskWork::Copy { to, index } => self.copy(to, index),
            _ => {}
        }
    }

    /// A small write that need not wait for the disk is done on this thread when the writer has
    /// nothing to do: waking it and being woken takes longer. Not with other replicas, who are to
    /// hear from this one whatever its disk does.
    fn does_here(&self, job: &Job) -> bool {
        let raft = self.core.raft();
        let small = match job {
            Job::Append { append, .. } => {
                let bytes = append.entries.iter().map(|e| e.data.len()).sum::<usize>();
                !append.sync && bytes <= HERE_BYTES && self.core.open_writes() <= 1
            }
            Job::State { batch, .. } => {
                batch.ops.len() <= HERE_ROWS && self.core.open_writes() == 0
            }
            _ => false,
        };
        small && raft.members().is_alone(raft.id())
    }

    /// Reads log entries for a follower that is behind, on the read pool, when it is its turn.
    fn fetch(&self, fetch: Fetch, effects: &mut VecDeque<Effect>) {
        let Some(me) = self.me.clone() else { return };
        let (late, pool) = (me.clone(), self.deps.pool.clone());
        let pace = self.deps.pace.clone();
        let shard = self.deps.shard;
        let work = Box::new(move |reader: &crate::storage::Reader| {
            let found = fetch.read(|from, to, max| reader.read_entries(shard, from, to, max));
            let input = match found {
                Ok(entries) => {
                    let bytes = entries.iter().map(|e| e.data.len() as u64).sum();
                    pace.read(bytes, Instant::now());
                    ShardInput::Fetched {
                        from: fetch.from,
                        entries,
                    }
                }
                // Retention was faster.
                Err(StoreError::Trimmed(_)) => ShardInput::Fetched {
                    from: fetch.from,
                    entries: Vec::new(),
                },
                // The follower asks again, and there may be a good copy then.
                Err(StoreError::BadEntry { index, .. }) => {
                    me.do_send(ShardMail(ShardInput::BadEntry { index }));
                    ShardInput::Fetched {
                        from: fetch.from,
                        entries: Vec::new(),
                    }
                }
                Err(error) => ShardInput::DiskFailed(error.to_string()),
            };
            me.do_send(ShardMail(input));
        });
        let nothing = ShardInput::Fetched {
            from: fetch.from,
            entries: Vec::new(),
        };
        let wait = self.deps.pace.wait(Instant::now());
        if wait.is_zero() {
            if pool.submit(work).is_err() {
                effects.push_back(Effect::ToShard(nothing));
            }
            return;
        }
        actix::spawn(async move {
            actix::clock::sleep(wait).await;
            if pool.submit(work).is_err() {
                late.do_send(ShardMail(nothing));
            }
        });
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.me = Some(ctx.address());
        let me = ctx.address();
        let tell = move |input| me.do_send(ShardMail(input));
        self.deps.reads.tell_bad(Box::new(tell));
        self.start_timer();
        let mut effects = Vec::new();
        self.core.start(&mut effects);
        self.carry_out(effects, ctx);
        let queue_ticks =
            (QUEUE_TICK.as_millis() / self.deps.tick.as_millis().max(1)).max(1) as u64;
        ctx.run_interval(self.deps.tick, move |shard, ctx| {
            let _guard = AbortOnPanic;
            // After a stall of this thread the missed ticks come all at once: time in which
            // nobody could be heard must not count as silence.
            let now = Instant::now();
            let since = shard.last_tick.map(|at| now.duration_since(at));
            if since.is_some_and(|since| since < shard.deps.tick / 2) {
                return;
            }
            shard.notice_sleep(ctx);
            shard.last_tick = Some(now);
            // What others said may wait in the links, whose thread has not run meanwhile.
            let pulse = shard.deps.replicas.pulse();
            let before = std::mem::replace(&mut shard.last_pulse, pulse);
            if pulse.is_some() && pulse == before {
                shard.input(ShardInput::Unheard, ctx);
            }
            shard.deps.clock.refresh();
            let now_ms = shard.deps.clock.due_ms();
            shard.ticks += 1;
            shard.input(ShardInput::Tick { now_ms }, ctx);
            if shard.ticks % CONFIRM_TICKS == 0 {
                shard.confirm(ctx);
                shard.look_for_readers();
            }
            shard.send_timer(TimerInput::Tick { now_ms });
            if shard.ticks % queue_ticks == 0 {
                let readers = std::mem::take(&mut shard.readers);
                shard.deps.status.set_readers(readers.into_iter());
                let now_ms = boot_ms();
                for addr in shard.queues.values() {
                    addr.do_send(QueueMail(QueueInput::Tick { now_ms }));
                }
            }
        });
    }
}

impl Handler<ShardMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, ShardMail(input): ShardMail, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        if matches!(input, ShardInput::Message { .. }) {
            self.notice_sleep(ctx);
        }
        // Another may lead before the others' promise to this one is over.
        let early = match &input {
            ShardInput::PeerLost { .. } => true,
            ShardInput::Transfer { .. } if self.core.raft().is_leader() => {
                self.deps.status.transferring();
                false
            }
            _ => false,
        };
        if early {
            self.deps.status.set_lease(0);
        }
        self.input(input, ctx);
        if early {
            self.confirm(ctx);
        }
    }
}

impl Handler<FlushMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, _: FlushMail, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        self.flush_due = false;
        let now_ms = self.deps.clock.now_ms();
        self.input(ShardInput::Flush { now_ms }, ctx);
    }
}

impl Handler<FromTimer> for ShardActor {
    type Result = ();
    fn handle(&mut self, FromTimer(effects): FromTimer, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        self.carry_out(effects, ctx);
    }
}

impl Handler<DiskDone> for ShardActor {
    type Result = ();
    fn handle(&mut self, DiskDone(done): DiskDone, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        let Some(input) = written(done) else { return };
        self.input(input, ctx);
    }
}

impl Handler<ProposeMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, mail: ProposeMail, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        let id = self.next_proposal;
        self.next_proposal += 1;
        self.waiting.insert(id, mail.done);
        let (epoch, op) = (mail.epoch, mail.op);
        self.input(ShardInput::Propose { id, epoch, op }, ctx);
    }
}
