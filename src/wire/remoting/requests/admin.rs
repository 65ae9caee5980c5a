//! Headers of administration requests to a broker.

request! {
    /// UPDATE_AND_CREATE_TOPIC 17.
    CreateTopic {
        topic: text "topic",
        default_topic: opt_text "defaultTopic",
        read_queue_nums: int "readQueueNums",
        write_queue_nums: int "writeQueueNums",
        /// 4 read, 2 write, 1 inherit.
        perm: int "perm",
        /// `SINGLE_TAG` (default) or `MULTI_TAG`.
        topic_filter_type: opt_text "topicFilterType",
        topic_sys_flag: opt_int "topicSysFlag",
        order: flag "order",
        /// Changes `+key=value` and `-key`, separated by commas.
        attributes: opt_text "attributes",
        force: flag "force",
    }
}

/// One change of a topic's or group's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeChange<'a> {
    /// `+key=value`
    Set(&'a str, &'a str),
    /// `-key`
    Remove(&'a str),
}

/// Reads a change list such as `+message.type=FIFO,-queue.type`; `None` when malformed.
pub fn parse_attributes(text: &str) -> Option<Vec<AttributeChange<'_>>> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            if let Some(name) = item.strip_prefix('-') {
                return (!name.is_empty()).then_some(AttributeChange::Remove(name));
            }
            let (name, value) = item.strip_prefix('+')?.split_once('=')?;
            let ok = !name.is_empty() && !value.is_empty();
            ok.then_some(AttributeChange::Set(name, value))
        })
        .collect()
}

request! {
    /// Requests that name one topic: 105, 202, 215, 216, 300.
    TopicRequest {
        topic: text "topic",
        /// 105: the client wants quoted numeric keys (always given).
        accept_standard_json_only: flag "acceptStandardJsonOnly",
        /// 216: only the queues of this cluster.
        cluster_name: opt_text "clusterName",
        /// 351: this broker's own data only.
        lo: flag "lo",
    }
}

request! {
    /// GET_CONSUME_STATS 208.
    ConsumeStatsRequest {
        consumer_group: text "consumerGroup",
        /// Absent: all topics of the group.
        topic: opt_text "topic",
        /// 5.x: topics separated by `;`.
        topic_list: opt_text "topicList",
    }
}

request! {
    /// GET_CONSUMER_CONNECTION_LIST 203.
    ConsumerConnectionRequest {
        consumer_group: text "consumerGroup",
    }
}

request! {
    /// GET_PRODUCER_CONNECTION_LIST 204.
    ProducerConnectionRequest {
        producer_group: text "producerGroup",
    }
}

request! {
    /// INVOKE_BROKER_TO_RESET_OFFSET 222, and the fields of RESET_CONSUMER_CLIENT_OFFSET 220.
    ResetOffset {
        topic: text "topic",
        group: text "group",
        /// Store time in ms; -1 means the end of the queue.
        timestamp: long "timestamp",
        is_force: flag "isForce",
        /// 5.x: only this queue, with `offset`.
        queue_id: opt_int "queueId",
        offset: opt_long "offset",
    }
}

request! {
    /// DELETE_SUBSCRIPTIONGROUP 207.
    DeleteGroup {
        group_name: text "groupName",
        clean_offset: flag "cleanOffset",
    }
}

request! {
    /// Requests that name one group: 343, 352.
    GroupRequest {
        group: text "group",
    }
}

request! {
    /// VIEW_BROKER_STATS_DATA 315.
    BrokerStats {
        /// `TOPIC_PUT_NUMS`, `GROUP_GET_SIZE` and the like.
        stats_name: text "statsName",
        /// A topic, or `topic@group`.
        stats_key: text "statsKey",
    }
}

request! {
    /// QUERY_SUBSCRIPTION_BY_CONSUMER 345.
    GroupSubscription {
        group: text "group",
        topic: text "topic",
    }
}

request! {
    /// GET_CONSUMER_RUNNING_INFO 307, relayed to the client.
    RunningInfo {
        consumer_group: text "consumerGroup",
        client_id: text "clientId",
        jstack_enable: flag "jstackEnable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_changes() {
        use AttributeChange::*;
        assert_eq!(
            parse_attributes("+message.type=FIFO,-queue.type"),
            Some(vec![Set("message.type", "FIFO"), Remove("queue.type")])
        );
        assert_eq!(parse_attributes(""), Some(vec![]));
        for bad in ["message.type=FIFO", "+a", "+=b", "-", "+a="] {
            assert_eq!(parse_attributes(bad), None, "{bad}");
        }
    }
}
