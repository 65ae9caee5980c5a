//! Rules of the name server, one test a rule (remoting-admin §6.1, §8).

use super::core::*;
use super::kv::KvTable;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::routing::{AdvertisedAddr, BrokerRegistration, DataVersion, QueueData, RouteTopic};

fn topic(name: &str, queues: u32, perm: u32) -> RouteTopic {
    RouteTopic {
        name: name.into(),
        read_queues: queues,
        write_queues: queues,
        perm,
        sys_flag: 0,
        order: false,
    }
}

fn version(counter: i64) -> DataVersion {
    DataVersion {
        state_version: 0,
        timestamp: 1,
        counter,
    }
}

fn broker(name: &str, id: i64, addr: &str) -> BrokerRegistration {
    BrokerRegistration {
        cluster: "C".into(),
        broker_name: name.into(),
        broker_id: id,
        addr: addr.into(),
        ha_addr: format!("ha-{addr}"),
        zone: None,
        enable_acting_master: false,
        heartbeat_timeout_ms: None,
        data_version: version(1),
        topics: Some(vec![topic("T", 8, 6), topic("U", 4, 6)]),
        filter_servers: vec![],
        term: None,
        troupe: false,
    }
}

fn with(reg: BrokerRegistration, counter: i64, topics: Vec<RouteTopic>) -> BrokerRegistration {
    BrokerRegistration {
        data_version: version(counter),
        topics: Some(topics),
        ..reg
    }
}

fn registered(regs: Vec<BrokerRegistration>) -> RegistryCore {
    let mut core = RegistryCore::default();
    for reg in regs {
        core.register(reg, None, 0).expect("registered");
    }
    core
}

fn queues(core: &RegistryCore, topic: &str) -> Vec<(String, u32, u32)> {
    let route = core.route(topic).unwrap_or_default();
    route
        .queues
        .into_iter()
        .map(|q| (q.broker_name, q.write_queues, q.perm))
        .collect()
}

fn addrs(core: &RegistryCore, name: &str) -> Vec<(i64, AdvertisedAddr)> {
    core.broker_members("C", name).addrs.into_iter().collect()
}

#[test]
fn routes_are_sorted_by_broker_and_complete() {
    let core = registered(vec![
        broker("b", 0, "b0"),
        broker("a", 0, "a0"),
        broker("a", 1, "a1"),
    ]);
    let route = core.route("T").expect("known");
    let names: Vec<_> = route
        .brokers
        .iter()
        .map(|b| (b.broker_name.as_str(), b.addrs.len()))
        .collect();
    assert_eq!(names, [("a", 2), ("b", 1)]);
    assert_eq!(queues(&core, "T"), [("a".into(), 8, 6), ("b".into(), 8, 6)]);
    assert_eq!(core.route("nothing"), None);
    let info = core.cluster_info();
    assert_eq!(
        info.clusters["C"]
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(core.topic_names(), ["T", "U"]);
    assert_eq!(core.topics_of_cluster("C"), ["T", "U"]);
    assert!(core.topics_of_cluster("D").is_empty());
    assert_eq!(
        core.system_topics(),
        (vec!["C".into(), "a".into(), "b".into()], Some("a0".into()))
    );
}

#[test]
fn a_slave_learns_its_master_and_brings_no_queues() {
    let mut core = registered(vec![]);
    let alone = core
        .register(with(broker("a", 1, "a1"), 1, vec![]), None, 0)
        .expect("registered");
    assert_eq!((alone.ha_addr, alone.master_addr), (None, None));
    assert_eq!(core.route("T"), None);
    let master = core
        .register(broker("a", 0, "a0"), None, 0)
        .expect("registered");
    assert_eq!(master.master_addr, None);
    let told = core
        .register(broker("a", 1, "a1"), None, 0)
        .expect("registered");
    assert_eq!(
        (told.ha_addr.as_deref(), told.master_addr),
        (Some("ha-a0"), Some("a0".into()))
    );
}

#[test]
fn the_same_address_under_another_id_moves() {
    let mut core = registered(vec![broker("a", 0, "x"), broker("a", 1, "y")]);
    core.register(broker("a", 0, "y"), None, 0)
        .expect("registered");
    assert_eq!(addrs(&core, "a"), [(0, "y".into())]);
}

#[test]
fn topics_are_taken_when_the_version_changed_and_missing_ones_always() {
    let mut core = registered(vec![broker("a", 0, "a0")]);
    let same = with(
        broker("a", 0, "a0"),
        1,
        vec![topic("T", 16, 6), topic("V", 2, 6)],
    );
    core.register(same, None, 0).expect("registered");
    assert_eq!(
        queues(&core, "T"),
        [("a".into(), 8, 6)],
        "the version did not change"
    );
    assert_eq!(
        queues(&core, "V"),
        [("a".into(), 2, 6)],
        "the table lacked it"
    );
    core.register(
        with(broker("a", 0, "a0"), 2, vec![topic("T", 16, 6)]),
        None,
        0,
    )
    .expect("a single change");
    assert_eq!(queues(&core, "T"), [("a".into(), 16, 6)]);
    assert_eq!(
        queues(&core, "U"),
        [("a".into(), 4, 6)],
        "a stock broker may send one change only"
    );
    let no_body = BrokerRegistration {
        topics: None,
        data_version: DataVersion::default(),
        ..broker("a", 0, "a0")
    };
    core.register(no_body, None, 0).expect("registered");
    assert_eq!(queues(&core, "T").len(), 1);
}

#[test]
fn a_troupe_broker_sends_its_whole_table() {
    let ours = |counter, topics| BrokerRegistration {
        troupe: true,
        ..with(broker("a", 0, "a0"), counter, topics)
    };
    let mut core = registered(vec![
        ours(1, vec![topic("T", 8, 6), topic("U", 8, 6)]),
        broker("b", 0, "b0"),
    ]);
    core.register(ours(2, vec![topic("U", 8, 6)]), None, 0)
        .expect("registered");
    assert_eq!(queues(&core, "T"), [("b".into(), 8, 6)]);
    assert_eq!(queues(&core, "U").len(), 2);
}

#[test]
fn a_single_topic_from_a_stranger_is_refused() {
    let mut core = RegistryCore::default();
    let single = with(broker("a", 0, "a0"), 1, vec![topic("T", 8, 6)]);
    assert_eq!(
        core.register(single, None, 0),
        Err(Refusal::Invalid("register broker failed".into()))
    );
    assert!(core.cluster_info().brokers.is_empty());
}

#[test]
fn an_older_state_or_term_never_replaces_a_newer() {
    let state = |addr, state_version| {
        let data_version = DataVersion {
            state_version,
            ..version(1)
        };
        BrokerRegistration {
            data_version,
            ..broker("a", 0, addr)
        }
    };
    let mut core = registered(vec![state("x", 5)]);
    core.register(state("y", 4), None, 0)
        .expect("answered, without effect");
    assert_eq!(addrs(&core, "a"), [(0, "x".into())]);
    core.register(state("y", 5), None, 0).expect("registered");
    assert_eq!(addrs(&core, "a"), [(0, "y".into())]);

    let term = |id, addr, term| BrokerRegistration {
        term: Some(term),
        ..broker("t", id, addr)
    };
    let mut core = registered(vec![term(0, "x", 3)]);
    core.register(term(0, "y", 4), None, 0).expect("registered");
    core.register(term(1, "x", 4), None, 0).expect("registered");
    core.register(term(0, "x", 3), None, 0)
        .expect("answered, without effect");
    core.register(broker("t", 0, "x"), None, 0)
        .expect("answered: no term is older than any");
    assert_eq!(addrs(&core, "t"), [(0, "y".into()), (1, "x".into())]);
}

#[test]
fn silence_drops_a_broker_after_its_timeout() {
    let short = BrokerRegistration {
        heartbeat_timeout_ms: Some(10_000),
        ..broker("s", 0, "s0")
    };
    let mut core = registered(vec![broker("a", 0, "a0"), broker("b", 0, "b0"), short]);
    assert!(core.expire(10_000).is_empty());
    assert_eq!(core.expire(10_001), [("s".to_owned(), 0)]);
    core.heartbeat("C", "a", &"a0".into(), 60_000);
    core.heartbeat("C", "b", &"other".into(), 60_000);
    assert_eq!(core.expire(120_001), [("b".to_owned(), 0)]);
    assert_eq!(queues(&core, "T"), [("a".into(), 8, 6)]);
    let (changed, known) = core.query_data_version("C", "a", &"a0".into(), version(1), 170_000);
    assert_eq!((changed, known), (false, Some(version(1))));
    assert!(
        core.query_data_version("C", "a", &"a0".into(), version(2), 170_000)
            .0
    );
    assert_eq!(
        core.query_data_version("C", "zz", &"a0".into(), version(2), 170_000),
        (true, None)
    );
    assert!(
        core.expire(290_000).is_empty(),
        "the query counted as a heartbeat"
    );
    assert_eq!(core.expire(290_001).len(), 1);
    assert!(core.topic_names().is_empty() && core.cluster_info().clusters.is_empty());
}

#[test]
fn a_closed_connection_drops_what_it_registered_and_only_that() {
    let mut core = RegistryCore::default();
    core.register(broker("a", 0, "a0"), Some(ConnId(1)), 0)
        .expect("registered");
    core.register(broker("b", 0, "b0"), Some(ConnId(1)), 0)
        .expect("registered");
    core.register(broker("b", 0, "b0"), Some(ConnId(2)), 0)
        .expect("it connected again");
    core.register(broker("in-process", 0, "c0"), None, 0)
        .expect("registered");
    core.conn_closed(ConnId(9));
    core.conn_closed(ConnId(1));
    assert_eq!(
        core.cluster_info().brokers.keys().collect::<Vec<_>>(),
        ["b", "in-process"]
    );
    core.conn_closed(ConnId(2));
    assert_eq!(core.cluster_info().brokers.len(), 1);
}

#[test]
fn unregistering_needs_the_registered_address() {
    let mut core = registered(vec![broker("a", 0, "a0"), broker("a", 1, "a1")]);
    core.unregister("C", "a", 0, &"old".into());
    core.unregister("D", "a", 0, &"a0".into());
    assert_eq!(addrs(&core, "a").len(), 2);
    core.unregister("C", "a", 0, &"a0".into());
    assert_eq!(addrs(&core, "a"), [(1, "a1".into())]);
    assert!(core.route("T").is_some(), "slaves still serve reads");
    core.unregister("C", "a", 1, &"a1".into());
    assert_eq!(core.route("T"), None);
}

#[test]
fn an_acting_master_takes_no_writes() {
    let acting = |id, addr| BrokerRegistration {
        enable_acting_master: true,
        ..broker("a", id, addr)
    };
    let mut core = registered(vec![acting(0, "a0"), acting(1, "a1")]);
    core.unregister("C", "a", 0, &"a0".into());
    assert_eq!(queues(&core, "T"), [("a".into(), 8, 4)]);
    let more = with(acting(1, "a1"), 2, vec![topic("T", 8, 6), topic("V", 8, 6)]);
    core.register(more, None, 0).expect("registered");
    assert_eq!(queues(&core, "V"), [("a".into(), 8, 4)]);
}

#[test]
fn write_permission_is_wiped_and_added() {
    let reg = with(
        broker("a", 0, "a0"),
        1,
        vec![topic("T", 8, 6), topic("I", 8, 7)],
    );
    let mut core = registered(vec![reg, broker("b", 0, "b0")]);
    assert_eq!(core.wipe_write_perm("a"), 2);
    assert_eq!(queues(&core, "T"), [("a".into(), 8, 4), ("b".into(), 8, 6)]);
    assert_eq!(queues(&core, "I"), [("a".into(), 8, 5)]);
    assert_eq!(core.add_write_perm("a"), 2);
    assert_eq!(queues(&core, "I"), [("a".into(), 8, 6)]);
    assert_eq!(core.wipe_write_perm("nobody"), 0);
}

#[test]
fn topics_are_deleted_everywhere_or_in_a_cluster() {
    let other = BrokerRegistration {
        cluster: "D".into(),
        ..broker("b", 0, "b0")
    };
    let mut core = registered(vec![broker("a", 0, "a0"), other]);
    core.delete_topic("T", Some("D"));
    assert_eq!(queues(&core, "T"), [("a".into(), 8, 6)]);
    core.delete_topic("T", None);
    core.delete_topic("T", None);
    assert_eq!(core.route("T"), None);
    assert_eq!(core.topics_of_cluster("C"), ["U"]);
}

#[test]
fn a_registered_topic_needs_live_brokers() {
    let mut core = registered(vec![broker("a", 0, "a0")]);
    let data = |name: &str| QueueData {
        broker_name: name.into(),
        read_queues: 3,
        write_queues: 3,
        perm: 6,
        sys_flag: 0,
    };
    core.register_topic("N", vec![data("a"), data("ghost")])
        .expect("registered");
    assert_eq!(queues(&core, "N"), [("a".into(), 3, 6)]);
    core.register_topic("G", vec![data("ghost")])
        .expect("registered");
    assert!(!core.topic_names().contains(&"G".to_owned()));
    assert!(core.register_topic("a b", vec![data("a")]).is_err());
}

#[test]
fn retry_routes_are_answered_before_the_topic_exists_on_our_brokers_only() {
    let ours = |name: &str, addr| BrokerRegistration {
        troupe: true,
        ..broker(name, 0, addr)
    };
    let mut core = registered(vec![broker("stock", 0, "s0")]);
    assert_eq!(core.route("%RETRY%g"), None);
    core.register(ours("a", "a0"), None, 0).expect("registered");
    core.register(ours("b", "b0"), None, 0).expect("registered");
    assert_eq!(
        queues(&core, "%RETRY%g"),
        [("a".into(), 1, 6), ("b".into(), 1, 6)]
    );
    assert_eq!(core.route("%RETRY%"), None);
    assert_eq!(core.route("%RETRY%not a group"), None);
    let known = BrokerRegistration {
        troupe: true,
        ..with(
            broker("a", 0, "a0"),
            2,
            vec![topic("%RETRY%g", 2, 6), topic("T", 1, 6)],
        )
    };
    core.register(known, None, 0).expect("registered");
    assert_eq!(
        queues(&core, "%RETRY%g"),
        [("a".into(), 2, 6)],
        "what is registered counts"
    );
}

#[test]
fn unit_lists_follow_the_flags() {
    let flagged = |name: &str, sys_flag| RouteTopic {
        sys_flag,
        ..topic(name, 1, 6)
    };
    let topics = (0..4)
        .map(|flag| flagged(&format!("t{flag}"), flag))
        .collect();
    let core = registered(vec![with(broker("a", 0, "a0"), 1, topics)]);
    assert_eq!(core.unit_topics(), ["t1", "t3"]);
    assert_eq!(core.unit_sub_topics(), ["t2", "t3"]);
    assert_eq!(core.unit_sub_ununit_topics(), ["t2"]);
}

#[test]
fn order_configuration_comes_with_registrations_and_if_switched_on_with_routes() {
    let kv = KvTable::default()
        .with(ORDER_CONF.into(), "T".into(), "a:4".into())
        .expect("within limits");
    for (on, expected) in [(false, None), (true, Some("a:4".to_owned()))] {
        let mut core = RegistryCore::new(kv.clone(), RegistryLimits::default(), on);
        let reply = core
            .register(broker("a", 0, "a0"), None, 0)
            .expect("registered");
        assert_eq!(reply.order_conf["T"], "a:4");
        assert_eq!(core.route("T").expect("known").order_conf, expected);
    }
}

#[test]
fn strangers_cannot_fill_the_tables() {
    let limits = RegistryLimits {
        brokers: 2,
        members: 2,
        topics: 3,
        filter_servers: 1,
    };
    let mut core = RegistryCore::new(KvTable::default(), limits, false);
    core.register(broker("a", 0, "a0"), None, 0)
        .expect("registered");
    core.register(broker("a", 1, "a1"), None, 0)
        .expect("registered");
    core.register(broker("b", 0, "b0"), None, 0)
        .expect("registered");
    let before = format!("{core:?}");
    let good = || broker("a", 0, "a0");
    for bad in [
        broker("c", 0, "c0"),
        broker("a", 2, "a2"),
        broker("a", -1, "a2"),
        broker("", 0, "x"),
        broker(&"n".repeat(256), 0, "x"),
        broker("a\n", 0, "x"),
        broker("a", 0, ""),
        BrokerRegistration {
            cluster: "D".into(),
            ..good()
        },
        BrokerRegistration {
            cluster: String::new(),
            ..good()
        },
        BrokerRegistration {
            filter_servers: vec!["f".into(), "g".into()],
            ..good()
        },
        with(good(), 2, vec![topic("V", 1, 6), topic("W", 1, 6)]),
        with(good(), 2, vec![topic("", 1, 6), topic("T", 1, 6)]),
    ] {
        assert!(
            matches!(
                core.register(bad.clone(), None, 0),
                Err(Refusal::Invalid(_))
            ),
            "{bad:?}"
        );
        assert_eq!(format!("{core:?}"), before, "{bad:?}");
    }
}

#[test]
fn ten_thousand_topics_register_again_and_again() {
    let topics: Vec<_> = (0..10_000).map(|n| topic(&format!("t{n}"), 8, 6)).collect();
    let mut core = RegistryCore::default();
    for counter in 0..20 {
        for name in ["a", "b", "c"] {
            core.register(
                with(broker(name, 0, name), counter, topics.clone()),
                None,
                0,
            )
            .expect("registered");
        }
    }
    assert_eq!(core.topic_names().len(), 10_000);
    assert_eq!(queues(&core, "t9999").len(), 3);
}
