//! HEART_BEAT (34), version 1 and 2, and the subscription inside it; CHECK_CLIENT_CONFIG (46).

use super::lenient::{self, named_enum};
use super::{decode, BodyError};
use crate::wire::message::tags::{split_tags, tag_code, BadExpression, TagFilter};
use serde::{Deserialize, Serialize};

named_enum! {
    /// How a group consumes.
    ConsumeType, default Passively {
        /// The application pulls.
        0 Actively = "CONSUME_ACTIVELY",
        /// A push consumer (which pulls underneath).
        1 Passively = "CONSUME_PASSIVELY",
        /// Pop.
        2 Pop = "CONSUME_POP",
    }
}

named_enum! {
    /// How messages are shared among a group's members.
    MessageModel, default Clustering {
        /// Every member gets every message.
        0 Broadcasting = "BROADCASTING",
        /// Members share the queues.
        1 Clustering = "CLUSTERING",
        /// Lite topics (5.5.0).
        2 LiteSelective = "LITE_SELECTIVE",
    }
}

named_enum! {
    /// Where a group without stored offsets starts; applied by clients.
    ConsumeFromWhere, default LastOffset {
        /// At the end.
        0 LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Old name, acts like the first.
        1 LastOffsetAndMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Old name, acts like the first.
        2 MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Old name, acts like the first.
        3 MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        4 FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a time.
        5 Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// One subscription of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Obsolete.
    #[serde(deserialize_with = "lenient::nullable")]
    pub class_filter_mode: bool,
    /// Codes of the tags.
    #[serde(deserialize_with = "lenient::i32s")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression.
    #[serde(deserialize_with = "lenient::nullable")]
    pub sub_string: String,
    /// Grows with every change; ms for Java, ns for Go.
    #[serde(deserialize_with = "lenient::i64")]
    pub sub_version: i64,
    /// The tags.
    #[serde(deserialize_with = "lenient::nullable")]
    pub tags_set: Vec<String>,
    /// The topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        SubscriptionData {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: "TAG".to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

impl SubscriptionData {
    /// A tag subscription as a client would send it.
    pub fn tags(topic: &str, expression: &str, version: i64) -> Result<Self, BadExpression> {
        let tags: Vec<String> = match TagFilter::parse(expression)? {
            TagFilter::All => Vec::new(),
            TagFilter::Codes(_) => split_tags(expression).map(str::to_owned).collect(),
        };
        Ok(SubscriptionData {
            code_set: tags.iter().map(|t| tag_code(t)).collect(),
            sub_string: expression.to_owned(),
            sub_version: version,
            tags_set: tags,
            topic: topic.to_owned(),
            ..SubscriptionData::default()
        })
    }

    /// Whether the expression is a tag expression.
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == "TAG"
    }

    /// The filter of a tag subscription. The expression decides; the code set is only a copy.
    pub fn tag_filter(&self) -> Result<TagFilter, BadExpression> {
        TagFilter::parse(&self.sub_string)
    }
}

/// A producer group on the sending client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// Group name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_name: String,
}

/// A consumer group on the sending client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Start policy.
    pub consume_from_where: ConsumeFromWhere,
    /// Push, pull or pop.
    pub consume_type: ConsumeType,
    /// Group name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_name: String,
    /// Clustering or broadcasting.
    pub message_model: MessageModel,
    /// Subscriptions; empty in a short version-2 heartbeat.
    #[serde(deserialize_with = "lenient::nullable")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit mode.
    #[serde(deserialize_with = "lenient::nullable")]
    pub unit_mode: bool,
}

/// Body of HEART_BEAT.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// Client id, opaque.
    #[serde(rename = "clientID", deserialize_with = "lenient::nullable")]
    pub client_id: String,
    /// Consumer groups.
    #[serde(deserialize_with = "lenient::nullable")]
    pub consumer_data_set: Vec<ConsumerData>,
    /// Version 2: hash of the subscriptions; 0 in version 1.
    #[serde(deserialize_with = "lenient::i32")]
    pub heartbeat_fingerprint: i32,
    /// Producer groups.
    #[serde(deserialize_with = "lenient::nullable")]
    pub producer_data_set: Vec<ProducerData>,
    /// Version 2: a short heartbeat, which only refreshes liveness.
    #[serde(deserialize_with = "lenient::nullable")]
    pub without_sub: bool,
    /// Groups that [`Heartbeat::parse`] dropped, because they were beyond a limit.
    #[serde(skip)]
    pub left_out: usize,
}

/// Most groups in one heartbeat.
pub const MAX_GROUPS: usize = 1024;
/// Most subscriptions in one heartbeat.
pub const MAX_SUBSCRIPTIONS: usize = 8192;
/// Longest client id in bytes.
pub const MAX_CLIENT_ID: usize = 255;
/// Largest heartbeat body in bytes.
pub const MAX_HEARTBEAT: usize = 4 * 1024 * 1024;

impl Heartbeat {
    /// Reads a heartbeat. Groups beyond a limit are dropped and counted; consumers go first. Names
    /// inside are not checked yet.
    ///
    /// # Errors
    /// It does not decode, is longer than [`MAX_HEARTBEAT`], or has no usable client id.
    pub fn parse(body: &[u8]) -> Result<Heartbeat, BodyError> {
        if body.len() > MAX_HEARTBEAT {
            return Err(BodyError::Limit("4 MiB"));
        }
        let mut heartbeat: Heartbeat = decode(body)?;
        if heartbeat.client_id.is_empty() || heartbeat.client_id.len() > MAX_CLIENT_ID {
            return Err(BodyError::Limit("1 to 255 bytes of client id"));
        }
        let (consumers, producers) = (
            &mut heartbeat.consumer_data_set,
            &mut heartbeat.producer_data_set,
        );
        let told = consumers.len() + producers.len();
        let (mut groups, mut subscriptions) = (0, 0);
        consumers.retain(|consumer| {
            let more = subscriptions + consumer.subscription_data_set.len();
            let fits = groups < MAX_GROUPS && more <= MAX_SUBSCRIPTIONS;
            if fits {
                (groups, subscriptions) = (groups + 1, more);
            }
            fits
        });
        producers.truncate(MAX_GROUPS - groups);
        heartbeat.left_out = told - consumers.len() - producers.len();
        Ok(heartbeat)
    }

    /// Whether this is a short version-2 heartbeat.
    pub fn is_short(&self) -> bool {
        self.without_sub && self.heartbeat_fingerprint != 0
    }
}

/// Body of CHECK_CLIENT_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientConfig {
    /// Client id.
    #[serde(deserialize_with = "lenient::nullable")]
    pub client_id: String,
    /// Consumer group.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group: String,
    /// Namespace, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The subscription to check.
    pub subscription_data: SubscriptionData,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_limit_is_left_out_of_a_heartbeat() {
        let sub = r#"{"topic":"T","subString":"*"},"#.repeat(MAX_SUBSCRIPTIONS + 1);
        let body = format!(
            r#"{{"clientID":"c","consumerDataSet":[{{"groupName":"huge","subscriptionDataSet":[{}]}},
                {{"groupName":"g","subscriptionDataSet":[{{"topic":"T"}}]}}]}}"#,
            sub.trim_end_matches(',')
        );
        let h = Heartbeat::parse(body.as_bytes()).unwrap();
        let names = h.consumer_data_set.iter().map(|g| g.group_name.as_str());
        assert_eq!((names.collect(), h.left_out), (vec!["g"], 1));
        let groups = r#"{"groupName":"g"},"#.repeat(MAX_GROUPS + 1);
        let groups = groups.trim_end_matches(',');
        let body = format!(
            r#"{{"clientID":"c","producerDataSet":[{groups}],"consumerDataSet":[{{"groupName":"g"}}]}}"#
        );
        let h = Heartbeat::parse(body.as_bytes()).unwrap();
        assert_eq!(h.consumer_data_set.len(), 1);
        assert_eq!(h.producer_data_set.len(), MAX_GROUPS - 1);
        assert_eq!(h.left_out, 2);
        for body in [
            r#"{"clientID":""}"#,
            "{}",
            "[]",
            "",
            r#"{"clientID":7}"#,
            r#"{"clientID":"c""#,
        ] {
            assert!(Heartbeat::parse(body.as_bytes()).is_err(), "{body}");
        }
        let long = format!(r#"{{"clientID":"{}"}}"#, "c".repeat(256));
        assert!(Heartbeat::parse(long.as_bytes()).is_err());
    }

    #[test]
    fn nulls_and_unknown_names_do_not_fail() {
        let body = br#"{"clientID":"c","producerDataSet":null,"consumerDataSet":[{"groupName":"g",
            "consumeType":"NEW_TYPE","messageModel":9,"subscriptionDataSet":[{"topic":"T",
            "tagsSet":null,"codeSet":null,"subVersion":null}]}],"x":{"y":[1]}}"#;
        let h = Heartbeat::parse(body).unwrap();
        let group = &h.consumer_data_set[0];
        assert_eq!(group.consume_type, ConsumeType::Passively);
        assert_eq!(group.message_model, MessageModel::Clustering);
        assert!(group.subscription_data_set[0].is_tag_type());
    }

    #[test]
    fn a_tag_subscription_as_clients_write_it() {
        let s = SubscriptionData::tags("T", "TagA || TagB", 5).unwrap();
        assert_eq!(s.tags_set, ["TagA", "TagB"]);
        assert_eq!(s.code_set, [2598919, 2598920]);
        assert_eq!(
            s.tag_filter(),
            Ok(TagFilter::from_codes([2598919, 2598920]))
        );
        let all = SubscriptionData::tags("T", "*", 5).unwrap();
        assert!(all.tags_set.is_empty());
        assert!(SubscriptionData::tags("T", "||", 5).is_err());
    }
}
