//! What a broker changes in a message's properties before it stores it, and when a delayed
//! message is due (remoting-client §2.2, §8.7, §8.8). No I/O.

use super::super::reply::Reply;
use crate::model::record;
use crate::routing::delay::DelayLevels;
use crate::wire::message::properties::{self, names as prop, Present};
use crate::wire::message::record::MAX_PROPERTIES;
use crate::wire::remoting::code::response as rc;

/// The region clients see.
pub const REGION: &str = "DefaultRegion";
/// Whether clients should write traces.
pub const TRACE_ON: bool = true;
/// Precision of the times in timer properties, ms.
const SECOND: i64 = 1_000;

/// When a message goes to its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Now,
    /// At once, into a dead-letter topic: no delay that the consumer asked for holds.
    DeadLetter,
    /// Not before `due_ms`, by a delay level.
    Level {
        due_ms: i64,
        level: i32,
    },
    /// Not before this time, ms, by a timer property.
    Timer {
        due_ms: i64,
    },
}

impl Delivery {
    /// Time when it is due, ms; `None` when that is now.
    pub fn due_ms(self) -> Option<i64> {
        match self {
            Delivery::Now | Delivery::DeadLetter => None,
            Delivery::Level { due_ms, .. } | Delivery::Timer { due_ms } => Some(due_ms),
        }
    }
}

/// Reads the delay properties. `DELAY` above 0 wins; then the timer properties in their order, for
/// at most `timer_max_secs`.
pub fn delivery(
    props: &[u8],
    present: Present,
    levels: &DelayLevels,
    timer_max_secs: u64,
    now_ms: i64,
) -> Result<Delivery, Reply> {
    if !present.has(Present::DELAY.and(Present::TIMER)) {
        return Ok(Delivery::Now);
    }
    if let Some(text) = properties::get(props, prop::DELAY) {
        let level: i32 = text
            .parse()
            .map_err(|_| illegal("the delay level is not a number"))?;
        if let Some(delay) = levels.delay_ms(level) {
            return Ok(Delivery::Level {
                due_ms: now_ms.saturating_add(delay),
                level: levels.clamp(level),
            });
        }
    }
    // It waited before: whoever sends on what he received does not send it into the wheel again.
    if properties::get(props, prop::TIMER_OUT_MS).is_some() {
        return Ok(Delivery::Now);
    }
    let number = |name| {
        properties::get(props, name).map(|text: &str| {
            text.parse::<i64>()
                .map_err(|_| illegal("the timer property is not a number"))
        })
    };
    let due = if let Some(seconds) = number(prop::TIMER_DELAY_SEC) {
        seconds?
            .checked_mul(1_000)
            .and_then(|ms| now_ms.checked_add(ms))
    } else if let Some(ms) = number(prop::TIMER_DELAY_MS) {
        now_ms.checked_add(ms?)
    } else if let Some(at) = number(prop::TIMER_DELIVER_MS) {
        Some(at?)
    } else {
        return Ok(Delivery::Now);
    };
    let due_ms = due.ok_or_else(|| illegal("the timer is out of range"))?;
    let longest = i64::try_from(timer_max_secs).map_or(i64::MAX, |s| s.saturating_mul(1_000));
    if due_ms.saturating_sub(now_ms) > longest {
        let text = format!(
            "timer message illegal, the delay time should not be bigger than the max delay \
             {timer_max_secs} seconds"
        );
        return Err(Reply::err(rc::MESSAGE_ILLEGAL, text));
    }
    if due_ms <= now_ms {
        return Ok(Delivery::Now);
    }
    Ok(Delivery::Timer { due_ms })
}

/// `TIMER_OUT_MS` of a message that is due at this time: the last full second before it.
fn timer_out_ms(due_ms: i64) -> i64 {
    (due_ms - 1) / SECOND * SECOND
}

fn illegal(text: &'static str) -> Reply {
    Reply::err(rc::MESSAGE_ILLEGAL, text)
}

/// A message whose properties are to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The properties as they came, checked.
    pub props: &'a [u8],
    pub present: Present,
    /// The key of a message that came without one.
    pub new_key: Option<&'a str>,
    pub delivery: Delivery,
    /// Where it is delivered.
    pub topic: &'a str,
    pub queue: u32,
    /// The node's time, ms.
    pub now_ms: i64,
}

/// What the broker adds to every message.
#[derive(Debug, Clone)]
pub struct BrokerProps {
    cluster: String,
    encoded: Vec<u8>,
}

impl BrokerProps {
    /// Of a broker in `cluster`.
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            encoded: properties::encode(own(cluster)),
        }
    }

    /// Replaces `out` by the properties as stored: with what the broker adds, without what it
    /// takes away.
    pub fn stored(&self, sent: &Sent<'_>, out: &mut Vec<u8>) {
        out.clear();
        let props = sent.props;
        out.reserve(props.len() + self.encoded.len() + 64);
        // Odd ends, and what has no room, are put right by the general way.
        let plain = props.is_empty() || props.ends_with(&[properties::PROPERTY_SEPARATOR]);
        let roomy = props.len() + self.encoded.len() + 64 <= MAX_PROPERTIES;
        let now = sent.delivery == Delivery::Now;
        if plain && now && roomy && !sent.present.has(Present::BROKERS_OWN) {
            out.extend_from_slice(props);
            out.extend_from_slice(&self.encoded);
            if let Some(key) = sent.new_key {
                properties::push(out, prop::UNIQ_KEY, key);
            }
            return;
        }
        self.changed(sent, out);
    }

    fn changed(&self, sent: &Sent<'_>, out: &mut Vec<u8>) {
        let mut remove = vec![
            prop::POP_CK,
            prop::MSG_REGION,
            prop::TRACE_ON,
            prop::CLUSTER,
        ];
        let mut add = Vec::with_capacity(8);
        add.extend(sent.new_key.map(|key| (prop::UNIQ_KEY, key)));
        let queue = sent.queue.to_string();
        let real = [(prop::REAL_TOPIC, sent.topic), (prop::REAL_QID, &queue)];
        let (text, enqueued, dequeued);
        match sent.delivery {
            Delivery::Now => add.extend(own(&self.cluster)),
            Delivery::DeadLetter => {
                remove.push(prop::DELAY);
                add.push((prop::DELAY, "-1"));
                add.extend(own(&self.cluster));
            }
            Delivery::Level { level, .. } => {
                remove.extend([prop::DELAY, prop::REAL_TOPIC, prop::REAL_QID]);
                remove.extend(TIMERS);
                text = level.to_string();
                add.push((prop::DELAY, &text));
                add.extend(real);
                add.extend(own(&self.cluster));
            }
            Delivery::Timer { due_ms } => {
                remove.extend([prop::REAL_TOPIC, prop::REAL_QID, prop::TIMER_OUT_MS]);
                remove.extend([prop::TIMER_ENQUEUE_MS, prop::TIMER_DEQUEUE_MS]);
                text = timer_out_ms(due_ms).to_string();
                enqueued = (sent.now_ms / SECOND * SECOND).to_string();
                add.push((prop::TIMER_OUT_MS, &text));
                add.extend(real);
                add.push((prop::TIMER_ENQUEUE_MS, &enqueued));
                add.extend(own(&self.cluster));
                // The last one: the shard writes the time of dequeuing there.
                dequeued = format!("{due_ms:0width$}", width = record::DEQUEUED_DIGITS);
                add.push((prop::TIMER_DEQUEUE_MS, &dequeued));
            }
        }
        properties::rewrite_to_fit(sent.props, &remove, &add, out);
    }
}

fn own(cluster: &str) -> [(&str, &str); 3] {
    let trace = if TRACE_ON { "true" } else { "false" };
    [
        (prop::MSG_REGION, REGION),
        (prop::TRACE_ON, trace),
        (prop::CLUSTER, cluster),
    ]
}

/// Timer properties as producers set them.
pub(super) const TIMERS: [&str; 3] = [
    prop::TIMER_DELAY_SEC,
    prop::TIMER_DELAY_MS,
    prop::TIMER_DELIVER_MS,
];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn when(text: &str) -> Result<Delivery, i32> {
        within(259_200, text)
    }

    fn within(longest: u64, text: &str) -> Result<Delivery, i32> {
        let present = Present::scan(text.as_bytes());
        delivery(
            text.as_bytes(),
            present,
            &DelayLevels::default(),
            longest,
            NOW,
        )
        .map_err(|e| e.code)
    }

    #[test]
    fn delay_levels_win_over_timers() {
        let level = |ms, level| {
            let due_ms = NOW + ms;
            Ok(Delivery::Level { due_ms, level })
        };
        let timer = |ms| Ok(Delivery::Timer { due_ms: NOW + ms });
        assert_eq!(when(""), Ok(Delivery::Now));
        assert_eq!(when("DELAY\u{1}1\u{2}"), level(1_000, 1));
        assert_eq!(
            when("DELAY\u{1}99\u{2}TIMER_DELAY_SEC\u{1}5\u{2}"),
            level(7_200_000, 18)
        );
        assert_eq!(
            when("DELAY\u{1}0\u{2}TIMER_DELAY_SEC\u{1}5\u{2}"),
            timer(5_000)
        );
        assert_eq!(when("TIMER_DELAY_MS\u{1}7\u{2}"), timer(7));
        let absolute = format!("TIMER_DELIVER_MS\u{1}{}\u{2}", NOW + 9);
        assert_eq!(when(&absolute), timer(9));
        let waited = format!("{absolute}TIMER_OUT_MS\u{1}1\u{2}");
        assert_eq!(when(&waited), Ok(Delivery::Now));
        assert_eq!(when(&format!("{waited}DELAY\u{1}1\u{2}")), level(1_000, 1));
    }

    #[test]
    fn the_longest_delay_is_a_setting() {
        let month = "TIMER_DELAY_SEC\u{1}2592000\u{2}";
        assert_eq!(when(month), Err(13));
        let due_ms = NOW + 2_592_000_000;
        let at = Delivery::Timer { due_ms };
        assert_eq!(within(2_592_000, month), Ok(at));
        assert_eq!(within(2_591_999, month), Err(13));
    }

    #[test]
    fn times_out_of_range_are_refused_or_now() {
        assert_eq!(when("TIMER_DELIVER_MS\u{1}5\u{2}"), Ok(Delivery::Now));
        assert_eq!(when("TIMER_DELAY_MS\u{1}-1\u{2}"), Ok(Delivery::Now));
        assert_eq!(
            when("TIMER_DELAY_SEC\u{1}-9223372036854775808\u{2}"),
            Err(13)
        );
        for bad in [
            "x",
            "9223372036854775807",
            "99999999999999999999",
            "259201",
            "1e3",
        ] {
            assert_eq!(
                when(&format!("TIMER_DELAY_SEC\u{1}{bad}\u{2}")),
                Err(13),
                "{bad}"
            );
        }
        assert_eq!(when("DELAY\u{1}abc\u{2}"), Err(13));
        assert_eq!(when("DELAY\u{1}-3\u{2}"), Ok(Delivery::Now));
    }

    /// Stored properties, sorted, with blanks where the separators are.
    fn text(props: &[u8]) -> String {
        let mut all: Vec<_> = properties::iter(props)
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        all.sort();
        all.join(" ")
    }

    fn sent(props: &str, new_key: Option<&str>, delivery: Delivery) -> Vec<u8> {
        let props = props.replace('=', "\u{1}").replace(' ', "\u{2}");
        let mut out = b"from before".to_vec();
        let sent = Sent {
            props: props.as_bytes(),
            present: Present::scan(props.as_bytes()),
            new_key,
            delivery,
            topic: "T",
            queue: 3,
            now_ms: NOW + 1_999,
        };
        BrokerProps::new("C").stored(&sent, &mut out);
        out
    }

    #[test]
    fn stored_properties_have_the_brokers_values_once() {
        let own = "CLUSTER=C MSG_REGION=DefaultRegion TRACE_ON=true";
        assert_eq!(
            text(&sent(
                "TAGS=a CLUSTER=fake POP_CK=x DELAY=0 ",
                Some("KEY"),
                Delivery::Now
            )),
            "CLUSTER=C DELAY=0 MSG_REGION=DefaultRegion TAGS=a TRACE_ON=true UNIQ_KEY=KEY"
        );
        // The short way and the general one, with and without an end.
        for props in ["UNIQ_KEY=M WAIT=true", "UNIQ_KEY=M WAIT=true "] {
            let stored = sent(props, None, Delivery::Now);
            assert_eq!(text(&stored), format!("{own} UNIQ_KEY=M WAIT=true"));
        }
        assert_eq!(
            text(&sent("", Some("KEY"), Delivery::Now)),
            format!("{own} UNIQ_KEY=KEY")
        );
    }

    /// As RocketMQ 5.5.0 delivers them.
    #[test]
    fn delayed_messages_say_how_they_were_delayed() {
        let own = "CLUSTER=C MSG_REGION=DefaultRegion";
        let level = Delivery::Level {
            due_ms: NOW,
            level: 18,
        };
        let both =
            "DELAY=99 TIMER_DELAY_SEC=1 TIMER_DELAY_MS=1 TIMER_DELIVER_MS=1 REAL_TOPIC=x p=v ";
        assert_eq!(
            text(&sent(both, None, level)),
            "CLUSTER=C DELAY=18 MSG_REGION=DefaultRegion REAL_QID=3 REAL_TOPIC=T TRACE_ON=true p=v"
        );
        let timer = |due_ms| {
            sent(
                "TIMER_DELAY_MS=5 TIMER_DEQUEUE_MS=7 ",
                None,
                Delivery::Timer { due_ms },
            )
        };
        let expected = |out: i64, due: i64| {
            format!(
                "{own} REAL_QID=3 REAL_TOPIC=T TIMER_DELAY_MS=5 TIMER_DEQUEUE_MS={due} \
                 TIMER_ENQUEUE_MS={} TIMER_OUT_MS={out} TRACE_ON=true",
                NOW + 1_000
            )
        };
        let due = NOW + 5_113;
        assert_eq!(text(&timer(due)), expected(NOW + 5_000, due));
        // A full second is the one before.
        let full = NOW + 5_000;
        assert_eq!(text(&timer(full)), expected(NOW + 4_000, full));
        let mut record = timer(due);
        record::stamp_dequeued(&mut record, due + 7);
        assert_eq!(text(&record), expected(NOW + 5_000, due + 7));
        assert_eq!(
            text(&sent(
                "DELAY=4 RECONSUME_TIME=4 ",
                None,
                Delivery::DeadLetter
            )),
            "CLUSTER=C DELAY=-1 MSG_REGION=DefaultRegion RECONSUME_TIME=4 TRACE_ON=true"
        );
    }
}
