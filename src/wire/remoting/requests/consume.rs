//! Headers of consumers' requests: pull, offsets, retry, message lookup.

/// Bits of a pull's `sysFlag`.
pub mod pull_flag {
    /// Apply `commitOffset`.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The request may be held until a message arrives.
    pub const SUSPEND: i32 = 1 << 1;
    /// `subscription` holds the expression to use.
    pub const SUBSCRIPTION: i32 = 1 << 2;
    /// Obsolete class filter.
    pub const CLASS_FILTER: i32 = 1 << 3;
    /// Lite pull.
    pub const LITE_PULL: i32 = 1 << 4;
}

request! {
    /// PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361.
    PullRequest {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: int "queueId",
        queue_offset: long "queueOffset",
        max_msg_nums: int "maxMsgNums",
        /// See [`pull_flag`].
        sys_flag: int "sysFlag",
        /// Used with the commit bit.
        commit_offset: opt_long "commitOffset",
        /// Used with the suspend bit, ms.
        suspend_timeout_millis: opt_long "suspendTimeoutMillis",
        /// Used with the subscription bit.
        subscription: opt_text "subscription",
        /// Version of the client's subscription; Go sends 0.
        sub_version: opt_long "subVersion",
        /// `TAG` when absent.
        expression_type: opt_text "expressionType",
        max_msg_bytes: opt_int "maxMsgBytes",
    }
}

impl PullRequest<'_> {
    /// Whether `commitOffset` is to be applied.
    pub fn commits_offset(&self) -> bool {
        self.sys_flag & pull_flag::COMMIT_OFFSET != 0
    }

    /// Whether the request may be held.
    pub fn may_suspend(&self) -> bool {
        self.sys_flag & pull_flag::SUSPEND != 0
    }

    /// Whether the request brings its own expression.
    pub fn has_subscription(&self) -> bool {
        self.sys_flag & pull_flag::SUBSCRIPTION != 0
    }

    /// Whether the expression is a tag expression (or absent).
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_none_or(|t| t == "TAG")
    }
}

request! {
    /// QUERY_CONSUMER_OFFSET 14.
    QueryConsumerOffset {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: int "queueId",
        set_zero_if_not_found: opt_flag "setZeroIfNotFound",
    }
}

request! {
    /// UPDATE_CONSUMER_OFFSET 15, usually one-way.
    UpdateConsumerOffset {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: int "queueId",
        commit_offset: long "commitOffset",
    }
}

request! {
    /// SEARCH_OFFSET_BY_TIMESTAMP 29.
    SearchOffset {
        topic: text "topic",
        queue_id: int "queueId",
        /// Store time in ms.
        timestamp: long "timestamp",
        /// `lower` (default) or `upper`, any case.
        boundary_type: opt_text "boundaryType",
    }
}

impl SearchOffset<'_> {
    /// Whether the upper boundary is asked for.
    pub fn is_upper(&self) -> bool {
        self.boundary_type
            .is_some_and(|b| b.eq_ignore_ascii_case("upper"))
    }
}

request! {
    /// GET_MAX_OFFSET 30, GET_MIN_OFFSET 31, GET_EARLIEST_MSG_STORETIME 32.
    QueueRequest {
        topic: text "topic",
        queue_id: int "queueId",
    }
}

request! {
    /// CONSUMER_SEND_MSG_BACK 36.
    SendBack {
        group: text "group",
        /// Physical offset of the failed message.
        offset: long "offset",
        /// 0: the broker decides; -1: dead letter; 1..18: explicit.
        delay_level: int "delayLevel",
        origin_msg_id: opt_text "originMsgId",
        origin_topic: opt_text "originTopic",
        unit_mode: flag "unitMode",
        max_reconsume_times: opt_int "maxReconsumeTimes",
    }
}

request! {
    /// GET_CONSUMER_LIST_BY_GROUP 38 and NOTIFY_CONSUMER_IDS_CHANGED 40.
    ConsumerList {
        consumer_group: text "consumerGroup",
    }
}

request! {
    /// VIEW_MESSAGE_BY_ID 33.
    ViewMessage {
        /// Physical offset.
        offset: long "offset",
        topic: opt_text "topic",
    }
}

request! {
    /// QUERY_MESSAGE 12.
    QueryMessage {
        topic: text "topic",
        key: text "key",
        max_num: int "maxNum",
        begin_timestamp: long "beginTimestamp",
        end_timestamp: long "endTimestamp",
        /// `K` key, `U` unique, `T` tag (5.5.0).
        index_type: opt_text "indexType",
        last_key: opt_text "lastKey",
        /// `key` is a UNIQ_KEY.
        unique_key: flag "_UNIQUE_KEY_QUERY",
    }
}
