//! Every setting that RocketMQ knows, and files as production has them.

use super::*;
use crate::config::{BrokerRole, FlushDiskType, Status, STOCK};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The names by version.
fn names() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("vectors/config-keys.json")).unwrap();
    let all: Json = serde_json::from_str(&text).unwrap();
    let versions = all.as_object().unwrap().iter();
    let classes = versions.filter_map(|(version, classes)| Some((version, classes.as_object()?)));
    classes
        .map(|(version, classes)| {
            let names = classes.values().flat_map(|names| names.as_array().unwrap());
            let names = names.map(|name| name.as_str().unwrap().to_owned());
            (version.clone(), names.collect())
        })
        .collect()
}

fn sample(name: &str) -> Result<Loaded, ConfigError> {
    Config::load(Some(&root().join("config").join(name)), [], &[])
}

fn loaded(name: &str) -> Loaded {
    sample(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A value that the key can have.
fn plausible(name: &str) -> String {
    let key = find(name);
    match (name, key.map(|(key, _)| key.name)) {
        ("brokerId", _) => "0".into(),
        ("brokerRole", _) => "SYNC_MASTER".into(),
        (_, None) => "1".into(),
        (_, Some(key)) => {
            let defaults = serde_json::to_value(Config::default()).unwrap();
            let units = find(name).unwrap().1;
            match &defaults[key] {
                Json::Number(n) => (n.as_u64().unwrap() * units).to_string(),
                Json::String(s) => s.clone(),
                other => other.to_string(),
            }
        }
    }
}

#[test]
fn every_setting_of_every_version_is_read() {
    let names = names();
    assert!(names["4.9.8"].len() > 180 && names["5.5.0"].len() > 560);
    let all: BTreeSet<&String> = names.values().flatten().collect();
    for name in &all {
        let pair = [(name.to_string(), plausible(name))];
        let loaded = Config::load(None, [], &pair).unwrap_or_else(|e| panic!("{e}"));
        let told = loaded.notes.join("\n");
        let used = find(name).is_some();
        assert_eq!(told.contains(name.as_str()), !used, "{name}: {told}");
        assert!(told.matches(" of RocketMQ not used").count() <= 1, "{told}");
    }
    // All in one file: one line, with each of them.
    let text: String = all
        .iter()
        .filter(|name| find(name).is_none())
        .map(|name| format!("{name} = {}\n", plausible(name)))
        .collect();
    let file = tempfile::Builder::new().suffix(".conf").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = Config::load(Some(file.path()), [], &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    let lines: Vec<&String> = loaded
        .notes
        .iter()
        .filter(|line| line.contains(" of RocketMQ not used"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0];
    let words: BTreeSet<&str> = line.split([' ', ',', '(', ')', ';', '.']).collect();
    for name in all.iter().filter(|name| find(name).is_none()) {
        assert!(words.contains(name.as_str()), "{name} is not in {line}");
    }
}

#[test]
fn no_name_is_both_a_key_and_without_effect_and_none_stands_twice() {
    let mut seen = BTreeSet::new();
    let known = names();
    for group in STOCK {
        assert!(!group.why.is_empty());
        for name in group.names() {
            assert!(seen.insert(name), "{name} twice");
            assert!(find(name).is_none(), "{name} is a key");
            assert!(
                known.values().any(|v| v.contains(name)),
                "{name} is in no version"
            );
        }
    }
    assert!(STOCK.iter().any(|group| group.status == Status::NotYet));
}

#[test]
fn legacy_and_other_units_mean_the_same_thing() {
    let one = |name: &str, value: &str| {
        let pair = [(name.to_owned(), value.to_owned())];
        Config::load(None, [], &pair).map(|l| l.config)
    };
    let default = Config::default;
    assert_eq!(
        one("mapedFileSizeCommitLog", "1073741824"),
        Ok(Config {
            log_segment_bytes: 1 << 30,
            ..default()
        })
    );
    assert_eq!(
        one("registerNameServerPeriod", "10000"),
        Ok(Config {
            register_period_secs: 10,
            ..default()
        })
    );
    assert_eq!(
        one("timerMaxDelaySec", "3456000")
            .unwrap()
            .timer_max_delay_secs,
        3_456_000
    );
    assert_eq!(
        one("haListenPort", "20912").unwrap().peer_listen_port,
        20_912
    );
    assert!(
        !one("longPollingEnable", "False")
            .unwrap()
            .long_polling_enable
    );
    for (name, value, said) in [
        ("flushDiskType", "LAZY_FLUSH", "SYNC_FLUSH, ASYNC_FLUSH"),
        ("brokerRole", "MASTER", "SYNC_MASTER, ASYNC_MASTER"),
        ("brokerRole", "SLAVE", "SYNC_MASTER or ASYNC_MASTER"),
        ("brokerPermission", "7", "2 (write), 4 (read) or 6 (both)"),
        ("autoCreateTopicEnable", "yes", "true or false"),
        ("fileReservedTime", "0", "between 1 and 876000"),
        ("registerNameServerPeriod", "90000", "between 1 and 60"),
        (
            "fileReservedTime",
            "48 # hours",
            "a comment needs a line of its own",
        ),
        ("brokerId", "1", "only be 0"),
        ("brokerId", "x", "whole number"),
    ] {
        let text = one(name, value).unwrap_err().to_string();
        assert!(text.contains(said), "{name} = {value}: {text}");
    }
    let both = [
        ("mapedFileSizeCommitLog", "2097152"),
        ("mappedFileSizeCommitLog", "2097152"),
    ];
    let both = both.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(
        Config::load(None, [], &both)
            .unwrap()
            .config
            .log_segment_bytes,
        2 << 20
    );
    for (wrong, near) in [
        ("sendMessageThreadPoolNum", "sendMessageThreadPoolNums"),
        ("brokerid", "brokerId"),
        ("dledgerPeers", "dLegerPeers"),
    ] {
        let text = one(wrong, "1").unwrap_err().to_string();
        assert!(text.contains(&format!("did you mean {near}?")), "{text}");
    }
}

#[test]
fn a_single_broker_of_4_x() {
    let Loaded { config, notes } = loaded("single-4.x.conf");
    assert_eq!(config.cluster_name, "rocketmq-cluster");
    assert_eq!(
        (config.file_reserved_hours, config.max_message_size),
        (120, 65_536)
    );
    assert_eq!(config.log_segment_bytes, 1 << 30);
    assert_eq!(config.disk_space_warning_level_ratio, 90);
    assert_eq!(config.flush_disk_type, FlushDiskType::AsyncFlush);
    assert_eq!(notes.len(), 1, "{notes:?}");
    for part in [
        "deleteWhen",
        "abortFile",
        "not built yet: checkTransactionMessageEnable (transactions)",
    ] {
        assert!(notes[0].contains(part), "{part}: {notes:?}");
    }
}

#[test]
fn a_single_broker_of_5_x() {
    let Loaded { config, notes } = loaded("single-5.x.conf");
    assert_eq!(config.timer_max_delay_secs, 3_456_000);
    assert_eq!(config.http_listen_port, 5_557);
    assert!(config.slave_read_enable && config.trace_topic_enable);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("enablePropertyFilter (SQL92 filters)"),
        "{notes:?}"
    );
}

#[test]
fn masters_start_and_slaves_say_what_to_do() {
    let Loaded { config, notes } = loaded("2m-2s-sync-master.properties");
    assert_eq!(config.broker_role, BrokerRole::SyncMaster);
    assert_eq!(
        (config.file_reserved_hours, config.peer_listen_port),
        (72, 10_912)
    );
    assert!(notes[0].contains("fileReservedTime stand in"), "{notes:?}");
    assert!(notes[1].contains("deleteWhen"), "{notes:?}");
    let text = sample("2m-2s-sync-slave.properties")
        .unwrap_err()
        .to_string();
    assert!(text.contains("SLAVE") && text.contains("peers"), "{text}");
    // As the only broker, said in so many words.
    let path = root().join("config/2m-2s-sync-slave.properties");
    let sets = [("brokerRole", "SYNC_MASTER"), ("brokerId", "0")];
    let sets = sets.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert!(Config::load(Some(&path), [], &sets).is_ok());
}

#[test]
fn files_of_replicated_brokers_start_one_node_and_say_so() {
    for name in ["dledger.conf", "controller.conf"] {
        let Loaded { config, notes } = loaded(name);
        assert_eq!(config.listen_port, 30_911);
        let alone = notes
            .iter()
            .any(|n| n.contains("runs ALONE") && n.contains("peers"));
        assert!(alone && notes.len() == 2, "{notes:?}");
    }
    let text = loaded("controller.conf").notes.join("\n");
    assert!(
        text.contains("brokerRole=SLAVE") && text.contains("brokerId"),
        "{text}"
    );
}

#[test]
fn a_name_servers_port_is_its_own() {
    let path = root().join("config/namesrv.conf");
    let text = Config::load(Some(&path), [], &[]).map(|_| ()).unwrap_err();
    assert!(text.to_string().contains("roles=registry"), "{text}");
    let sets = [("roles", "registry"), ("listenPort", "19876")];
    let sets = sets.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loaded = Config::load(Some(&path), [], &sets).unwrap();
    assert_eq!(loaded.config.namesrv_listen_port, 19_876);
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
}

#[test]
fn what_promises_safety_is_warned_of() {
    let notes = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Config::load(None, [], &pairs).unwrap().notes.join("\n")
    };
    assert!(notes(&[("aclEnable", "true")]).contains("nothing authenticates clients"));
    assert!(notes(&[("authenticationEnabled", "true")]).contains("nothing authenticates"));
    assert!(!notes(&[("aclEnable", "false")]).contains("nothing authenticates clients"));
    assert!(notes(&[("brokerIP1", "10.0.0.1")]).contains("set bind_host"));
    assert_eq!(notes(&[("brokerIP1", "127.0.0.1")]), "");
    assert!(notes(&[("fetchNamesrvAddrByAddressServer", "true")]).contains("namesrv_addr"));
}
