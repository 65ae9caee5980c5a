use super::super::{BrokerRole, FlushDiskType, Roles};
use super::*;
use std::io::Write;

fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

fn set(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Config::load(None, [], &flags(pairs))
}

fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut f = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    f.write_all(text.as_bytes()).unwrap();
    f
}

fn refusal(result: Result<Loaded, ConfigError>) -> String {
    let text = result.map(|l| l.config).unwrap_err().to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = Config::load(None, [], &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.notes.is_empty());
    let c = loaded.config;
    assert_eq!(
        (c.listen_port, c.vip_port(), c.namesrv_listen_port),
        (10911, Some(10909), 9876)
    );
    assert_eq!(c.roles, Roles::ALL);
    assert_eq!(c.connections_per_address(), 20_000);
    let d = c.delay_levels_ms();
    assert_eq!((d.len(), d[0], d[17]), (18, 1_000, 7_200_000));
}

#[test]
fn file_then_environment_then_flags() {
    let f = file(
        ".toml",
        "listen_port = 1111\nnamesrvListenPort = 2222\nbroker_name = \"x\"\n",
    );
    let env = [
        ("TROUPE_LISTEN_PORT".to_string(), "3333".to_string()),
        ("TROUPE_BROKER_NAME".to_string(), "y".to_string()),
        ("LISTEN_PORT".to_string(), "9".to_string()),
    ];
    let c = Config::load(Some(f.path()), env, &flags(&[("brokerName", "z")]))
        .unwrap()
        .config;
    assert_eq!(
        (c.namesrv_listen_port, c.listen_port, c.broker_name.as_str()),
        (2222, 3333, "z")
    );
}

#[test]
fn rocketmq_names_mean_the_same_thing() {
    let c = set(&[
        ("flushDiskType", "ASYNC_FLUSH"),
        ("brokerRole", "async_master"),
        ("brokerClusterName", "C"),
        ("brokerIP1", "10.0.0.1"),
        ("fileReservedTime", "48"),
        ("autoCreateTopicEnable", "false"),
        ("maxMessageSize", "65536"),
        ("namesrvAddr", "a:9876;b:9877"),
        ("storePathRootDir", "/x"),
        ("messageDelayLevel", "1s 2d"),
    ])
    .unwrap()
    .config;
    assert_eq!(c.flush_disk_type, FlushDiskType::AsyncFlush);
    assert_eq!(c.broker_role, BrokerRole::AsyncMaster);
    assert_eq!(
        (c.cluster_name.as_str(), c.broker_ip.as_str()),
        ("C", "10.0.0.1")
    );
    assert_eq!((c.file_reserved_hours, c.max_message_size), (48, 65536));
    assert!(!c.auto_create_topic_enable);
    assert_eq!(c.namesrv_addrs(), ["a:9876", "b:9877"]);
    assert_eq!(
        (c.data_dir.as_str(), c.delay_levels_ms()),
        ("/x", vec![1_000, 172_800_000])
    );
}

#[test]
fn rocketmq_configuration_file_is_read() {
    let f = file(
        ".conf",
        "# comment\nbrokerClusterName = Prod\nbrokerName=b-1\nbrokerId = 0\ndeleteWhen = 04\n\
         fileReservedTime = 48\nbrokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n",
    );
    let loaded = Config::load(Some(f.path()), [], &[]).unwrap();
    assert_eq!(loaded.config.cluster_name, "Prod");
    assert_eq!(loaded.config.broker_role, BrokerRole::AsyncMaster);
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
    assert!(loaded.notes[0].contains("deleteWhen") && loaded.notes[0].contains("brokerId"));
    let slave = file(".conf", "brokerId = 1\n");
    assert!(refusal(Config::load(Some(slave.path()), [], &[])).contains("brokerId"));
    let empty = file(".conf", "brokerName\n");
    assert!(refusal(Config::load(Some(empty.path()), [], &[])).contains("broker_name"));
    let junk = file(".conf", "brokerName=\\u12\n");
    assert!(refusal(Config::load(Some(junk.path()), [], &[])).contains("line 1"));
}

#[test]
fn unknown_keys_name_the_nearest_in_both_spellings() {
    for given in [
        "flushDiskTyp",
        "flush_disk_typ",
        "flushdisktype",
        "flush-disk-type",
    ] {
        let text = refusal(set(&[(given, "ASYNC_FLUSH")]));
        assert!(text.contains(given), "{text}");
        assert!(
            text.contains("did you mean flush_disk_type (RocketMQ: flushDiskType)?"),
            "{text}"
        );
    }
    let text = refusal(set(&[("zzzzqqqq", "1")]));
    assert!(text.contains("reference.toml"), "{text}");
    let f = file(".toml", "[broker]\nlisten_port = 1\n");
    assert!(refusal(Config::load(Some(f.path()), [], &[])).contains("unknown key \"broker\""));
    let env = [("TROUPE_LISTEN_PROT".to_string(), "1".to_string())];
    let text = refusal(Config::load(None, env, &[]));
    assert!(
        text.contains("listen_port (RocketMQ: listenPort)"),
        "{text}"
    );
    let text = refusal(set(&[("evil\n\u{1b}[31m", "1")]));
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn variables_that_container_platforms_set_are_not_ours() {
    let env = [
        "TROUPE_SERVICE_HOST",
        "TROUPE_SERVICE_PORT",
        "TROUPE_PORT",
        "TROUPE_PORT_9876_TCP",
    ]
    .map(|k| (k.to_string(), "tcp://10.0.0.1:9876".to_string()));
    assert_eq!(
        Config::load(None, env, &[]).unwrap().config,
        Config::default()
    );
}

#[test]
fn one_key_in_two_spellings_is_refused() {
    let f = file(".toml", "listen_port = 1111\nlistenPort = 2222\n");
    let text = refusal(Config::load(Some(f.path()), [], &[]));
    assert!(
        text.contains("listen_port") && text.contains("listenPort"),
        "{text}"
    );
    let text = refusal(set(&[("listen_port", "1111"), ("listen_port", "1112")]));
    assert!(text.contains("twice"), "{text}");
}

#[test]
fn wrong_types_are_refused_with_the_key() {
    for (key, value) in [
        ("listen_port", "abc"),
        ("listen_port", "-1"),
        ("listen_port", "70000"),
        ("listen_port", "1.5"),
        ("listen_port", "true"),
        ("listen_port", ""),
        ("retention_bytes", "18446744073709551616"),
        ("autoCreateTopicEnable", "1"),
        ("flush_disk_type", "NEVER"),
        ("broker_role", "SLAVE"),
        ("roles", "controller"),
        ("log_format", "xml"),
    ] {
        let text = refusal(set(&[(key, value)]));
        assert!(text.contains(key), "{key}={value}: {text}");
    }
    for text in [
        "listen_port = true",
        "listen_port = 1.5",
        "vip_enable = 1",
        "broker_name = 5",
    ] {
        let f = file(".toml", text);
        let refused = refusal(Config::load(Some(f.path()), [], &[]));
        assert!(
            refused.contains(text.split(' ').next().unwrap()),
            "{text}: {refused}"
        );
    }
}

#[test]
fn broken_and_missing_files_are_one_clear_line() {
    let f = file(".toml", "a = 1\nlisten_port = = 3\n");
    let text = refusal(Config::load(Some(f.path()), [], &[]));
    assert!(
        text.contains("line 2") && text.contains(f.path().to_str().unwrap()),
        "{text}"
    );
    let text = refusal(Config::load(
        Some(Path::new("/nonexistent/x.toml")),
        [],
        &[],
    ));
    assert!(text.contains("cannot read /nonexistent/x.toml"), "{text}");
}

#[test]
fn name_servers_may_be_a_list() {
    let f = file(".toml", "namesrv_addr = [\"a:1\", \"b:2\"]\n");
    let c = Config::load(Some(f.path()), [], &[]).unwrap().config;
    assert_eq!(c.namesrv_addrs(), ["a:1", "b:2"]);
}
