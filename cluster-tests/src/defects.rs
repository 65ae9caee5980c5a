//! Defects planted on purpose, to prove that the checkers can see them.

use troupemq::actors::shard::core::Defect;
use troupemq::raft;
use troupemq::storage::SimStore;

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In the shard's core.
    Core(Defect),
    /// In raft's.
    Raft(raft::Defect),
    /// The disk reports syncs it did not do.
    DiskLies,
    /// A kill takes the unsynced tail of the log, and nobody notices.
    TailLostAtKill,
    /// Messages to the shard overtake each other now and then.
    MailOvertakes,
    /// Replies wait by queue alone, across restarts: another term's entry answers them.
    ReplyOfAnotherTerm,
    /// The timer's clock goes ahead of the shard's.
    TimerAhead,
    /// The log is trimmed further than asked for.
    TrimTooFar,
    /// The end of a queue is published one record too far.
    MaxAhead,
    /// Clients reach a queue's actor directly while earlier messages of theirs still go by the shard.
    ListedTooEarly,
    /// Every definite and indefinite failure is told as "nothing happened".
    UnknownToldAsRefused,
    /// Messages between nodes may change on the way.
    WireFlipsBytes,
    /// Links take frames whose checksum is wrong.
    ChecksumUnread,
    /// Term and vote are not written at all.
    VoteForgotten,
    /// Log writes are reported done before they are.
    DoneBeforeWrite,
    /// What an append overwrites stays in the log behind it.
    TailStays,
    /// Members are those of the configuration until they first change.
    MembersNotKept,
    /// A replica that may have lost entries votes as if it had them.
    RecoveringVotes,
    /// Snapshots may change on the way, and no checksum is looked at.
    PartsUnchecked,
    /// A snapshot's log and its state are two writes.
    InstallTorn,
    /// An ASYNC_MASTER request is answered by its leader, and again with all others.
    AnsweredTwice,
    /// A lease is counted from the answers, and not from the question.
    LeaseFromAnswer,
    /// Stamps, timers and retention go by the machine's clock, whatever the others say.
    RawClock,
    /// What is read of the log is not checked.
    ReadsUnchecked,
    /// A member is told that it has a lock that another one holds.
    LockWhileHeld,
    /// A leader begins without the locks, or the offsets, that the last one gave.
    LocksNotRestored,
    OffsetsNotRestored,
    /// What a leader knew of its groups stays in memory until it leads again.
    GroupsKept,
    /// A commit is answered when it is taken in.
    CommitToldEarly,
    /// A message that is sent back is answered, and not stored, now and then.
    SendBackDropped,
    /// Whatever fails is tried again, for ever.
    RetriesForever,
    /// Silent members stay.
    MemberKept,
    /// What may have been done by a leader that is lost is sent to the next one.
    BookSendsAgain,
    /// Requests go to another leader while earlier ones are open at the one before.
    BookForgetsWay,
    /// A leader refuses a request, and takes those that follow.
    JudgeForgets,
    /// The directory of a new file of the log is not synced with it.
    DirectoryUnsynced,
    /// What is left of a torn write is taken for an entry.
    TornAccepted,
    /// A machine that lost unsynced entries does not tell.
    LossOfMachineUntold,
    /// A sync that failed is tried again, and its success believed.
    SyncRetried,
}

/// Those of forwarded requests.
pub const FORWARDING: [Planted; 3] = [
    Planted::BookSendsAgain,
    Planted::BookForgetsWay,
    Planted::JudgeForgets,
];

/// Those of consumer groups: one node can show them, and so can several.
pub const CONSUMERS: [Planted; 7] = [
    Planted::LockWhileHeld,
    Planted::LocksNotRestored,
    Planted::OffsetsNotRestored,
    Planted::CommitToldEarly,
    Planted::SendBackDropped,
    Planted::RetriesForever,
    Planted::MemberKept,
];
/// And those that only several can.
pub const CONSUMERS_OF_GROUP: [Planted; 1] = [Planted::GroupsKept];

/// Plants what lies in a store.
pub fn spoil(store: &mut SimStore, defect: Option<Planted>) {
    store.lie_about_sync(defect == Some(Planted::DiskLies));
    store.keep_tail(defect == Some(Planted::TailStays));
    store.tear_installs(defect == Some(Planted::InstallTorn));
    store.read_unchecked(defect == Some(Planted::ReadsUnchecked));
    store.forget_directory(defect == Some(Planted::DirectoryUnsynced));
    store.accept_torn(defect == Some(Planted::TornAccepted));
    store.retry_syncs(defect == Some(Planted::SyncRetried));
}

/// Those that one node can show.
pub const ALL: [Planted; 20] = [
    Planted::Core(Defect::AckBeforeWrite),
    Planted::Core(Defect::OffsetsGoBack),
    Planted::Core(Defect::AppliedAhead),
    Planted::Core(Defect::ForgetSync),
    Planted::DiskLies,
    Planted::SyncRetried,
    Planted::DirectoryUnsynced,
    Planted::TornAccepted,
    Planted::TailLostAtKill,
    Planted::MailOvertakes,
    Planted::ReplyOfAnotherTerm,
    Planted::TimerAhead,
    Planted::TrimTooFar,
    Planted::MaxAhead,
    Planted::ListedTooEarly,
    Planted::UnknownToldAsRefused,
    Planted::AnsweredTwice,
    Planted::Core(Defect::MetaWhenProposed),
    Planted::Core(Defect::OffsetsDropped),
    Planted::Core(Defect::KeepsHalf),
];

/// Those that several nodes can show.
pub const GROUP: [Planted; 44] = [
    Planted::Core(Defect::AckBeforeWrite),
    Planted::Core(Defect::OffsetsGoBack),
    Planted::Core(Defect::ForgetSync),
    Planted::Core(Defect::AckAtAppend),
    Planted::Core(Defect::ReplyByIndex),
    Planted::Core(Defect::ServeEarly),
    Planted::Core(Defect::ServeInLease),
    Planted::DiskLies,
    Planted::TailLostAtKill,
    Planted::ReplyOfAnotherTerm,
    Planted::TrimTooFar,
    Planted::UnknownToldAsRefused,
    Planted::WireFlipsBytes,
    Planted::ChecksumUnread,
    Planted::VoteForgotten,
    Planted::DoneBeforeWrite,
    Planted::TailStays,
    Planted::Core(Defect::TrimBySegment),
    Planted::MembersNotKept,
    Planted::RecoveringVotes,
    Planted::PartsUnchecked,
    Planted::InstallTorn,
    Planted::RawClock,
    Planted::Raft(raft::Defect::GuessesPromises),
    Planted::Core(Defect::SilentHasNone),
    Planted::ReadsUnchecked,
    Planted::SyncRetried,
    Planted::DirectoryUnsynced,
    Planted::TornAccepted,
    Planted::LossOfMachineUntold,
    Planted::AnsweredTwice,
    Planted::LeaseFromAnswer,
    Planted::Core(Defect::MembersWhileFilling),
    Planted::Core(Defect::MetaWhenProposed),
    Planted::Core(Defect::OffsetsDropped),
    Planted::Core(Defect::MembersWhenProposed),
    Planted::Core(Defect::KeepsHalf),
    Planted::Core(Defect::LossUntold),
    Planted::Core(Defect::RefusedAndKept),
    Planted::Raft(raft::Defect::AnswersEarly),
    Planted::Raft(raft::Defect::ForgetsPromise),
    Planted::Raft(raft::Defect::AnyLifeConfirms),
    Planted::Raft(raft::Defect::CountsForgotten),
    Planted::Raft(raft::Defect::KeepsMatch),
];

/// Those that show where one node votes and four learn.
pub const MANY: [Planted; 1] = [Planted::Raft(raft::Defect::SpeaksEarly)];
