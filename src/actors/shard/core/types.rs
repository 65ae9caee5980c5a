//! Events and settings of the core.

use super::Quotas;
use crate::actors::shard::machine::Base;
use crate::model::append::RecordMeta;
use crate::model::command::MetaOp;
use crate::model::outcome::Token;
use crate::model::policy::AckPolicy;
use crate::model::{QueueKey, ShardId};
use crate::raft::entry::TimerKey;
use crate::raft::members::Change;
use crate::storage::LogEntry;
use bytes::Bytes;

/// Records a queue core wants in the log, with the offsets it gave them.
#[derive(Debug, Clone)]
pub struct AppendProposal {
    pub key: QueueKey,
    /// The serving epoch in which the queue core was started; another one's offsets are worthless.
    pub epoch: u64,
    pub base: u64,
    pub metas: Vec<RecordMeta>,
    pub records: Vec<u8>,
    /// The entry must be synced.
    pub sync: bool,
    /// Somebody waits for the leader's own append only.
    pub early: bool,
    /// Timers that these records end.
    pub fired: Vec<TimerKey>,
}

/// A delayed message on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub token: Token,
    pub policy: AckPolicy,
    pub due_ms: i64,
    pub target: QueueKey,
    pub tag: i32,
    pub record: Vec<u8>,
    /// A message that was consumed in vain, on its way to be tried again.
    pub again: bool,
}

/// Events of the shard core.
#[derive(Debug, Clone)]
pub enum ShardInput {
    Append(AppendProposal),
    Schedule(Schedule),
    /// A metadata command; its answer is [`Effect::Proposal`] with this id.
    Propose {
        id: u64,
        /// The serving epoch in which it was decided; what another one held may be otherwise.
        epoch: u64,
        op: MetaOp,
    },
    /// Timers whose queue is gone: end them without a message.
    Orphans(Vec<TimerKey>),
    /// Build an entry from what is waiting. The shell sends it to itself after the first event of
    /// a burst, so that a burst becomes one entry.
    Flush {
        /// For stamps; they never go back.
        now_ms: i64,
    },
    /// A log write is done as it asked to be.
    AppendDone {
        ticket: u64,
    },
    /// State rows up to this log index are in the store.
    StateDone {
        applied: u64,
    },
    /// A log or state write failed. Final.
    DiskFailed(String),
    Tick {
        /// For retention; 0: the time is not known well enough to remove anything by its age.
        now_ms: i64,
    },
    /// There were no ticks for an election timeout or longer: messages that come now may have
    /// waited as long.
    Slept,
    /// Nothing that other nodes said since the last tick can have come to this replica yet: the next
    /// tick is no time of silence.
    Unheard,
    /// From the same shard's replica on node `from`, which the link has authenticated.
    Message {
        from: u64,
        bytes: Bytes,
    },
    /// The link to a node closed, or cannot be opened.
    PeerLost {
        node: u64,
    },
    /// A message to a node was dropped on the way out.
    Unreachable {
        node: u64,
    },
    /// What [`DiskWork::Fetch`] asked for from this index on. Empty: nothing now.
    Fetched {
        from: u64,
        entries: Vec<LogEntry>,
    },
    /// What [`DiskWork::Base`] asked for; `None`: not now.
    ///
    /// [`DiskWork::Base`]: crate::actors::effect::DiskWork::Base
    Base(Option<Base>),
    /// A read found this entry of the log bad.
    BadEntry {
        index: u64,
    },
    /// What [`DiskWork::Copy`] asked for; `None` when the entry is bad here too, or gone.
    ///
    /// [`DiskWork::Copy`]: crate::actors::effect::DiskWork::Copy
    Copied {
        to: u64,
        index: u64,
        entry: Option<LogEntry>,
    },
    /// What [`DiskWork::Mend`] asked for is durable.
    ///
    /// [`DiskWork::Mend`]: crate::actors::effect::DiskWork::Mend
    Mended {
        index: u64,
    },
    /// A read found the state rows to be unreadable.
    BadState(String),
    /// Ask the others whether this replica still leads; [`Publish::Confirmed`] says so.
    ///
    /// [`Publish::Confirmed`]: crate::actors::effect::Publish::Confirmed
    Confirm {
        /// Any number that grows.
        stamp: u64,
    },
    /// Hand leadership to this node, if this replica leads.
    Transfer {
        to: u64,
    },
    /// Word that there is no other replica: see [`RaftCore::form`].
    ///
    /// [`RaftCore::form`]: crate::raft::RaftCore::form
    Form,
    /// Digests of another replica's state: log index and digest. Told by nodes of a version that makes
    /// them in the same way.
    Digests {
        from: u64,
        digests: Vec<(u64, u64)>,
    },
    /// The members that the configuration named are the right ones, and are kept from now on.
    KeepMembers,
    /// Change the members; its answer is [`Effect::Proposal`] with this id, once it is applied.
    Members {
        id: u64,
        changes: Vec<Change>,
    },
}

/// How long an entry of the log may wait before those who wait for it are told so, in ticks. 0:
/// for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// For the leader's own write (RocketMQ `syncFlushTimeout`).
    pub flush: u64,
    /// For a majority (RocketMQ `slaveTimeout`).
    pub replicas: u64,
}

/// Settings of the shard core.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    pub shard: ShardId,
    /// An entry is closed once it holds this many bytes.
    pub max_entry_bytes: usize,
    /// Log writes under way at a time; while they are, what arrives waits for the next entry.
    pub max_open_writes: usize,
    /// Segments whose newest message is older are dropped.
    pub retention_ms: i64,
    /// Oldest segments are dropped beyond this many bytes; 0 for no limit.
    pub retention_bytes: u64,
    /// How long an entry may wait, ticks.
    pub patience: Patience,
    /// A digest of the state is made at every log index that is a multiple of it; 0: none.
    pub digest_every: u64,
    /// What clients may make the shard keep.
    pub quotas: Quotas,
    /// A deliberate defect the simulator must find; never set by a product.
    pub defect: Option<Defect>,
}

/// Deliberate defects, to prove that the simulator's checkers can see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Replies are sent when the entry is proposed, before its write is done.
    AckBeforeWrite,
    /// Offset commits may go back.
    OffsetsGoBack,
    /// State rows are written with an applied index one too high.
    AppliedAhead,
    /// Sync is never asked for, and answered as if it were.
    ForgetSync,
    /// Replies that wait for a majority are sent when the leader has the entry.
    AckAtAppend,
    /// Replies are matched by index alone, and outlive the leadership.
    ReplyByIndex,
    /// A leader serves before it has applied what earlier leaders left.
    ServeEarly,
    /// A leader does not wait for the lease of the one before.
    ServeInLease,
    /// A trim names a segment only, and replicas may cut theirs elsewhere.
    TrimBySegment,
    /// A member that does not answer counts as one without a good copy of a bad entry.
    SilentHasNone,
    /// The members change by entries that the snapshot's members have taken in.
    MembersWhileFilling,
    /// Metadata is answered when it is proposed.
    MetaWhenProposed,
    /// A third of the offset commits is answered and dropped.
    OffsetsDropped,
    /// Changes of members are answered when they are proposed.
    MembersWhenProposed,
    /// Half of the bytes that retention allows are kept.
    KeepsHalf,
    /// What was answered for alone and is lost to another leader is not told.
    LossUntold,
    /// What waits to be proposed when leadership ends is refused, and proposed later.
    RefusedAndKept,
}

impl Defect {
    pub(super) fn spoil(self, mut op: MetaOp) -> MetaOp {
        if let (Defect::OffsetsGoBack, MetaOp::CommitOffsets(commit)) = (self, &mut op) {
            commit.reset = true;
        }
        op
    }

    /// This commit is answered and forgotten.
    pub(super) fn drops(self, id: u64, op: &MetaOp) -> bool {
        let commit = matches!(op, MetaOp::CommitOffsets(_));
        self == Defect::OffsetsDropped && commit && id.is_multiple_of(3)
    }
}
