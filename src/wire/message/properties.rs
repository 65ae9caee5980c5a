//! Message properties: `name` 0x01 `value` 0x02, repeated; the last 0x02 may be missing.
//!
//! Reading follows Java exactly: an item shorter than three characters, or with an empty name or
//! value, is skipped; the first 0x01 of an item splits it; of a repeated name the last one wins.

use super::record::MAX_PROPERTIES;

/// Bytes of properties that a message leaves free when it is accepted: a broker adds its own then,
/// and more when it delays, retries or dead-letters the message. Enough for the longest topic, the
/// longest group and a timer together.
pub const ROOM: usize = 640;
/// Longest properties of a message that a producer sends.
pub const MAX_SENT: usize = MAX_PROPERTIES - ROOM;
/// Longest properties of a message that a consumer sends to its retry topic: those of a stored
/// message, and what the client adds. What does not fit into a record is left out of them.
pub const MAX_SENT_AGAIN: usize = MAX_PROPERTIES + ROOM;

/// Between a name and its value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// After each property.
pub const PROPERTY_SEPARATOR: u8 = 2;

/// Names of properties the broker itself reads or writes.
pub mod names {
    /// Index keys, separated by spaces.
    pub const KEYS: &str = "KEYS";
    /// The message's tag.
    pub const TAGS: &str = "TAGS";
    /// `false`: the caller does not wait for flush or replication.
    pub const WAIT: &str = "WAIT";
    /// Delay level 1..18.
    pub const DELAY: &str = "DELAY";
    /// Timer request: seconds from now.
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    /// Timer request: milliseconds from now.
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Timer request: absolute time, ms.
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// Timer internals: when it is due, ms, rounded down to a second.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    /// Timer internals: when it was parked, ms, rounded down to a second.
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    /// Timer internals: when it was handed to its queue, ms.
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    /// The client's message id.
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    /// Original topic of a retried message.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// Offset message id of the first delivery.
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// Retry counter when the client re-sends by itself.
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    /// Retry limit when the client re-sends by itself.
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    /// Destination topic of a parked message.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    /// Destination queue of a parked message.
    pub const REAL_QID: &str = "REAL_QID";
    /// `true`: half message.
    pub const TRAN_MSG: &str = "TRAN_MSG";
    /// Producer group of a transactional message.
    pub const PGROUP: &str = "PGROUP";
    /// UNIQ_KEY of the half message.
    pub const TRANSACTION_ID: &str = "__transactionId__";
    /// Region, added by the broker.
    pub const MSG_REGION: &str = "MSG_REGION";
    /// Whether to trace, added by the broker.
    pub const TRACE_ON: &str = "TRACE_ON";
    /// Cluster name, added by the broker; request-reply needs it.
    pub const CLUSTER: &str = "CLUSTER";
    /// Pop receipt; removed on send.
    pub const POP_CK: &str = "POP_CK";
    /// Topic a dead letter came from.
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    /// Message id a dead letter came from.
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    /// FIFO key.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    /// Request-reply: correlation id.
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    /// Request-reply: client id of the requester.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// Request-reply: time the reply was pushed, ms.
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
}

/// Walks the valid items, repeated names included. Items that are not UTF-8 are skipped.
pub fn iter(properties: &[u8]) -> impl Iterator<Item = (&str, &str)> + '_ {
    properties
        .split(|b| *b == PROPERTY_SEPARATOR)
        .filter_map(split_item)
        .filter_map(|(name, value)| {
            Some((
                std::str::from_utf8(name).ok()?,
                std::str::from_utf8(value).ok()?,
            ))
        })
}

/// Name and value of one item, by Java's rules.
fn split_item(item: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(NAME_VALUE_SEPARATOR, item)?;
    let (name, value) = (&item[..at], &item[at + 1..]);
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

/// The value of `name`: the last valid item of that name, as [`iter`] would give it.
pub fn get<'a>(properties: &'a [u8], name: &str) -> Option<&'a str> {
    // Items are few and short: comparing the head of each is quicker than a search.
    let mut found = None;
    for item in properties.split(|b| *b == PROPERTY_SEPARATOR) {
        let Some(rest) = item.strip_prefix(name.as_bytes()) else {
            continue;
        };
        if let [NAME_VALUE_SEPARATOR, value @ ..] = rest {
            if !value.is_empty() && !name.is_empty() {
                found = std::str::from_utf8(value).ok().or(found);
            }
        }
    }
    found
}

/// Which of the properties that a send looks at occur: found in one walk, so that those which do
/// not need no search. A name that occurs may still have no valid value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Present(u16);

impl Present {
    pub const TAGS: Present = Present(1);
    pub const WAIT: Present = Present(1 << 1);
    pub const UNIQ_KEY: Present = Present(1 << 2);
    pub const TRAN_MSG: Present = Present(1 << 3);
    pub const DELAY: Present = Present(1 << 4);
    /// One of the three timer properties.
    pub const TIMER: Present = Present(1 << 5);
    /// One of those that the broker sets itself.
    pub const BROKERS_OWN: Present = Present(1 << 6);

    /// Whether one of `other` occurs.
    pub fn has(self, other: Present) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub const fn and(self, other: Present) -> Present {
        Present(self.0 | other.0)
    }

    /// Walks the properties.
    pub fn scan(properties: &[u8]) -> Present {
        let mut all = Present::default();
        for item in properties.split(|b| *b == PROPERTY_SEPARATOR) {
            // Names differ in length first; nothing else of an item is looked at.
            let known = [
                (names::TAGS, Self::TAGS),
                (names::WAIT, Self::WAIT),
                (names::UNIQ_KEY, Self::UNIQ_KEY),
                (names::TRAN_MSG, Self::TRAN_MSG),
                (names::DELAY, Self::DELAY),
                (names::TIMER_DELAY_SEC, Self::TIMER),
                (names::TIMER_DELAY_MS, Self::TIMER),
                (names::TIMER_DELIVER_MS, Self::TIMER),
                (names::POP_CK, Self::BROKERS_OWN),
                (names::MSG_REGION, Self::BROKERS_OWN),
                (names::TRACE_ON, Self::BROKERS_OWN),
                (names::CLUSTER, Self::BROKERS_OWN),
            ];
            for (name, flag) in known {
                // An item that is a bare name is no property, but `rewrite` drops it by its name.
                let at = name.len();
                if item.starts_with(name.as_bytes())
                    && matches!(item.get(at), None | Some(&NAME_VALUE_SEPARATOR))
                {
                    all = all.and(flag);
                    break;
                }
            }
        }
        all
    }
}

/// Appends one property. Names and values must have passed [`check`] or be our own: a separator
/// inside would forge another property, so such a property is dropped here (in a debug build it
/// is a bug).
pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    let clean = is_clean(name) && is_clean(value);
    debug_assert!(clean, "separator in property {name:?}");
    if !clean || name.is_empty() || value.is_empty() {
        return;
    }
    if !out.is_empty() && out.last() != Some(&PROPERTY_SEPARATOR) {
        out.push(PROPERTY_SEPARATOR);
    }
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_VALUE_SEPARATOR);
    out.extend_from_slice(value.as_bytes());
    out.push(PROPERTY_SEPARATOR);
}

/// Encodes properties in the order given.
pub fn encode<'a>(properties: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in properties {
        push(&mut out, name, value);
    }
    out
}

/// Copies `properties` to `out`, leaving out the items named in `remove` (all of a repeated
/// name) and then adding `add`. Other items, also odd ones, are kept as they are.
pub fn rewrite(properties: &[u8], remove: &[&str], add: &[(&str, &str)], out: &mut Vec<u8>) {
    for item in properties.split(|b| *b == PROPERTY_SEPARATOR) {
        if item.is_empty() {
            continue;
        }
        let name = item.split(|b| *b == NAME_VALUE_SEPARATOR).next();
        let dropped = remove.iter().map(|r| r.as_bytes());
        if dropped.into_iter().any(|r| Some(r) == name) {
            continue;
        }
        out.extend_from_slice(item);
        out.push(PROPERTY_SEPARATOR);
    }
    for (name, value) in add {
        push(out, name, value);
    }
}

/// What brokers add for information only: the first to go when there is no room.
const DISPENSABLE: [&str; 8] = [
    names::TRACE_ON,
    names::MSG_REGION,
    names::TIMER_ENQUEUE_MS,
    names::TIMER_DEQUEUE_MS,
    names::REAL_TOPIC,
    names::REAL_QID,
    names::WAIT,
    names::CLUSTER,
];

/// [`rewrite`] to what fits into a record ([`MAX_PROPERTIES`]): without room, what brokers add for
/// information goes first, then the end of `add`, so its order is that of need. What the producer
/// set always stays. Gives how many of `add`, from the first, found room.
///
/// Messages stored before [`MAX_SENT`] was asked for may leave no room at all.
pub fn rewrite_to_fit(
    properties: &[u8],
    remove: &[&str],
    add: &[(&str, &str)],
    out: &mut Vec<u8>,
) -> usize {
    out.clear();
    rewrite(properties, remove, add, out);
    if out.len() <= MAX_PROPERTIES {
        return add.len();
    }
    let remove = [remove, &DISPENSABLE].concat();
    for count in (0..=add.len()).rev() {
        out.clear();
        rewrite(properties, &remove, &add[..count], out);
        if out.len() <= MAX_PROPERTIES {
            return count;
        }
    }
    // The last separator may be missing, and was added.
    if out.len() == MAX_PROPERTIES + 1 {
        out.pop();
    }
    0
}

/// Whether `text` has no separator, so that it can be a name or a value.
pub fn is_clean(text: &str) -> bool {
    !text
        .bytes()
        .any(|b| b == NAME_VALUE_SEPARATOR || b == PROPERTY_SEPARATOR)
}

/// A properties block that must not be stored (response code 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProperties {
    /// Longer than may be sent: bytes, and the limit.
    #[error(
        "properties of {0} bytes exceed the limit of {1}, which leaves room for the broker's own"
    )]
    TooLong(usize, usize),
    /// A value with a name separator in it: clients read it differently (Java keeps it, Go drops
    /// the item), so that one of them sees forged or missing properties.
    #[error("a property value holds a separator byte")]
    Separator,
    /// Not UTF-8, or a NUL byte.
    #[error("properties are not plain UTF-8 text")]
    NotText,
}

/// Checks a client's properties before they are stored: at most `max` bytes, [`MAX_SENT`] for those
/// of a producer.
pub fn check(properties: &[u8], max: usize) -> Result<(), BadProperties> {
    if properties.len() > max {
        return Err(BadProperties::TooLong(properties.len(), max));
    }
    if memchr::memchr(0, properties).is_some() || std::str::from_utf8(properties).is_err() {
        return Err(BadProperties::NotText);
    }
    for item in properties.split(|b| *b == PROPERTY_SEPARATOR) {
        if memchr::memchr_iter(NAME_VALUE_SEPARATOR, item).count() > 1 {
            return Err(BadProperties::Separator);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forged_and_oversized_properties_are_refused() {
        let check = |properties: &[u8]| check(properties, MAX_SENT);
        assert_eq!(check(b"a\x01b\x02c\x01d"), Ok(()));
        assert_eq!(check(b""), Ok(()));
        // A value with 0x01 in it reads differently in Java and Go.
        assert_eq!(check(b"a\x01b\x01c\x02"), Err(BadProperties::Separator));
        assert_eq!(check(b"a\x01b\0\x02"), Err(BadProperties::NotText));
        assert_eq!(check(b"a\x01\xff\x02"), Err(BadProperties::NotText));
        assert_eq!(check(&vec![b'a'; MAX_SENT]), Ok(()));
        assert_eq!(
            check(&vec![b'a'; MAX_SENT + 1]),
            Err(BadProperties::TooLong(MAX_SENT + 1, MAX_SENT))
        );
        assert!(!is_clean("a\u{1}") && !is_clean("\u{2}") && is_clean("a b"));
    }

    #[test]
    fn without_room_the_brokers_own_goes_and_the_producers_stays() {
        let user = |n| format!("big\x01{}\x02", "x".repeat(n));
        let own = "MSG_REGION\x01R\x02TRACE_ON\x01true\x02";
        let add = [("RETRY_TOPIC", "T"), ("DELAY", "3")];
        let fit = |text: &str| {
            let mut out = b"from before".to_vec();
            let count = rewrite_to_fit(text.as_bytes(), &["DELAY"], &add, &mut out);
            assert!(out.len() <= MAX_PROPERTIES);
            (count, String::from_utf8(out).unwrap())
        };
        let roomy = user(100) + own;
        assert_eq!(
            fit(&roomy),
            (2, roomy.clone() + "RETRY_TOPIC\x01T\x02DELAY\x013\x02")
        );
        // Region and trace switch make room for both, for one, for none.
        let tight = MAX_PROPERTIES - own.len() - 5;
        assert_eq!(
            fit(&(user(tight) + own)),
            (2, user(tight) + "RETRY_TOPIC\x01T\x02DELAY\x013\x02")
        );
        let tighter = MAX_PROPERTIES - 5 - 14;
        assert_eq!(
            fit(&user(tighter)),
            (1, user(tighter) + "RETRY_TOPIC\x01T\x02")
        );
        let full = MAX_PROPERTIES - 5;
        assert_eq!(fit(&user(full)), (0, user(full)));
        let open = user(full + 1);
        let open = &open[..open.len() - 1];
        assert_eq!(
            fit(open),
            (0, open.to_owned()),
            "without its last separator"
        );
    }

    #[test]
    fn rewriting_removes_every_item_of_a_name_and_closes_the_last() {
        let mut out = Vec::new();
        // 4.9.8's batches have no separator at the end.
        rewrite(
            b"POP_CK\x01x\x02A\x01b\x02POP_CK\x01y\x02WAIT\x01true",
            &["POP_CK", "CLUSTER"],
            &[("CLUSTER", "c"), ("EMPTY", "")],
            &mut out,
        );
        assert_eq!(out, b"A\x01b\x02WAIT\x01true\x02CLUSTER\x01c\x02");
        // A prefix of a name is another name.
        assert_eq!(get(&out, "WAI"), None);
        assert_eq!(get(&out, "CLUSTER"), Some("c"));
        assert_eq!(get(&out, ""), None);
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_the_same(
            pairs in prop::collection::btree_map("[a-zA-Z_]{1,8}", "[^\u{1}\u{2}]{1,8}", 0..8)
        ) {
            let text = encode(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            let back: std::collections::BTreeMap<_, _> = iter(&text)
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            prop_assert_eq!(&back, &pairs);
            for (k, v) in &pairs {
                prop_assert_eq!(get(&text, k), Some(v.as_str()));
            }
        }

        #[test]
        fn what_get_finds_is_present(
            pairs in prop::collection::vec(
                ("(TAGS|WAIT|UNIQ_KEY|TRAN_MSG|DELAY|TIMER_DELAY_MS|CLUSTER|TAG|TAGSX|x)", "[a-c]{0,2}"), 0..6
            )
        ) {
            let text: String = pairs.iter().map(|(k, v)| format!("{k}\u{1}{v}\u{2}")).collect();
            let present = Present::scan(text.as_bytes());
            for (name, flag) in [
                ("TAGS", Present::TAGS), ("WAIT", Present::WAIT), ("UNIQ_KEY", Present::UNIQ_KEY),
                ("TRAN_MSG", Present::TRAN_MSG), ("DELAY", Present::DELAY),
                ("TIMER_DELAY_MS", Present::TIMER), ("CLUSTER", Present::BROKERS_OWN),
            ] {
                prop_assert_eq!(present.has(flag), pairs.iter().any(|(k, _)| k == name));
                prop_assert!(present.has(flag) || get(text.as_bytes(), name).is_none());
            }
        }

        #[test]
        fn any_bytes_are_read_alike_by_get_and_iter(bytes in prop::collection::vec(0u8..4, 0..40)) {
            let last: std::collections::BTreeMap<_, _> = iter(&bytes).collect();
            for (name, value) in last {
                prop_assert_eq!(get(&bytes, name), Some(value));
            }
        }
    }
}
