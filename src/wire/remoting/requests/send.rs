//! Headers of producers' requests.

use crate::wire::remoting::code::request as code;
use crate::wire::remoting::header::{parse_bool, parse_number};
use crate::wire::remoting::{Command, HeaderError};

/// SEND_MESSAGE 10, SEND_MESSAGE_V2 310, SEND_BATCH_MESSAGE 320 and the replies 324 and 325.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// Producer group.
    pub producer_group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Template topic for auto-creation, normally `TBW102`.
    pub default_topic: &'a str,
    /// Queues wanted when the topic is created by this send.
    pub default_topic_queue_nums: i32,
    /// Queue; negative lets the broker choose a write queue.
    pub queue_id: i32,
    /// System flags of the message.
    pub sys_flag: i32,
    /// Producer's clock, ms.
    pub born_timestamp: i64,
    /// The user's flag.
    pub flag: i32,
    /// Encoded properties; empty when absent.
    pub properties: &'a str,
    /// How often consumption failed before.
    pub reconsume_times: i32,
    /// Unit mode (kept for completeness; has no effect).
    pub unit_mode: bool,
    /// Retry limit; only meaningful for `%RETRY%` topics. Go always sends 0.
    pub max_reconsume_times: Option<i32>,
    /// The body is a batch: code 320, or the flag on any code. C++ clients send a batch with code 10 or 310, and up to
    /// 2.0 write the flag as `1`.
    pub batch: bool,
    /// Broker name the client thinks it sends to.
    pub broker_name: Option<&'a str>,
}

impl<'a> SendRequest<'a> {
    /// Reads the long names of codes 10 and 324 or the one-letter names of the others.
    pub fn parse(cmd: &'a Command) -> Result<Self, HeaderError> {
        let long_names = matches!(cmd.code, code::SEND_MESSAGE | code::SEND_REPLY_MESSAGE);
        // One slot per field, in the order of the letters a..n; one walk over the header.
        let mut slots: [Option<&str>; 14] = [None; 14];
        for (key, value) in cmd.ext.iter() {
            let slot = if long_names {
                LONG_NAMES.iter().position(|n| *n == key)
            } else {
                match key.as_bytes() {
                    [letter @ b'a'..=b'n'] => Some(usize::from(letter - b'a')),
                    _ => None,
                }
            };
            if let Some(slot) = slot {
                slots[slot] = Some(value);
            }
        }
        let text = |i: usize| slots[i].ok_or(HeaderError::missing(LONG_NAMES[i]));
        let number = |i: usize| parse_number::<i32>(LONG_NAMES[i], text(i)?);
        let optional = |i: usize| slots[i].filter(|v| !v.is_empty());
        let flag = |i: usize| slots[i].is_some_and(parse_bool);
        Ok(SendRequest {
            producer_group: text(0)?,
            topic: text(1)?,
            default_topic: text(2)?,
            default_topic_queue_nums: number(3)?,
            queue_id: number(4)?,
            sys_flag: number(5)?,
            born_timestamp: parse_number(LONG_NAMES[6], text(6)?)?,
            flag: number(7)?,
            properties: slots[8].unwrap_or(""),
            reconsume_times: match optional(9) {
                Some(_) => number(9)?,
                None => 0,
            },
            unit_mode: flag(10),
            max_reconsume_times: optional(11).map(|_| number(11)).transpose()?,
            batch: flag(12) || slots[12] == Some("1") || cmd.code == code::SEND_BATCH_MESSAGE,
            broker_name: optional(13),
        })
    }
}

const LONG_NAMES: [&str; 14] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
    "maxReconsumeTimes",
    "batch",
    "bname",
];

request! {
    /// END_TRANSACTION 37, usually one-way.
    EndTransaction {
        producer_group: text "producerGroup",
        /// Queue offset of the half message.
        tran_state_table_offset: long "tranStateTableOffset",
        /// Physical offset of the half message.
        commit_log_offset: long "commitLogOffset",
        /// 8 commit, 12 rollback, 0 unknown.
        commit_or_rollback: int "commitOrRollback",
        /// The answer to a check by the broker.
        from_transaction_check: flag "fromTransactionCheck",
        /// UNIQ_KEY of the half message.
        msg_id: text "msgId",
        transaction_id: opt_text "transactionId",
        topic: opt_text "topic",
    }
}

request! {
    /// UNREGISTER_CLIENT 35.
    UnregisterClient {
        client_id: text "clientID",
        producer_group: opt_text "producerGroup",
        consumer_group: opt_text "consumerGroup",
    }
}
