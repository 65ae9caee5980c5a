//! What a broker changes in a message's properties before it stores it, and when a delayed
//! message is due (remoting-client §2.2, §8.7, §8.8). No I/O.

use super::super::reply::Reply;
use crate::routing::delay::DelayLevels;
use crate::wire::message::properties::{self, names as prop, Present};
use crate::wire::remoting::code::response as rc;

/// The region clients see.
pub const REGION: &str = "DefaultRegion";
/// Whether clients should write traces.
pub const TRACE_ON: bool = true;
/// When a message goes to its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Now,
    /// Not before this time, ms.
    At(i64),
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
            return Ok(Delivery::At(now_ms.saturating_add(delay)));
        }
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
    let due = due.ok_or_else(|| illegal("the timer is out of range"))?;
    let longest = i64::try_from(timer_max_secs).map_or(i64::MAX, |s| s.saturating_mul(1_000));
    if due.saturating_sub(now_ms) > longest {
        let text = format!(
            "timer message illegal, the delay time should not be bigger than the max delay \
             {timer_max_secs} seconds"
        );
        return Err(Reply::err(rc::MESSAGE_ILLEGAL, text));
    }
    if due <= now_ms {
        return Ok(Delivery::Now);
    }
    Ok(Delivery::At(due))
}

fn illegal(text: &'static str) -> Reply {
    Reply::err(rc::MESSAGE_ILLEGAL, text)
}

/// What the broker adds to every message.
#[derive(Debug, Clone)]
pub struct BrokerProps {
    encoded: Vec<u8>,
}

impl BrokerProps {
    /// Of a broker in `cluster`.
    pub fn new(cluster: &str) -> Self {
        let trace = if TRACE_ON { "true" } else { "false" };
        let own = [
            (prop::MSG_REGION, REGION),
            (prop::TRACE_ON, trace),
            (prop::CLUSTER, cluster),
        ];
        Self {
            encoded: properties::encode(own),
        }
    }

    /// Replaces `out` by the properties as stored: with what the broker adds, without what it
    /// takes away. `new_key` is the key of a message that came without one.
    pub fn stored(&self, props: &[u8], present: Present, new_key: Option<&str>, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(props.len() + self.encoded.len() + 64);
        let changed = Present::BROKERS_OWN.and(Present::DELAY).and(Present::TIMER);
        // Odd ends are put right by the general way.
        let plain = props.is_empty() || props.ends_with(&[properties::PROPERTY_SEPARATOR]);
        if plain && !present.has(changed) {
            out.extend_from_slice(props);
        } else {
            let remove = [
                prop::POP_CK,
                prop::MSG_REGION,
                prop::TRACE_ON,
                prop::CLUSTER,
                prop::DELAY,
                prop::TIMER_DELAY_SEC,
                prop::TIMER_DELAY_MS,
                prop::TIMER_DELIVER_MS,
            ];
            properties::rewrite(props, &remove, &[], out);
        }
        out.extend_from_slice(&self.encoded);
        if let Some(key) = new_key {
            properties::push(out, prop::UNIQ_KEY, key);
        }
    }
}

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
        let at = |ms| Ok(Delivery::At(NOW + ms));
        assert_eq!(when(""), Ok(Delivery::Now));
        assert_eq!(when("DELAY\u{1}1\u{2}"), at(1_000));
        assert_eq!(
            when("DELAY\u{1}99\u{2}TIMER_DELAY_SEC\u{1}5\u{2}"),
            at(7_200_000)
        );
        assert_eq!(
            when("DELAY\u{1}0\u{2}TIMER_DELAY_SEC\u{1}5\u{2}"),
            at(5_000)
        );
        assert_eq!(when("TIMER_DELAY_MS\u{1}7\u{2}"), at(7));
        let absolute = format!("TIMER_DELIVER_MS\u{1}{}\u{2}", NOW + 9);
        assert_eq!(when(&absolute), at(9));
    }

    #[test]
    fn the_longest_delay_is_a_setting() {
        let month = "TIMER_DELAY_SEC\u{1}2592000\u{2}";
        assert_eq!(when(month), Err(13));
        let at = Delivery::At(NOW + 2_592_000_000);
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

    fn stored(props: &[u8], key: Option<&str>) -> String {
        let mut out = b"from before".to_vec();
        BrokerProps::new("C").stored(props, Present::scan(props), key, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stored_properties_have_the_brokers_values_once() {
        let own = "MSG_REGION\u{1}DefaultRegion\u{2}TRACE_ON\u{1}true\u{2}CLUSTER\u{1}C\u{2}";
        let sent = "TAGS\u{1}a\u{2}CLUSTER\u{1}fake\u{2}POP_CK\u{1}x\u{2}DELAY\u{1}1\u{2}";
        assert_eq!(
            stored(sent.as_bytes(), Some("KEY")),
            format!("TAGS\u{1}a\u{2}{own}UNIQ_KEY\u{1}KEY\u{2}")
        );
        // The short way and the general one, with and without an end.
        for sent in [
            "UNIQ_KEY\u{1}M\u{2}WAIT\u{1}true",
            "UNIQ_KEY\u{1}M\u{2}WAIT\u{1}true\u{2}",
        ] {
            assert_eq!(
                stored(sent.as_bytes(), None),
                format!("UNIQ_KEY\u{1}M\u{2}WAIT\u{1}true\u{2}{own}")
            );
        }
        assert_eq!(
            stored(b"", Some("KEY")),
            format!("{own}UNIQ_KEY\u{1}KEY\u{2}")
        );
    }
}
