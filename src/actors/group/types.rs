//! What consumer groups are told and what they tell.

use crate::actors::link::ConnId;
use std::sync::Arc;

/// How a consumer gets its messages (RocketMQ `ConsumeType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsumeType {
    Actively,
    #[default]
    Passively,
    Pop,
}

/// RocketMQ `MessageModel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessageModel {
    Broadcasting,
    #[default]
    Clustering,
    LiteSelective,
}

/// Where a new group starts (RocketMQ `ConsumeFromWhere`); the old names count as last offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    #[default]
    LastOffset,
    FirstOffset,
    Timestamp,
}

/// One topic a group subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    pub topic: String,
    pub sub_string: String,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
    /// Java hash codes of the tags, sorted, without duplicates.
    pub codes: Arc<[i32]>,
    /// A larger one replaces. ms from Java, ns from Go: only compared within a group.
    pub sub_version: i64,
    /// `TAG` or `SQL92`; empty counts as `TAG`.
    pub expression_type: String,
    pub class_filter_mode: bool,
}

impl Subscription {
    /// A tag subscription; sorts tags and codes.
    pub fn tags(
        topic: impl Into<String>,
        sub_string: impl Into<String>,
        tags: Vec<String>,
        codes: Vec<i32>,
        sub_version: i64,
    ) -> Self {
        let (mut tags, mut codes) = (tags, codes);
        tags.sort();
        tags.dedup();
        codes.sort_unstable();
        codes.dedup();
        Self {
            topic: topic.into(),
            sub_string: sub_string.into(),
            tags,
            codes: codes.into(),
            sub_version,
            expression_type: "TAG".to_owned(),
            class_filter_mode: false,
        }
    }

    /// Everything passes: `*`, or nothing was named.
    pub fn is_all(&self) -> bool {
        self.sub_string.is_empty() || self.sub_string == "*"
    }

    /// It is evaluated on tag codes (not SQL92).
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == "TAG"
    }

    /// The same messages pass, whatever the versions are.
    pub fn same_filter(&self, other: &Self) -> bool {
        let by = |s: &Self| (s.is_tag_type(), s.class_filter_mode, s.is_all());
        by(self) == by(other)
            && (self.is_all() && self.is_tag_type()
                || self.codes == other.codes && self.sub_string == other.sub_string)
    }

    /// Sorted codes for [`ReadSpec::tags`](crate::model::append::ReadSpec); `None` lets all pass.
    pub fn tag_filter(&self) -> Option<Arc<[i32]>> {
        (self.is_tag_type() && !self.is_all() && !self.codes.is_empty()).then(|| self.codes.clone())
    }
}

/// One consumer group in one HEART_BEAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberHeartbeat {
    pub conn: ConnId,
    pub client_id: String,
    /// `ip:port` of the client's side.
    pub client_addr: String,
    /// Language name as on the wire (`JAVA`, `GO`, …).
    pub language: String,
    pub version: i32,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub start_from: StartFrom,
    pub unit_mode: bool,
    /// Ignored when `without_sub`.
    pub subscriptions: Vec<Subscription>,
    /// Heartbeat V2; 0 is V1.
    pub fingerprint: i32,
    /// A short V2 heartbeat: refreshes liveness, never clears subscriptions.
    pub without_sub: bool,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeartbeatReply {
    /// `IS_SUB_CHANGE` of heartbeat V2; the client sends a full heartbeat next. Always `false` for V1.
    pub sub_changed: bool,
}

/// One connection of a consumer or producer group (RocketMQ `Connection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub conn: ConnId,
    pub client_id: String,
    /// `ip:port`.
    pub client_addr: String,
    pub language: String,
    pub version: i32,
    /// [`boot_ms`](crate::actors::clock::boot_ms) of the last heartbeat (for a consumer: of the last
    /// one that changed something).
    pub last_update_ms: i64,
}

/// What GET_CONSUMER_CONNECTION_LIST shows; published whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMembers {
    pub connections: Vec<Connection>,
    /// Every client id once, sorted.
    pub client_ids: Vec<String>,
    pub subscriptions: std::collections::BTreeMap<String, Arc<Subscription>>,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub start_from: StartFrom,
}

/// What became of a two-way offset commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Applied (or a larger one was applied already).
    Applied,
    /// Ignored: an operator reset this queue and the client has not moved yet. RocketMQ answers 0
    /// with the remark "Offset has been previously reset".
    ResetPending,
}

/// Bounds on what clients can make a node keep (reliability §8 rows 15 and 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    pub subscriptions_per_heartbeat: usize,
    /// Bytes of one subscription expression.
    pub expression_bytes: usize,
    /// Bytes of a client id.
    pub client_id_bytes: usize,
    /// Connections of one group.
    pub members: usize,
    /// Groups active at once on this shard.
    pub groups: usize,
    /// Consumer and producer groups one connection may register.
    pub groups_per_connection: usize,
    /// Memory of the subscriptions of all groups that one connection registers, bytes.
    pub subscription_bytes_per_connection: usize,
    /// The same of all connections of this shard.
    pub subscription_bytes: usize,
    /// Queues in one lock or unlock request, and in one reset.
    pub queues_per_request: usize,
    /// Messages waiting in one group's mailbox.
    pub mailbox: u64,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            subscriptions_per_heartbeat: 1_000,
            expression_bytes: 64 * 1024,
            client_id_bytes: 1_024,
            members: 10_000,
            groups: 100_000,
            groups_per_connection: 1_000,
            // Twice what one heartbeat holds, which brings all groups of a client.
            subscription_bytes_per_connection: 8 << 20,
            subscription_bytes: 512 << 20,
            queues_per_request: 65_536,
            mailbox: 65_536,
        }
    }
}
