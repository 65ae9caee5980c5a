//! What a failed message carries when it is stored again, to be retried or as a dead letter
//! (remoting-client §8.6). No I/O.

use super::props::TIMERS;
use crate::wire::message::properties::{self, names as prop};

/// A failed message on its way to a retry or dead-letter topic.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Its properties as stored.
    pub props: &'a [u8],
    /// Where it was consumed from.
    pub topic: &'a str,
    /// Its offset message id.
    pub id: &'a str,
    /// Delay level, retry topic and queue; `None`: it goes to the dead letters.
    pub again: Option<(i32, &'a str, u32)>,
}

impl Failed<'_> {
    /// Replaces `out` by its properties as stored again. False when there was no room for the topic
    /// it came from, without which no consumer knows what it is.
    pub fn stored(&self, out: &mut Vec<u8>) -> bool {
        let origin = properties::get(self.props, prop::ORIGIN_MESSAGE_ID).unwrap_or(self.id);
        let topic = properties::get(self.props, prop::RETRY_TOPIC).unwrap_or(self.topic);
        let mut remove = vec![prop::ORIGIN_MESSAGE_ID, prop::RETRY_TOPIC, prop::DELAY];
        remove.push(prop::WAIT);
        let mut add = vec![
            (prop::RETRY_TOPIC, topic),
            (prop::ORIGIN_MESSAGE_ID, origin),
        ];
        let (level, queue);
        match self.again {
            Some((delay, retry_topic, retry_queue)) => {
                remove.extend([prop::REAL_TOPIC, prop::REAL_QID]);
                remove.extend(TIMERS);
                (level, queue) = (delay.to_string(), retry_queue.to_string());
                add.push((prop::DELAY, &level));
                add.extend([(prop::REAL_TOPIC, retry_topic), (prop::REAL_QID, &queue)]);
            }
            None => add.push((prop::DELAY, "0")),
        }
        add.push((prop::WAIT, "false"));
        properties::rewrite_to_fit(self.props, &remove, &add, out) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::props::{BrokerProps, Delivery, Sent};
    use super::*;
    use crate::wire::message::properties::Present;
    use crate::wire::message::record::MAX_PROPERTIES;

    const NOW: i64 = 1_800_000_000_000;

    /// Stored properties, sorted, with blanks where the separators are.
    fn text(props: &[u8]) -> String {
        let mut all: Vec<_> = properties::iter(props)
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        all.sort();
        all.join(" ")
    }

    fn failed(props: &str, again: Option<(i32, &str, u32)>) -> (bool, String) {
        let props = props.replace('=', "\u{1}").replace(' ', "\u{2}");
        let failed = Failed {
            props: props.as_bytes(),
            topic: "T",
            id: "ID",
            again,
        };
        let mut out = Vec::new();
        (failed.stored(&mut out), text(&out))
    }

    /// As RocketMQ 5.5.0 stores them.
    #[test]
    fn failed_messages_say_where_they_came_from() {
        let again = Some((3, "%RETRY%G", 0));
        let once = "DELAY=3 ORIGIN_MESSAGE_ID=ID REAL_QID=0 REAL_TOPIC=%RETRY%G RETRY_TOPIC=T \
                    TIMER_OUT_MS=1 WAIT=false p=v";
        let sent = "p=v WAIT=true DELAY=1 REAL_TOPIC=T REAL_QID=2 TIMER_OUT_MS=1 TIMER_DELAY_MS=5 ";
        assert_eq!(failed(sent, again), (true, once.to_owned()));
        assert_eq!(
            failed(once, Some((4, "%RETRY%G", 0))),
            (true, once.replace("DELAY=3", "DELAY=4"))
        );
        assert_eq!(
            failed(once, None),
            (true, once.replace("DELAY=3", "DELAY=0"))
        );
        assert_eq!(
            failed("p=v ", None),
            (
                true,
                "DELAY=0 ORIGIN_MESSAGE_ID=ID RETRY_TOPIC=T WAIT=false p=v".to_owned()
            )
        );
    }

    #[test]
    fn every_message_that_is_accepted_can_be_delayed_and_retried() {
        let name = |prefix: &str, n| format!("{prefix}{}", "n".repeat(n));
        let (topic, retry) = (name("", 127), name("%RETRY%", 120));
        let id = "F".repeat(32);
        let user = format!("p\u{1}{}\u{2}", "x".repeat(properties::MAX_SENT - 3));
        assert_eq!(
            properties::check(user.as_bytes(), properties::MAX_SENT),
            Ok(())
        );
        let level = Delivery::Level {
            due_ms: NOW,
            level: 18,
        };
        for delivery in [Delivery::Now, level, Delivery::Timer { due_ms: NOW }] {
            let sent = Sent {
                props: user.as_bytes(),
                present: Present::scan(user.as_bytes()),
                new_key: Some(&id),
                delivery,
                topic: &topic,
                queue: 1_023,
                now_ms: NOW,
            };
            let mut stored = Vec::new();
            BrokerProps::new("DefaultCluster").stored(&sent, &mut stored);
            assert!(stored.ends_with(b"\x02") && stored.len() <= MAX_PROPERTIES);
            let mut last = stored.clone();
            for again in [
                Some((3, retry.as_str(), 1_023)),
                Some((18, &retry, 0)),
                None,
            ] {
                let failed = Failed {
                    props: &last,
                    topic: &topic,
                    id: &id,
                    again,
                };
                let mut out = Vec::new();
                assert!(failed.stored(&mut out), "{delivery:?} {again:?}");
                assert!(out.len() <= MAX_PROPERTIES);
                let (all, before): (Vec<_>, Vec<_>) = (
                    properties::iter(&out).collect(),
                    properties::iter(&last).collect(),
                );
                for kept in before {
                    let replaced = [prop::DELAY, prop::REAL_TOPIC, prop::REAL_QID, prop::WAIT];
                    assert!(
                        replaced.contains(&kept.0) || all.contains(&kept),
                        "{} was lost",
                        kept.0
                    );
                }
                for wanted in [
                    prop::RETRY_TOPIC,
                    prop::ORIGIN_MESSAGE_ID,
                    prop::DELAY,
                    prop::WAIT,
                ] {
                    assert!(properties::get(&out, wanted).is_some(), "{wanted}");
                }
                last = out;
            }
        }
    }

    /// Stored by a version that left no room.
    #[test]
    fn a_message_without_room_keeps_what_its_producer_set() {
        let max = MAX_PROPERTIES;
        let own = "MSG_REGION=DefaultRegion TRACE_ON=true CLUSTER=DefaultCluster ";
        for (user, fits) in [(max - own.len() - 3, true), (max - 3, false)] {
            let user = format!("p={} ", "x".repeat(user));
            let stored = if fits {
                format!("{own}{user}")
            } else {
                user.clone()
            };
            for again in [Some((3, "%RETRY%G", 0)), None] {
                let (has_topic, text) = failed(&stored, again);
                assert_eq!(has_topic, fits);
                assert!(
                    text.contains(user.trim()),
                    "the producer's property is gone"
                );
            }
        }
    }
}
