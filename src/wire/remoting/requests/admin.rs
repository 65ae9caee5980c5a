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
    /// `key=value` without a sign: what brokers give out.
    Same(&'a str, &'a str),
}

impl<'a> AttributeChange<'a> {
    /// The change that a name with its sign and a value stand for in a JSON body.
    pub fn of(key: &'a str, value: &'a str) -> Self {
        match (key.strip_prefix('+'), key.strip_prefix('-')) {
            (Some(key), _) => AttributeChange::Set(key, value),
            (_, Some(key)) => AttributeChange::Remove(key),
            _ => AttributeChange::Same(key, value),
        }
    }
}

/// Reads a change list such as `+message.type=FIFO,-queue.type`. The error is RocketMQ's remark.
pub fn parse_attributes(text: &str) -> Result<Vec<AttributeChange<'_>>, String> {
    let mut out: Vec<AttributeChange<'_>> = Vec::new();
    let items = text.split(',').map(str::trim).filter(|i| !i.is_empty());
    for item in items {
        let change = match item.split_once('=') {
            Some((key, value)) => {
                let Some(name) = key.strip_prefix('+') else {
                    return Err(format!("add/alter attribute format is wrong: {key}"));
                };
                if value.is_empty() {
                    return Err(format!("the attribute {name} has no value"));
                }
                AttributeChange::Set(name, value)
            }
            None => match item.strip_prefix('-') {
                Some(name) => AttributeChange::Remove(name),
                None => return Err(format!("delete attribute format is wrong: {item}")),
            },
        };
        let twice = out.iter().any(|old| match (old, &change) {
            (AttributeChange::Set(a, _), AttributeChange::Set(b, _)) => a == b,
            (AttributeChange::Remove(a), AttributeChange::Remove(b)) => a == b,
            _ => false,
        });
        if twice {
            let key = item.split('=').next().unwrap_or(item);
            return Err(format!("key duplication: {key}"));
        }
        out.push(change);
    }
    Ok(out)
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
            Ok(vec![Set("message.type", "FIFO"), Remove("queue.type")])
        );
        assert_eq!(parse_attributes(""), Ok(vec![]));
        for bad in ["message.type=FIFO", "+a", "+a=", "-a,-a"] {
            assert!(parse_attributes(bad).is_err(), "{bad}");
        }
        assert_eq!(AttributeChange::of("+a", "b"), Set("a", "b"));
        assert_eq!(AttributeChange::of("-a", ""), Remove("a"));
        assert_eq!(
            AttributeChange::of("a", "b"),
            AttributeChange::Same("a", "b")
        );
    }
}
