use super::super::tests::Rig;
use super::*;
use crate::model::group::GroupConfig;
use crate::model::outcome::Token;
use crate::model::policy::AckPolicy;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use QuotaKind::*;

fn put_topic(name: &str) -> MetaOp {
    MetaOp::PutTopic(TopicConfig::new(name, 1, 6))
}

fn ensure_topic(name: &str) -> MetaOp {
    MetaOp::EnsureTopic(TopicConfig::new(name, 1, 6))
}

fn put_group(name: &str) -> MetaOp {
    MetaOp::PutGroup(GroupConfig::with_defaults(name))
}

fn ensure_group(name: &str) -> MetaOp {
    MetaOp::EnsureGroup(GroupConfig::with_defaults(name))
}

impl Rig {
    fn with(quotas: Quotas) -> Self {
        let mut rig = Self::new();
        rig.core.options.quotas = quotas;
        rig
    }

    /// The quota that refuses the command at once; nothing is applied meanwhile.
    fn refused(&mut self, op: MetaOp) -> Option<QuotaKind> {
        let (id, epoch) = (77, self.core.epoch());
        self.out.clear();
        self.step(ShardInput::Propose { id, epoch, op });
        match self.out.as_slice() {
            [] => None,
            [Effect::Proposal {
                id: 77,
                result: Err(Refusal::Quota(why)),
            }] => Some(why.kind),
            other => panic!("{other:?}"),
        }
    }

    /// The quota that refuses a delayed message.
    fn delayed(&mut self, due_ms: i64, again: bool) -> Option<QuotaKind> {
        self.out.clear();
        self.step(ShardInput::Schedule(Schedule {
            token: Token { sink: 1, slot: 1 },
            policy: AckPolicy::STRICTEST,
            due_ms,
            target: QueueKey::new(TopicId(1), 0),
            tag: 0,
            record: vec![0; 20],
            again,
        }));
        match self.out.as_slice() {
            [] => None,
            [Effect::Answer(_, Outcome::Refused(Refusal::Quota(why)))] => Some(why.kind),
            other => panic!("{other:?}"),
        }
    }

    fn apply_all(&mut self) {
        while self.core.wants_flush() {
            self.out.clear();
            self.step(ShardInput::Flush { now_ms: 20 });
            self.write_all();
        }
        assert!(self.core.failed().is_none());
    }
}

#[test]
fn topics_are_counted_with_those_under_way_and_known_ones_pass() {
    // The rig has one topic.
    let mut rig = Rig::with(Quotas {
        topics: 4,
        auto_topics: 3,
        own_topics: ["own".to_owned()].into(),
        ..Quotas::default()
    });
    for round in 0..2 {
        for name in ["a", "b"] {
            assert_eq!(rig.refused(ensure_topic(name)), None, "{name} {round}");
        }
        assert_eq!(rig.refused(ensure_topic("c")), Some(AutoTopics), "{round}");
        assert_eq!(rig.refused(put_topic("d")), None, "for operators");
        assert_eq!(rig.refused(put_topic("e")), Some(Topics), "{round}");
        assert_eq!(rig.refused(ensure_topic("e")), Some(AutoTopics), "{round}");
        // Changes of what there is, and the broker's own.
        for op in [put_topic("t"), ensure_topic("t"), put_topic("a")] {
            assert_eq!(rig.refused(op), None);
        }
        assert_eq!(rig.refused(MetaOp::DeleteTopic("nothing".into())), None);
        rig.apply_all();
    }
    assert_eq!(rig.refused(ensure_topic("own")), None);
    // What is deleted makes room.
    for name in ["own", "a"] {
        assert_eq!(rig.refused(MetaOp::DeleteTopic(name.into())), None);
    }
    rig.apply_all();
    assert_eq!(rig.refused(put_topic("e")), None);
    assert_eq!(rig.refused(put_topic("f")), Some(Topics));
}

#[test]
fn groups_get_their_topics_and_leave_no_way_around_the_quota() {
    let mut rig = Rig::with(Quotas {
        topics: 1,
        auto_topics: 1,
        groups: 3,
        auto_groups: 2,
        ..Quotas::default()
    });
    assert_eq!(
        rig.refused(ensure_topic("%RETRY%g1")),
        None,
        "few without a group"
    );
    for name in ["g1", "g2"] {
        assert_eq!(rig.refused(ensure_group(name)), None);
        // The group may not be applied yet.
        for prefix in ["%RETRY%", "%DLQ%"] {
            assert_eq!(rig.refused(ensure_topic(&format!("{prefix}{name}"))), None);
        }
    }
    assert_eq!(rig.refused(ensure_group("g3")), Some(AutoGroups));
    assert_eq!(rig.refused(put_group("g3")), None);
    assert_eq!(rig.refused(put_group("g4")), Some(Groups));
    rig.apply_all();
    assert_eq!(rig.core.machine().holdings().special_topics, 4);
    // Deleted with its offsets kept it counts still, and may come back.
    let gone = GroupConfig {
        deleted: true,
        ..GroupConfig::with_defaults("g2")
    };
    assert_eq!(rig.refused(MetaOp::PutGroup(gone)), None);
    rig.apply_all();
    assert_eq!(rig.refused(put_group("g4")), Some(Groups));
    assert_eq!(rig.refused(ensure_group("g2")), None);
    // Deleted for good, group after group leaves its topics: they bound the number of groups.
    for n in 0..10 {
        for old in ["g1", "g2", "g3"] {
            let name = old.to_owned();
            let gone = crate::model::command::DeleteGroup {
                name,
                clean_offsets: true,
            };
            assert_eq!(rig.refused(MetaOp::DeleteGroup(gone)), None);
        }
        rig.apply_all();
        let name = format!("n{n}");
        if rig.refused(put_group(&name)).is_none() {
            let _ = rig.refused(put_topic(&format!("%RETRY%{name}")));
            let _ = rig.refused(put_topic(&format!("%DLQ%{name}")));
            let gone = crate::model::command::DeleteGroup {
                name,
                clean_offsets: true,
            };
            rig.refused(MetaOp::DeleteGroup(gone));
        }
        rig.apply_all();
        let _ = rig.refused(put_topic(&format!("%DLQ%of-nobody-{n}")));
        rig.apply_all();
    }
    assert_eq!(rig.core.machine().holdings().special_topics, 6);
    assert_eq!(rig.refused(put_group("more")), Some(Groups));
}

#[test]
fn delayed_messages_have_an_end_and_retries_room_of_their_own() {
    let mut rig = Rig::with(Quotas {
        delayed: 3,
        ..Quotas::default()
    });
    assert_eq!(rig.delayed(1, false), None);
    assert_eq!(rig.delayed(2, false), None);
    rig.apply_all();
    assert_eq!(rig.delayed(3, false), None);
    assert_eq!(rig.delayed(4, false), Some(Delayed), "with those under way");
    for n in 0..3 {
        assert_eq!(rig.delayed(5 + n, true), None);
    }
    assert_eq!(rig.delayed(9, true), Some(Delayed));
    rig.apply_all();
    assert_eq!(rig.core.machine().holdings().timers, 6);
    assert_eq!(rig.delayed(9, true), Some(Delayed));
    // What was delivered makes room.
    let fired: Vec<_> = rig.core.machine().timers().map(|(key, _)| key).collect();
    rig.step(ShardInput::Orphans(fired[..4].to_vec()));
    rig.apply_all();
    assert_eq!(rig.delayed(10, false), None);
    assert_eq!(rig.delayed(11, false), Some(Delayed));
}

#[test]
fn what_was_refused_or_lost_with_the_lead_does_not_count() {
    let mut rig = Rig::with(Quotas {
        topics: 2,
        auto_topics: 2,
        delayed: 1,
        ..Quotas::default()
    });
    assert_eq!(rig.refused(put_topic("a")), None);
    assert_eq!(rig.delayed(1, false), None);
    let mut out = Vec::new();
    rig.core.stop_serving(&mut out);
    rig.core.maybe_serve(&mut out);
    assert!(rig.core.serving().is_some());
    assert_eq!(rig.refused(put_topic("b")), None);
    assert_eq!(rig.refused(put_topic("a")), Some(Topics));
    assert_eq!(rig.delayed(1, false), None);
    assert_eq!(rig.delayed(1, false), Some(Delayed));
}

#[test]
fn memory_is_bounded_and_what_exists_goes_on() {
    let mut rig = Rig::with(Quotas::default());
    assert_eq!(rig.refused(put_group("g")), None);
    rig.apply_all();
    rig.core.options.quotas.state_bytes = rig.core.machine().holdings().bytes;
    assert_eq!(rig.refused(put_topic("a")), Some(StateBytes));
    assert_eq!(rig.refused(ensure_group("h")), Some(StateBytes));
    assert_eq!(rig.delayed(1, false), Some(StateBytes));
    for op in [put_topic("t"), ensure_topic("%RETRY%g"), put_group("g")] {
        assert_eq!(rig.refused(op), None);
    }
    assert_eq!(rig.delayed(1, true), None);
}
