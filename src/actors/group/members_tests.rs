//! Rules of members and subscriptions, one test a rule.

use super::members::*;
use super::types::*;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;

pub(super) fn sub(topic: &str, version: i64) -> Subscription {
    Subscription::tags(topic, "*", vec![], vec![], version)
}

pub(super) fn beat(conn: u64, client: &str, topics: &[&str]) -> MemberHeartbeat {
    MemberHeartbeat {
        conn: ConnId(conn),
        client_id: client.into(),
        client_addr: "127.0.0.1:5".into(),
        language: "JAVA".into(),
        version: 400,
        consume_type: ConsumeType::Passively,
        message_model: MessageModel::Clustering,
        start_from: StartFrom::LastOffset,
        unit_mode: false,
        subscriptions: topics.iter().map(|t| sub(t, 1)).collect(),
        fingerprint: 0,
        without_sub: false,
    }
}

struct Table(Members);

impl Table {
    fn beat(&mut self, beat: MemberHeartbeat) -> (HeartbeatReply, Change) {
        self.0
            .heartbeat(beat, &GroupLimits::default(), 0)
            .expect("within limits")
    }
}

const NOTIFY: Change = Change {
    publish: true,
    notify: true,
    filters: false,
};
const SUBSCRIBED: Change = Change {
    filters: true,
    ..NOTIFY
};
const PUBLISH: Change = Change {
    notify: false,
    ..NOTIFY
};
const QUIET: Change = Change {
    publish: false,
    ..PUBLISH
};

#[test]
fn a_new_member_a_topic_more_and_a_topic_less_notify_and_a_repeat_does_not() {
    let mut t = Table(Members::default());
    assert_eq!(t.beat(beat(1, "a", &["T"])).1, SUBSCRIBED);
    assert_eq!(t.beat(beat(1, "a", &["T"])).1, QUIET);
    assert_eq!(t.beat(beat(2, "b", &["T"])).1, NOTIFY);
    assert_eq!(t.beat(beat(1, "a", &["T", "U"])).1, SUBSCRIBED);
    assert_eq!(t.beat(beat(1, "a", &["U"])).1, NOTIFY);
    assert!(t.0.subscription("T").is_none());
    assert_eq!(t.0.conns(), [ConnId(1), ConnId(2)]);
}

#[test]
fn a_broadcasting_group_is_not_notified() {
    let mut t = Table(Members::default());
    let b = |conn| MemberHeartbeat {
        message_model: MessageModel::Broadcasting,
        ..beat(conn, "a", &["T"])
    };
    let first = Change {
        filters: true,
        ..PUBLISH
    };
    assert_eq!(t.beat(b(1)).1, first);
    t.beat(b(2));
    assert_eq!(t.0.conn_closed(ConnId(2)), PUBLISH);
}

#[test]
fn pulls_look_again_only_when_another_filter_is_registered() {
    let mut t = Table(Members::default());
    let with = |tags: &[&str], version| {
        let tags: Vec<String> = tags.iter().map(|t| (*t).to_owned()).collect();
        let codes = tags.iter().map(|t| i32::from(t.as_bytes()[0])).collect();
        let text = tags.join("||");
        let subscriptions = vec![Subscription::tags("T", text, tags, codes, version)];
        MemberHeartbeat {
            subscriptions,
            ..beat(1, "a", &[])
        }
    };
    let mut filters = |tags: &[&str], version| t.beat(with(tags, version)).1.filters;
    assert!(filters(&["A"], 1));
    assert!(
        !filters(&["A"], 2),
        "clients renew the version at a rebalance"
    );
    assert!(!filters(&["B"], 1), "an older one says nothing");
    assert!(filters(&["B"], 3));
    assert!(filters(&[], 4), "all pass");
    assert!(!filters(&[], 5));
    t.beat(beat(1, "a", &["U"]));
    assert!(t.beat(with(&["A"], 6)).1.filters, "subscribed anew");
}

#[test]
fn only_a_larger_sub_version_replaces_and_it_does_not_notify() {
    let mut t = Table(Members::default());
    let with = |text: &str, version| {
        let subscriptions = vec![Subscription::tags("T", text, vec![], vec![], version)];
        MemberHeartbeat {
            subscriptions,
            ..beat(1, "a", &[])
        }
    };
    t.beat(with("A", 5));
    assert_eq!(t.beat(with("B", 4)).1, QUIET);
    assert_eq!(t.beat(with("B", 5)).1, QUIET);
    assert_eq!(t.0.subscription("T").expect("subscribed").sub_string, "A");
    let replaced = Change {
        filters: true,
        ..PUBLISH
    };
    assert_eq!(t.beat(with("B", 6)).1, replaced);
    assert_eq!(t.0.subscription("T").expect("subscribed").sub_string, "B");
}

#[test]
fn a_short_heartbeat_keeps_subscriptions_and_asks_for_a_full_one_when_needed() {
    let mut t = Table(Members::default());
    let short = |conn, fingerprint| MemberHeartbeat {
        fingerprint,
        without_sub: true,
        ..beat(conn, "a", &[])
    };
    let full = |conn, fingerprint| MemberHeartbeat {
        fingerprint,
        ..beat(conn, "a", &["T"])
    };
    assert!(
        t.beat(short(1, 7)).0.sub_changed,
        "the server knows no subscriptions"
    );
    assert!(
        t.beat(short(1, 7)).0.sub_changed,
        "and a short one does not change that"
    );
    assert!(t.beat(full(1, 7)).0.sub_changed, "first full one");
    assert!(!t.beat(full(1, 7)).0.sub_changed);
    let (reply, change) = t.beat(short(1, 7));
    assert_eq!((reply.sub_changed, change), (false, QUIET));
    assert!(t.0.subscription("T").is_some());
    assert!(t.beat(short(1, 8)).0.sub_changed, "another fingerprint");
    assert!(!t.beat(beat(1, "a", &["T"])).0.sub_changed, "V1 never");
}

#[test]
fn a_short_heartbeat_refreshes_liveness() {
    let limits = GroupLimits::default();
    let mut m = Members::default();
    m.heartbeat(beat(1, "a", &["T"]), &limits, 0).expect("ok");
    m.heartbeat(beat(2, "b", &["T"]), &limits, 0).expect("ok");
    let short = MemberHeartbeat {
        fingerprint: 1,
        without_sub: true,
        ..beat(1, "a", &[])
    };
    m.heartbeat(short, &limits, 100_000).expect("ok");
    assert_eq!(m.expire(120_000), (vec![], QUIET));
    assert_eq!(m.expire(120_001), (vec![ConnId(2)], NOTIFY));
    assert_eq!(m.conns(), [ConnId(1)]);
}

#[test]
fn a_client_id_on_two_connections_is_listed_once() {
    let mut t = Table(Members::default());
    for conn in [1, 2, 3] {
        t.beat(beat(conn, if conn == 3 { "a" } else { "z" }, &["T"]));
    }
    let seen = t.0.snapshot();
    assert_eq!(seen.client_ids, ["a", "z"]);
    assert_eq!(seen.connections.len(), 3);
    t.0.conn_closed(ConnId(1));
    assert_eq!(
        t.0.snapshot().client_ids,
        ["a", "z"],
        "the new connection still counts"
    );
    t.0.conn_closed(ConnId(2));
    assert_eq!(t.0.snapshot().client_ids, ["a"]);
}

#[test]
fn leaving_needs_the_right_connection_and_id_and_the_last_one_clears_the_group() {
    let mut t = Table(Members::default());
    t.beat(beat(1, "a", &["T"]));
    t.beat(beat(2, "b", &["T"]));
    assert_eq!(t.0.unregister(ConnId(3), "a"), QUIET);
    assert_eq!(t.0.unregister(ConnId(2), "a"), QUIET);
    assert_eq!(t.0.unregister(ConnId(2), "b"), NOTIFY);
    assert_eq!(t.0.unregister(ConnId(1), "a"), PUBLISH);
    assert!(t.0.is_empty() && t.0.subscription("T").is_none());
}

#[test]
fn limits_refuse_the_whole_heartbeat() {
    let limits = GroupLimits {
        subscriptions_per_heartbeat: 2,
        expression_bytes: 8,
        client_id_bytes: 4,
        members: 1,
        ..Default::default()
    };
    let mut m = Members::default();
    let long = Subscription::tags("T", "A || B || C", vec![], vec![], 1);
    let many_tags = Subscription::tags("T", "A", vec!["aaaaa".into(), "bbbbb".into()], vec![], 1);
    for bad in [
        beat(1, "", &["T"]),
        beat(1, "abcde", &["T"]),
        beat(1, "a", &["T", "U", "V"]),
        beat(1, "a", &[""]),
        MemberHeartbeat {
            subscriptions: vec![long],
            ..beat(1, "a", &[])
        },
        MemberHeartbeat {
            subscriptions: vec![many_tags],
            ..beat(1, "a", &[])
        },
    ] {
        assert!(matches!(
            m.heartbeat(bad, &limits, 0),
            Err(Refusal::Invalid(_))
        ));
    }
    assert!(m.is_empty());
    m.heartbeat(beat(1, "a", &["T"]), &limits, 0)
        .expect("within limits");
    m.heartbeat(beat(1, "a", &["T"]), &limits, 0)
        .expect("a known one may come again");
    assert!(matches!(
        m.heartbeat(beat(2, "b", &["T"]), &limits, 0),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn a_member_whose_connection_went_with_a_node_stays_until_it_is_heard_or_time_is_up() {
    let mut t = Table(Members::default());
    t.beat(beat(1, "a", &["T"]));
    t.beat(beat(2, "b", &["T"]));
    assert_eq!(t.0.conn_lost(ConnId(1), 1_000), QUIET);
    assert_eq!(t.0.snapshot().client_ids, ["a", "b"]);
    assert!(t.0.subscription("T").is_some());
    // Heard by another connection: only that one counts.
    t.beat(beat(3, "a", &["T"]));
    assert_eq!(t.0.conns(), [ConnId(2), ConnId(3)]);
    // Lost again, and not heard any more.
    t.0.conn_lost(ConnId(3), 2_000);
    assert_eq!(t.0.expire(1_999 + LOST_MS).0, []);
    let (gone, change) = t.0.expire(2_000 + LOST_MS);
    assert_eq!((gone, change), (vec![ConnId(3)], NOTIFY));
}

#[test]
fn a_lost_connection_of_a_client_that_is_there_or_leaves_is_forgotten_at_once() {
    let mut t = Table(Members::default());
    t.beat(beat(1, "a", &["T"]));
    t.beat(beat(2, "a", &["T"]));
    t.0.conn_lost(ConnId(2), 0);
    assert_eq!(t.0.conns(), [ConnId(1)], "it is there by another one");
    t.0.conn_lost(ConnId(1), 0);
    assert_eq!(t.0.conns(), [ConnId(1)]);
    // It says goodbye by a connection that has told nothing else: nobody believes that.
    t.0.unregister(ConnId(9), "a");
    assert_eq!(t.0.conns(), [ConnId(1)]);
    let short = MemberHeartbeat {
        without_sub: true,
        ..beat(3, "b", &[])
    };
    t.beat(short);
    t.beat(beat(4, "a", &["T"]));
    t.0.conn_lost(ConnId(4), 0);
    t.beat(beat(5, "a", &["T"]));
    t.0.unregister(ConnId(5), "a");
    assert_eq!(t.0.snapshot().client_ids, ["b"]);
    assert_eq!(t.0.conn_lost(ConnId(77), 0), QUIET, "not a member");
}
