//! The text of `config/reference.toml`.

use super::keys::{Config, Scope, KEYS, OTHER_UNITS};
use std::fmt::Write;

/// Every key with its meaning and, commented out, its default.
pub fn reference_text() -> String {
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut text = String::from(
        "# Every setting of `troupe server`, at its default value.\n\
         #\n\
         # Order of precedence: this file (--config FILE), then environment variables\n\
         # (TROUPE_ and the key in upper case, e.g. TROUPE_LISTEN_PORT=10911), then flags\n\
         # (--set listen_port=10911). RocketMQ's own names may be used instead of the names here\n\
         # in all three, and its own file format (key=value lines) in files named *.conf or\n\
         # *.properties. Settings of RocketMQ that mean nothing here are noted in one line at the\n\
         # start. Unknown keys are refused.\n\
         #\n\
         # In a cluster each key says whose it is:\n\
         #   each node's own    nodes may differ\n\
         #   the leader's       keep it the same on every node: who leads a shard goes by its own.\n\
         #                      Nodes compare it when they connect; a difference does no harm to what\n\
         #                      is stored, and is a warning in the log, a line of troupe cluster show\n\
         #                      and the metric troupe_settings_differ\n\
         #   the same           nodes that differ refuse each other\n\
         #   the first start's  kept in the data directory from then on\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = write!(text, "\n# --- {section} ---\n");
        }
        text.push('\n');
        for line in key.doc {
            let _ = writeln!(text, "# {}", line.trim());
        }
        if !key.aliases.is_empty() {
            let _ = writeln!(text, "# RocketMQ: {}", key.aliases.join(", "));
        }
        for (name, _, units) in OTHER_UNITS.iter().filter(|other| other.1 == key.name) {
            let _ = writeln!(text, "# RocketMQ: {name}, of which {units} make one here");
        }
        let _ = writeln!(text, "# Cluster: {}", whose(key.scope));
        if let Some(value) = defaults.get(key.name) {
            let _ = writeln!(text, "#{} = {value}", key.name);
        }
    }
    text
}

fn whose(scope: Scope) -> &'static str {
    match scope {
        Scope::Node => "each node's own",
        Scope::Shared => "the leader's",
        Scope::Agreed => "the same",
        Scope::First => "the first start's",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn committed() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, reference_text()).unwrap();
        }
        std::fs::read_to_string(path).unwrap()
    }

    /// Set UPDATE_REFERENCE=1 to write the file from the table of keys.
    #[test]
    fn the_committed_file_is_the_table_of_keys() {
        assert_eq!(committed(), reference_text());
    }

    #[test]
    fn uncommented_reference_is_the_default_configuration() {
        let text: String = committed()
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' ') && !l.is_empty())
            .map(|l| format!("{l}\n"))
            .collect();
        let parsed: toml::Table = text.parse().unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(parsed, defaults);
        assert_eq!(parsed.len(), KEYS.len());
    }

    /// A new key must be thought about: does it decide something replicated, a lease, a membership,
    /// an order? Then it stands in one of these lists, or better in the log.
    #[test]
    fn every_key_says_whose_it_is() {
        let of = |scope| {
            let keys = KEYS.iter().filter(move |k| k.scope == scope);
            keys.map(|k| k.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            of(Scope::Agreed),
            "cluster_id cluster_secret cluster_secret_file"
        );
        assert_eq!(of(Scope::First), "peers join shards replicas");
        assert_eq!(
            of(Scope::Shared),
            "cluster_name heartbeat_interval_ms election_timeout_ms slave_read_enable \
             flush_disk_type broker_role flush_interval_ms sync_flush_timeout_ms \
             slave_timeout_ms auto_create_topic_enable auto_create_subscription_group \
             default_topic_queue_nums enable_mixed_message_type broker_permission \
             trace_topic_enable trace_topic_name enable_property_filter message_delay_level timer_max_delay_secs \
             long_polling_enable short_polling_ms max_message_size max_topics auto_create_max_topics \
             max_groups auto_create_max_groups max_delayed_messages max_group_offsets max_state_bytes \
             file_reserved_hours retention_bytes log_segment_bytes register_period_secs broker_expiry_secs"
        );
        assert_eq!(
            of(Scope::Node),
            "roles broker_name broker_ip namesrv_addr data_dir node_id shard_ports \
             peer_tls_cert_file peer_tls_key_file peer_tls_ca_file catch_up_bytes_per_second \
             snapshot_bytes_per_second bind_host allow_insecure_non_loopback listen_port \
             vip_enable namesrv_listen_port peer_listen_port http_enable http_listen_port \
             boot_id max_transfer_count max_transfer_bytes connection_topics_per_minute \
             connection_auto_topics_per_minute connection_groups_per_minute \
             connection_auto_groups_per_minute \
             connection_delayed_messages_per_minute disk_space_warning_level_ratio \
             disk_min_free_bytes direct_io block_cache_bytes memtable_bytes tail_cache_bytes \
             max_inflight_bytes huge_pages max_frame_bytes max_connections \
             max_connections_per_address max_pending_requests idle_timeout_secs \
             frame_deadline_secs write_buffer_limit_bytes gateway_threads read_threads \
             log_level log_format metrics_max_topics"
        );
        let text = reference_text();
        assert_eq!(text.matches("\n# Cluster: ").count(), KEYS.len());
    }

    #[test]
    fn every_key_is_documented_and_every_name_is_unique() {
        let mut names = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(key.doc.iter().any(|l| l.trim().len() > 10), "{}", key.name);
            for name in std::iter::once(&key.name).chain(key.aliases) {
                assert!(names.insert(*name), "{name} twice");
            }
        }
    }
}
