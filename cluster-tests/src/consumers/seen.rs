//! What members of consumer groups asked and were told. Groups are numbers of [`super::NAMES`].

use troupemq::model::QueueKey;

/// A time of serving: node, its life, and its times of serving so far.
pub type Time = (usize, u64, u64);

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupSeen {
    /// A member's heartbeat was taken in, by the groups' clock of that node.
    Beat {
        time: Time,
        group: usize,
        client: String,
        conn: u64,
        now_ms: i64,
    },
    /// A member unregistered, or its connection closed.
    Gone {
        time: Time,
        group: usize,
        conn: u64,
    },
    /// Silent members are dropped now.
    Scan {
        time: Time,
        group: usize,
        now_ms: i64,
    },
    /// Somebody asked who is there.
    List {
        time: Time,
        group: usize,
        clients: Vec<String>,
    },
    /// An offset was to be set; by a one-way commit, a two-way one or an operator.
    OffsetAsked {
        id: u64,
        time: Time,
        group: usize,
        key: QueueKey,
        offset: u64,
        /// Somebody waits for the answer.
        two_way: bool,
    },
    /// It was told to be set.
    OffsetSet {
        id: u64,
    },
    /// It was told to be passed over.
    OffsetIgnored {
        id: u64,
    },
    QueryAsked {
        id: u64,
        time: Time,
        group: usize,
        key: QueueKey,
    },
    QueryTold {
        id: u64,
        offset: Option<u64>,
    },
    /// A member takes a queue to be its own up to this time, by the clients' clock.
    Holds {
        group: usize,
        key: QueueKey,
        client: String,
        now_ms: i64,
        until_ms: i64,
    },
    /// And does so no longer.
    LetsGo {
        group: usize,
        key: QueueKey,
        client: String,
    },
    /// A member got a message.
    Delivered {
        group: usize,
        uid: u64,
    },
    /// It is through with it: consumed, or sent back and told that it is stored.
    Settled {
        group: usize,
        uid: u64,
    },
    /// An operator asked to set the group to this offset: it may never get what is before.
    Skips {
        group: usize,
        key: QueueKey,
        below: u64,
    },
    /// The broker stores a failed message again, for the dead letters or to be retried.
    SentBack {
        of: u64,
        copy: u64,
        dead: bool,
        /// When it is to be tried again.
        due_ms: Option<i64>,
    },
    /// The member was told that it is stored.
    BackTold {
        copy: u64,
    },
    /// The id of a group.
    Id {
        group: usize,
        id: u32,
    },
}
