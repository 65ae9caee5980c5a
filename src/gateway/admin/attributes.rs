//! Attributes of topics and groups: which there are, what values they take, and how a request changes
//! them. What RocketMQ 5.5 does not know is refused in its words; what is not built here is refused
//! by name. No I/O.

use crate::wire::remoting::requests::AttributeChange;
use std::collections::{BTreeMap, BTreeSet};

/// What an attribute may be set to.
enum Values {
    OneOf(&'static [&'static str]),
    /// From the first to the second number.
    Range(i64, i64),
    Bool,
    /// Any text that is not empty.
    Text,
}

/// Which of the valid values this broker does as it says.
enum Built {
    All,
    /// These; the others are refused by name.
    Only(&'static [&'static str]),
}

/// One attribute that RocketMQ 5.5 or this broker knows.
pub struct Attribute {
    name: &'static str,
    /// May be set when the topic or group exists already.
    changeable: bool,
    values: Values,
    built: Built,
}

/// Attributes of topics. The order of the values is that of RocketMQ's remark.
pub const TOPIC: &[Attribute] = &[
    Attribute {
        name: MESSAGE_TYPE,
        changeable: true,
        values: Values::OneOf(&[
            "UNSPECIFIED",
            MIXED,
            "TRANSACTION",
            "PRIORITY",
            "FIFO",
            "DELAY",
            "LITE",
            "NORMAL",
        ]),
        built: Built::Only(&[
            "UNSPECIFIED",
            MIXED,
            "TRANSACTION",
            "FIFO",
            "DELAY",
            "NORMAL",
        ]),
    },
    Attribute {
        name: "queue.type",
        changeable: false,
        values: Values::OneOf(&["SimpleCQ", "BatchCQ"]),
        built: Built::Only(&["SimpleCQ"]),
    },
    Attribute {
        name: "cleanup.policy",
        changeable: false,
        values: Values::OneOf(&["DELETE", "COMPACTION"]),
        built: Built::Only(&["DELETE"]),
    },
    Attribute {
        name: "reserve.time",
        changeable: true,
        values: Values::Range(-1, i64::MAX),
        built: Built::Only(&["-1"]),
    },
    Attribute {
        name: "lite.topic.expiration",
        changeable: true,
        values: Values::Range(-1, 43_200),
        built: Built::Only(&["-1"]),
    },
    // This broker's own: how safe a message is when its producer is told so.
    Attribute {
        name: "flush.disk.type",
        changeable: true,
        values: Values::OneOf(&["SYNC_FLUSH", "ASYNC_FLUSH"]),
        built: Built::All,
    },
    Attribute {
        name: "broker.role",
        changeable: true,
        values: Values::OneOf(&["SYNC_MASTER", "ASYNC_MASTER"]),
        built: Built::All,
    },
];

/// Attributes of groups. All belong to pop's priorities and lite topics: only the defaults are built.
pub const GROUP: &[Attribute] = &[
    group("priority.factor", Values::Range(0, 100), &["100"]),
    group("lite.bind.topic", Values::Text, &[]),
    group(
        "lite.sub.model",
        Values::OneOf(&["Shared", "Exclusive"]),
        &["Shared"],
    ),
    group("lite.sub.reset.offset.exclusive", Values::Bool, &["false"]),
    group(
        "lite.sub.reset.offset.unsubscribe",
        Values::Bool,
        &["false"],
    ),
    group(
        "lite.sub.client.quota",
        Values::Range(-1, i64::MAX),
        &["2000"],
    ),
    group(
        "lite.sub.client.max.event.cnt",
        Values::Range(10, i64::MAX),
        &["400"],
    ),
    group("lite.sub.wildcard", Values::Text, &[]),
];

/// Names the type of messages that a topic is for.
pub const MESSAGE_TYPE: &str = "message.type";
/// The message type that stands for any of them.
pub const MIXED: &str = "MIXED";

/// Most attributes of a topic or group, and the most bytes of a name or value.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE: usize = 1_024;

const fn group(name: &'static str, values: Values, defaults: &'static [&'static str]) -> Attribute {
    Attribute {
        name,
        changeable: true,
        values,
        built: Built::Only(defaults),
    }
}

impl Attribute {
    fn verify(&self, value: &str) -> Result<(), String> {
        match self.values {
            Values::OneOf(all) if !all.contains(&value) => {
                return Err(format!("value is not in set: [{}]", all.join(", ")));
            }
            Values::Range(from, to) => {
                let number: i64 = value
                    .parse()
                    .map_err(|_| format!("For input string: \"{value}\""))?;
                if !(from..=to).contains(&number) {
                    return Err(format!("value is not in range({from}, {to})"));
                }
            }
            Values::Bool
                if !["true", "false"]
                    .iter()
                    .any(|b| value.eq_ignore_ascii_case(b)) =>
            {
                return Err("boolean attribute format is wrong.".to_owned());
            }
            _ => {}
        }
        match self.built {
            Built::Only(built) if !built.iter().any(|b| value.eq_ignore_ascii_case(b)) => Err(
                format!("the attribute {}={value} is not supported yet", self.name),
            ),
            _ => Ok(()),
        }
    }
}

/// The attributes after `changes` to `current`; `None` when the topic or group is new. The error is
/// the remark of the answer.
///
/// What an earlier version let pass stays, and may be removed.
pub fn change(
    known: &[Attribute],
    current: Option<&BTreeMap<String, String>>,
    changes: &[AttributeChange<'_>],
) -> Result<BTreeMap<String, String>, String> {
    let mut out = current.cloned().unwrap_or_default();
    let mut keys = BTreeSet::new();
    for change in changes {
        let (AttributeChange::Set(key, value) | AttributeChange::Same(key, value)) = *change else {
            continue;
        };
        if key.len().max(value.len()) > MAX_ATTRIBUTE {
            return Err(format!("an attribute is longer than {MAX_ATTRIBUTE} bytes"));
        }
    }
    for change in changes {
        let (AttributeChange::Set(key, _)
        | AttributeChange::Remove(key)
        | AttributeChange::Same(key, _)) = *change;
        if key.is_empty() || key.contains(['+', '-']) {
            return Err("kv string format wrong.".to_owned());
        }
        if !keys.insert(key) {
            return Err(format!("alter duplication key. key: {key}"));
        }
        let attribute = known.iter().find(|a| a.name == key);
        match *change {
            // Whoever sends back what he read does not mean to change it.
            AttributeChange::Same(_, value) if out.get(key).is_some_and(|v| v == value) => {}
            AttributeChange::Same(..) if current.is_some() => {
                return Err(format!("wrong format key: {key}"));
            }
            AttributeChange::Same(..) | AttributeChange::Remove(_) if current.is_none() => {
                return Err(format!(
                    "only add attribute is supported while creating topic. key: {key}"
                ));
            }
            AttributeChange::Set(_, value) => {
                let attribute = attribute.ok_or_else(|| format!("unsupported key: {key}"))?;
                if current.is_some() && !attribute.changeable {
                    return Err(unchangeable(key));
                }
                attribute.verify(value)?;
                out.insert(key.to_owned(), value.to_owned());
            }
            _ => {
                if !out.contains_key(key) {
                    return Err(format!("attempt to delete a nonexistent key: {key}"));
                }
                if attribute.is_some_and(|a| !a.changeable) {
                    return Err(unchangeable(key));
                }
                out.remove(key);
            }
        }
    }
    if out.len() > MAX_ATTRIBUTES {
        return Err("too many attributes".to_owned());
    }
    Ok(out)
}

fn unchangeable(key: &str) -> String {
    format!("attempt to update an unchangeable attribute. key: {key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::remoting::requests::parse_attributes;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        pairs.collect()
    }

    /// The remark, or the attributes as text.
    fn changed(known: &[Attribute], current: Option<&[(&str, &str)]>, text: &str) -> String {
        let current = current.map(of);
        let changes = match parse_attributes(text) {
            Ok(changes) => changes,
            Err(e) => return e,
        };
        match change(known, current.as_ref(), &changes) {
            Ok(all) => {
                let all: Vec<_> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("ok {}", all.join(","))
            }
            Err(e) => e,
        }
    }

    /// Remarks as RocketMQ 5.5.0 gave them.
    #[test]
    fn unknown_names_and_values_are_refused_in_rocketmqs_words() {
        let types = "value is not in set: [UNSPECIFIED, MIXED, TRANSACTION, PRIORITY, FIFO, DELAY, LITE, NORMAL]";
        for (text, remark) in [
            ("+nosuch=1", "unsupported key: nosuch"),
            ("+message.type=BOGUS", types),
            ("+message.type=fifo", types),
            ("+queue.type=x", "value is not in set: [SimpleCQ, BatchCQ]"),
            (
                "+cleanup.policy=x",
                "value is not in set: [DELETE, COMPACTION]",
            ),
            ("+reserve.time=x", "For input string: \"x\""),
            (
                "+reserve.time=-2",
                "value is not in range(-1, 9223372036854775807)",
            ),
            (
                "+lite.topic.expiration=43201",
                "value is not in range(-1, 43200)",
            ),
            (
                "-message.type",
                "only add attribute is supported while creating topic. key: message.type",
            ),
            (
                "message.type=FIFO",
                "add/alter attribute format is wrong: message.type",
            ),
            (
                "+message.type",
                "delete attribute format is wrong: +message.type",
            ),
            ("+a+b=1", "kv string format wrong."),
            ("+a-b=1", "kv string format wrong."),
            ("+=1", "kv string format wrong."),
            ("-", "kv string format wrong."),
            (
                "+message.type=FIFO,+message.type=NORMAL",
                "key duplication: +message.type",
            ),
            (
                "+flush.disk.type=SYNC",
                "value is not in set: [SYNC_FLUSH, ASYNC_FLUSH]",
            ),
            (
                "+broker.role=sync_master",
                "value is not in set: [SYNC_MASTER, ASYNC_MASTER]",
            ),
        ] {
            assert_eq!(changed(TOPIC, None, text), remark, "{text}");
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for text in [
            "queue.type=BatchCQ",
            "cleanup.policy=COMPACTION",
            "reserve.time=5",
            "lite.topic.expiration=5",
            "message.type=PRIORITY",
            "message.type=LITE",
        ] {
            assert_eq!(
                changed(TOPIC, None, &format!("+{text}")),
                format!("the attribute {text} is not supported yet")
            );
        }
        for text in [
            "priority.factor=50",
            "lite.bind.topic=T",
            "lite.sub.model=Exclusive",
            "lite.sub.reset.offset.exclusive=true",
            "lite.sub.client.quota=1",
        ] {
            assert_eq!(
                changed(GROUP, None, &format!("+{text}")),
                format!("the attribute {text} is not supported yet")
            );
        }
    }

    #[test]
    fn what_tools_send_is_taken() {
        for value in [
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "UNSPECIFIED",
            "MIXED",
        ] {
            let text = format!("+message.type={value}");
            assert_eq!(
                changed(TOPIC, None, &text),
                format!("ok message.type={value}")
            );
        }
        assert_eq!(
            changed(
                TOPIC,
                None,
                "+queue.type=SimpleCQ,+cleanup.policy=DELETE,+reserve.time=-1"
            ),
            "ok cleanup.policy=DELETE,queue.type=SimpleCQ,reserve.time=-1"
        );
        assert_eq!(
            changed(TOPIC, None, "+message.type=FIFO,"),
            "ok message.type=FIFO"
        );
        assert_eq!(changed(TOPIC, None, ","), "ok ");
        assert_eq!(
            changed(GROUP, None, "+priority.factor=100,+lite.sub.model=Shared"),
            "ok lite.sub.model=Shared,priority.factor=100"
        );
    }

    #[test]
    fn changes_of_an_existing_topic() {
        let fifo: &[(&str, &str)] = &[("message.type", "FIFO")];
        assert_eq!(changed(TOPIC, Some(fifo), ""), "ok message.type=FIFO");
        assert_eq!(
            changed(TOPIC, Some(fifo), "+message.type=NORMAL"),
            "ok message.type=NORMAL"
        );
        assert_eq!(changed(TOPIC, Some(fifo), "-message.type"), "ok ");
        for (text, remark) in [
            (
                "-queue.type",
                "attempt to delete a nonexistent key: queue.type",
            ),
            (
                "+message.type=FIFO,-message.type",
                "alter duplication key. key: message.type",
            ),
            (
                "+queue.type=SimpleCQ",
                "attempt to update an unchangeable attribute. key: queue.type",
            ),
        ] {
            assert_eq!(changed(TOPIC, Some(fifo), text), remark, "{text}");
        }
        // An earlier version took anything: it goes when asked.
        assert_eq!(changed(TOPIC, Some(&[("nosuch", "1")]), "-nosuch"), "ok ");
        assert_eq!(
            changed(TOPIC, Some(&[("nosuch", "1")]), "+message.type=FIFO"),
            "ok message.type=FIFO,nosuch=1"
        );
    }

    #[test]
    fn what_was_read_may_be_sent_back() {
        let stored = of(&[("message.type", "FIFO")]);
        let same = [AttributeChange::of("message.type", "FIFO")];
        assert_eq!(change(TOPIC, Some(&stored), &same), Ok(stored.clone()));
        let other = [AttributeChange::of("message.type", "NORMAL")];
        assert_eq!(
            change(TOPIC, Some(&stored), &other),
            Err("wrong format key: message.type".to_owned())
        );
        assert!(change(TOPIC, None, &same).is_err());
    }

    #[test]
    fn too_much_is_refused() {
        let long = "x".repeat(MAX_ATTRIBUTE + 1);
        for change_ in [
            AttributeChange::Set("a", &long),
            AttributeChange::Set(&long, "a"),
        ] {
            assert!(change(TOPIC, None, &[change_]).is_err_and(|e| e.contains("longer than")));
        }
    }
}
