//! What a run shows to the checkers: what clients asked, what they were told, what consumers can
//! see. Histories of real processes can be told in the same words.

use crate::consumers::seen::GroupSeen;
use troupemq::model::{Position, QueueKey};

/// One observation, in the order things happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A producer sent a message. `uid` grows with every attempt; a retry is an attempt of its own.
    Sent {
        uid: u64,
        producer: u32,
        key: QueueKey,
        sync: bool,
        due_ms: Option<i64>,
    },
    /// Nobody knew what became of this message, and its producer sent it again as it was.
    SentAgain {
        uid: u64,
    },
    /// The producer was told that it is stored; a delayed message has no offset yet.
    Acked {
        uid: u64,
        at: Position,
        offset: Option<u64>,
    },
    /// The producer of an ASYNC_MASTER message was told that this node has it. Another leader may
    /// put something else in its place.
    AckedAlone {
        uid: u64,
        node: usize,
        at: Position,
        offset: Option<u64>,
    },
    /// A node told that entries of its log, among them such that leaders had answered for alone, are
    /// lost to another leader's.
    Truncated {
        first: u64,
        last: u64,
        messages: u64,
    },
    /// The machine of a node stopped: of its log nothing is left behind `last`.
    TailLost {
        node: usize,
        last: u64,
    },
    /// A node told at its start that its machine stopped with unsynced entries: its log ends at `kept`, and
    /// what came behind may be lost.
    Unclean {
        node: usize,
        kept: u64,
    },
    /// A group goes on behind this entry: what came then no voter has any more.
    GroupLost {
        last: u64,
    },
    /// The disk of a node is gone.
    StoreLost {
        node: usize,
    },
    /// The nodes of the group when all is over.
    Members {
        nodes: Vec<usize>,
    },
    /// A client asked for a change of metadata, offsets, locks or members. Equal texts, equal changes.
    Asked {
        id: u64,
        change: String,
    },
    /// It was told that the change is made, by the entry at this index.
    Done {
        id: u64,
        index: u64,
    },
    /// It was told that nothing happened.
    NotDone {
        id: u64,
    },
    /// The committed entry at this index makes these changes.
    Changes {
        index: u64,
        changes: Vec<String>,
    },
    /// The nodes that serve now.
    Claims(Vec<Claim>),
    /// The producer was told that nothing happened.
    Refused {
        uid: u64,
    },
    /// Timeout, closed connection or an indeterminate answer.
    Unknown {
        uid: u64,
    },
    /// Consumers can see the record at this offset from now on.
    Visible {
        key: QueueKey,
        offset: u64,
        uid: u64,
        at: Position,
        store_ts: i64,
    },
    /// The node's clock was read.
    Clock {
        now_ms: i64,
    },
    /// An entry was handed to the disk; it replaces what stood at its index and behind.
    Logged {
        index: u64,
        bytes: u64,
    },
    /// The queue begins at `min` now.
    Trimmed {
        key: QueueKey,
        min: u64,
    },
    Topic {
        id: u32,
        name: String,
    },
    DeleteAsked {
        name: String,
    },
    TopicDeleted {
        id: u32,
    },
    CommitAsked {
        group: u32,
        key: QueueKey,
        offset: u64,
        reset: bool,
    },
    /// A group's offset was applied.
    Offset {
        group: u32,
        key: QueueKey,
        offset: u64,
    },
    /// The node stopped; log entries behind `last` are gone. After a power loss (and only then)
    /// what was not synced may be among them.
    Crashed {
        power: bool,
        last: u64,
    },
    /// The node serves again, in this state.
    Serving(State),
    /// A node holds this entry to be committed; the first to do so comes first.
    Committed {
        node: usize,
        index: u64,
        term: u64,
        sum: u32,
    },
    /// A replica's state after applying the entry at this index.
    Digest {
        index: u64,
        digest: u64,
    },
    /// A node leads in this term; its log holds every entry committed in an earlier one.
    Leads {
        node: usize,
        term: u64,
        complete: bool,
    },
    /// The message was sent on this connection, which waits for no answers.
    Pipelined {
        uid: u64,
        door: u64,
    },
    /// Of members of consumer groups.
    Group(GroupSeen),
    /// A consumer read at an offset and got this answer.
    Read {
        key: QueueKey,
        offset: u64,
        /// The node has applied all that is committed. Another one may be behind, and no more.
        current: bool,
        answer: Answer,
    },
}

/// A node that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub node: usize,
    /// The term in which it serves.
    pub term: u64,
    /// It answers reads from memory: its lease has not run out.
    pub lease: bool,
    /// All up to this entry is in its answers.
    pub applied: u64,
}

/// What a node says it holds when it begins to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Queue, minimum, maximum.
    pub queues: Vec<(QueueKey, u64, u64)>,
    /// Group, queue, committed offset.
    pub offsets: Vec<(u32, QueueKey, u64)>,
    pub topics: Vec<u32>,
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Offset, uid and position of each record.
    Records(Vec<(u64, u64, Position)>),
    /// The offset lies below the minimum.
    TooSmall { min: u64 },
    /// Nothing there yet.
    Empty { max: u64 },
}

/// What is there when all is over, read from the stores as a reader does.
#[derive(Debug, Clone, Default)]
pub struct End {
    pub state: State,
    /// For each queue the records from minimum to maximum: (offset, uid).
    pub content: Vec<(QueueKey, Vec<(u64, u64)>)>,
    /// The node's clock.
    pub now_ms: i64,
}
