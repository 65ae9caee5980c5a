//! Checks of a send, in the broker's order (remoting-client §2.2). No I/O.

use super::super::reply::Reply;
use crate::config::MAX_MESSAGE_SIZE;
use crate::model::record::SYS_TRANSACTION_MASK;
use crate::model::topic::TopicConfig;
use crate::routing::names::special_group;
use crate::wire::message::names;
use crate::wire::message::properties::{self, names as prop, Present, MAX_SENT, MAX_SENT_AGAIN};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::SendRequest;

/// What stock brokers and ours say to half messages until transactions are built.
pub const NO_TRANSACTIONS: &str = "transaction messages are not supported yet";

/// The topic's name: allowed characters and length, and not one that clients may not send to.
pub fn topic_name(topic: &str) -> Result<(), Reply> {
    names::check_topic(topic).map_err(|e| Reply::err(rc::INVALID_PARAMETER, e.to_string()))?;
    if names::is_send_forbidden(topic) {
        let text = format!("Sending message to topic[{topic}] is forbidden.");
        return Err(Reply::err(rc::NO_PERMISSION, text));
    }
    Ok(())
}

/// The queue to store in: the asked one, or for a negative one a write queue chosen by `random`.
///
/// Stock brokers leave the topic's write bit to the client; here a topic without it takes nothing.
pub fn queue(topic: &TopicConfig, asked: i32, random: u32) -> Result<u32, Reply> {
    if !topic.writable() {
        let text = format!("the topic[{}] sending message is forbidden", topic.name);
        return Err(Reply::err(rc::NO_PERMISSION, text));
    }
    let Ok(asked) = u32::try_from(asked) else {
        if topic.write_queues == 0 {
            let text = format!("the topic[{}] has no write queue", topic.name);
            return Err(Reply::err(rc::NO_PERMISSION, text));
        }
        return Ok(random % topic.write_queues);
    };
    if asked >= topic.queues() {
        let text = format!(
            "request queueId[{asked}] is illegal, topicConfig: {} readQueueNums={} writeQueueNums={}",
            topic.name, topic.read_queues, topic.write_queues
        );
        return Err(Reply::err(rc::INVALID_PARAMETER, text));
    }
    Ok(asked)
}

/// Whether only consumers send to the topic, what they received before.
pub(super) fn is_sent_again(topic: &str) -> bool {
    special_group(topic).is_some()
}

/// Sizes, properties, batch rules and what is not supported.
///
/// What was accepted once must be accepted from its consumer: there the limits are those of any
/// message that can be stored, and room for what the client adds.
pub fn content(
    request: &SendRequest<'_>,
    present: Present,
    body: usize,
    max_body: usize,
) -> Result<(), Reply> {
    let illegal = |text: String| Err(Reply::err(rc::MESSAGE_ILLEGAL, text));
    let (max_body, max_props) = match is_sent_again(request.topic) {
        true => (max_body.max(MAX_MESSAGE_SIZE as usize), MAX_SENT_AGAIN),
        false => (max_body, MAX_SENT),
    };
    if body > max_body {
        return illegal(format!(
            "message body size {body} is larger than {max_body}"
        ));
    }
    let props = request.properties.as_bytes();
    if let Err(e) = properties::check(props, max_props) {
        return illegal(e.to_string());
    }
    let half = present.has(Present::TRAN_MSG)
        && properties::get(props, prop::TRAN_MSG).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    if half || request.sys_flag & SYS_TRANSACTION_MASK != 0 {
        return illegal(NO_TRANSACTIONS.to_owned());
    }
    if request.batch {
        if request.topic.starts_with(names::RETRY_PREFIX) {
            return illegal("batch request does not support retry group".to_owned());
        }
        let delayed = [
            prop::DELAY,
            prop::TIMER_DELAY_SEC,
            prop::TIMER_DELAY_MS,
            prop::TIMER_DELIVER_MS,
        ];
        if delayed
            .iter()
            .any(|name| properties::get(props, name).is_some())
        {
            return illegal("batch messages cannot be delayed".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::{PERM_READ, PERM_WRITE};

    fn checked(request: &SendRequest<'_>, body: usize, max: usize) -> Result<(), Reply> {
        let present = Present::scan(request.properties.as_bytes());
        content(request, present, body, max)
    }

    fn request<'a>(properties: &'a str) -> SendRequest<'a> {
        SendRequest {
            producer_group: "g",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: 0,
            sys_flag: 0,
            born_timestamp: 0,
            flag: 0,
            properties,
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        }
    }

    #[test]
    fn names_are_checked_before_the_forbidden_list() {
        for bad in [
            "",
            "  ",
            "../x",
            "a/b",
            "a\u{0}b",
            "héllo",
            &"x".repeat(128),
        ] {
            assert_eq!(topic_name(bad).unwrap_err().code, 29, "{bad:?}");
        }
        let e = topic_name("SCHEDULE_TOPIC_XXXX").unwrap_err();
        assert_eq!(e.code, 16);
        assert_eq!(
            e.remark.as_deref(),
            Some("Sending message to topic[SCHEDULE_TOPIC_XXXX] is forbidden.")
        );
        assert!(topic_name(&"x".repeat(127)).is_ok());
    }

    #[test]
    fn queue_ids_are_bounded_by_both_counts_and_negative_ones_are_chosen() {
        let mut t = TopicConfig::new("T", 4, PERM_READ | PERM_WRITE);
        t.write_queues = 2;
        assert_eq!(queue(&t, 3, 0), Ok(3));
        assert_eq!(queue(&t, 4, 0).unwrap_err().code, 29);
        assert_eq!(queue(&t, i32::MAX, 0).unwrap_err().code, 29);
        assert_eq!(
            queue(&t, i32::MIN, 7),
            Ok(1),
            "only write queues are chosen"
        );
        t.write_queues = 0;
        assert_eq!(queue(&t, -1, 7).unwrap_err().code, 16);
    }

    #[test]
    fn content_rules() {
        assert!(checked(&request("TAGS\u{1}a\u{2}"), 10, 10).is_ok());
        assert_eq!(checked(&request(""), 11, 10).unwrap_err().code, 13);
        let forged = "a\u{1}b\u{1}TAGS\u{2}";
        assert_eq!(checked(&request(forged), 1, 10).unwrap_err().code, 13);
        let long = format!("a\u{1}{}\u{2}", "x".repeat(33_000));
        assert_eq!(checked(&request(&long), 1, 10).unwrap_err().code, 13);
        // A consumer may send on what was stored, and its client adds to it.
        let again = SendRequest {
            topic: "%RETRY%g",
            ..request(&long)
        };
        assert!(checked(&again, 8 << 20, 10).is_ok());
        assert_eq!(checked(&again, (8 << 20) + 1, 10).unwrap_err().code, 13);
        let half = checked(&request("TRAN_MSG\u{1}true\u{2}"), 1, 10).unwrap_err();
        assert_eq!(half.remark.as_deref(), Some(NO_TRANSACTIONS));
        let mut flagged = request("");
        flagged.sys_flag = 4;
        assert_eq!(checked(&flagged, 1, 10).unwrap_err().code, 13);
        let mut batch = request("DELAY\u{1}3\u{2}");
        batch.batch = true;
        assert_eq!(checked(&batch, 1, 10).unwrap_err().code, 13);
        let mut retry = request("");
        retry.batch = true;
        retry.topic = "%RETRY%g";
        assert_eq!(checked(&retry, 1, 10).unwrap_err().code, 13);
    }
}
