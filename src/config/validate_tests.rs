use super::super::Roles;
use super::*;

fn refused(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    change(&mut config);
    let text = config.validate().unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn accepted(change: impl FnOnce(&mut Config)) {
    let mut config = Config::default();
    change(&mut config);
    config.validate().unwrap();
}

#[test]
fn defaults_are_valid() {
    Config::default().validate().unwrap();
}

#[test]
fn limits_are_named_with_the_key() {
    assert!(
        refused(|c| c.max_message_size = 16 << 20).starts_with("configuration: max_message_size")
    );
    assert!(refused(|c| c.max_message_size = 0).contains("max_message_size"));
    assert!(refused(|c| c.max_frame_bytes = 4 << 20).contains("max_frame_bytes"));
    assert!(refused(|c| c.max_frame_bytes = (16 << 20) + 1).contains("max_frame_bytes"));
    assert!(refused(|c| c.max_inflight_bytes = 1).contains("max_inflight_bytes"));
    assert!(refused(|c| c.broker_expiry_secs = 30).contains("broker_expiry_secs"));
    assert!(refused(|c| c.broker_permission = 7).contains("broker_permission"));
    assert!(refused(|c| c.default_topic_queue_nums = 0).contains("default_topic_queue_nums"));
    assert!(refused(|c| c.disk_space_warning_level_ratio = 100)
        .contains("disk_space_warning_level_ratio"));
    assert!(refused(|c| c.register_period_secs = 61).contains("register_period_secs"));
    assert!(refused(|c| c.log_level = "loud".into()).contains("log_level"));
    accepted(|c| c.log_level = "info,troupemq::raft=debug".into());
    accepted(|c| c.max_message_size = 1_024);
}

#[test]
fn names_and_addresses() {
    for bad in ["", "../x", "a b", "a\n", "ä", &"x".repeat(128)] {
        assert!(refused(|c| c.broker_name = bad.into()).contains("broker_name"));
        assert!(refused(|c| c.cluster_name = bad.into()).contains("cluster_name"));
    }
    accepted(|c| c.broker_name = "x".repeat(127));
    assert!(refused(|c| c.broker_ip = "localhost".into()).contains("broker_ip"));
    assert!(refused(|c| c.broker_ip = "0.0.0.0".into()).contains("broker_ip"));
    accepted(|c| c.broker_ip = "2001:db8::1".into());
    for bad in ["host", "host:", ":9876", "host:0", "host:70000", "a:1;b"] {
        assert!(
            refused(|c| c.namesrv_addr = bad.into()).contains("namesrv_addr"),
            "{bad}"
        );
    }
    accepted(|c| c.namesrv_addr = "a:1; b:2".into());
    let broker = Roles {
        registry: false,
        broker: true,
    };
    assert!(refused(|c| c.roles = broker).contains("namesrv_addr is needed"));
    accepted(|c| {
        c.roles = broker;
        c.namesrv_addr = "a:9876".into();
    });
}

#[test]
fn only_loopback_without_the_explicit_flag() {
    for host in ["0.0.0.0", "192.0.2.1", "::"] {
        assert!(refused(|c| c.bind_host = host.into()).contains("allow_insecure_non_loopback"));
        accepted(|c| {
            c.bind_host = host.into();
            c.allow_insecure_non_loopback = true;
            assert_eq!(c.connections_per_address(), 1_000);
        });
    }
    for host in ["127.0.0.2", "::1", "localhost"] {
        accepted(|c| c.bind_host = host.into());
    }
    let text = refused(|c| {
        c.bind_host = "broker.example".into();
        c.allow_insecure_non_loopback = true;
    });
    assert!(text.contains("bind_host"), "{text}");
}

#[test]
fn ports_must_differ() {
    assert!(refused(|c| c.namesrv_listen_port = 10911).contains("both 10911"));
    assert!(refused(|c| c.namesrv_listen_port = 10909).contains("both 10909"));
    assert!(refused(|c| c.http_listen_port = 9876).contains("both 9876"));
    assert!(refused(|c| c.listen_port = 2).contains("vip_enable"));
    accepted(|c| {
        c.listen_port = 0;
        c.namesrv_listen_port = 0;
        c.http_listen_port = 0;
    });
    accepted(|c| {
        c.http_listen_port = 9876;
        c.http_enable = false;
    });
    accepted(|c| {
        c.vip_enable = false;
        c.namesrv_listen_port = 10909;
    });
}

#[test]
fn delay_levels() {
    for bad in [
        "",
        "1",
        "s",
        "1x",
        "-1s",
        "1.5s",
        "5000000000s",
        "1s,5s",
        "1ß",
    ] {
        assert!(
            refused(|c| c.message_delay_level = bad.into()).contains("message_delay_level"),
            "{bad}"
        );
    }
    assert!(refused(|c| c.message_delay_level = "1s ".repeat(65)).contains("1 to 64"));
    assert_eq!(
        parse_delay_levels("1s 2m 3h 4d"),
        Ok(vec![1_000, 120_000, 10_800_000, 345_600_000])
    );
}
