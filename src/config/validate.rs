//! Limits of the values and rules between them.

use super::load::ConfigError;
use super::{split_addrs, Config};
use std::net::IpAddr;

/// The largest `max_message_size`, bytes: no stored message has a larger body.
pub const MAX_MESSAGE_SIZE: u64 = 8 << 20;

/// What a frame carries beside the body: header, properties (at most 32,767 bytes), names.
const FRAME_OVERHEAD: u64 = 65_536;

impl Config {
    /// Checks every limit that `config/reference.toml` names.
    ///
    /// # Errors
    /// One line naming the key, its value and the limit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_names()
            .and_then(|()| self.validate_numbers())
            .map_err(ConfigError)
    }

    fn validate_names(&self) -> Result<(), String> {
        name("cluster_name", &self.cluster_name)?;
        name("broker_name", &self.broker_name)?;
        if !(self.roles.registry || self.roles.broker) {
            return Err("roles: at least one of registry and broker is needed".into());
        }
        name("trace_topic_name", &self.trace_topic_name)?;
        if self.data_dir.is_empty() || self.data_dir.contains('\0') {
            return Err("data_dir must name a directory".into());
        }
        if !self.broker_ip.is_empty() {
            let ip: IpAddr = self
                .broker_ip
                .parse()
                .map_err(|_| bad("broker_ip", &self.broker_ip, "is not an IP address"))?;
            if ip.is_unspecified() {
                return Err(bad(
                    "broker_ip",
                    &self.broker_ip,
                    "cannot be reached by clients",
                ));
            }
        }
        for addr in split_addrs(&self.namesrv_addr) {
            let port = addr
                .rsplit_once(':')
                .filter(|(h, _)| !h.is_empty())
                .map(|(_, p)| p);
            if !port.is_some_and(|p| p.parse::<u16>().is_ok_and(|p| p > 0)) {
                return Err(bad("namesrv_addr", addr, "is not host:port"));
            }
        }
        if !self.roles.registry && self.roles.broker && self.namesrv_addrs().is_empty() {
            return Err(
                "namesrv_addr is needed when this node is a broker without registry".into(),
            );
        }
        let loopback = self.is_loopback();
        if !loopback && self.bind_host.parse::<IpAddr>().is_err() {
            return Err(bad(
                "bind_host",
                &self.bind_host,
                "is neither an IP address nor localhost",
            ));
        }
        if !loopback && !self.allow_insecure_non_loopback {
            return Err(bad(
                "bind_host",
                &self.bind_host,
                "is not a loopback address and nothing authenticates clients: set \
                 allow_insecure_non_loopback=true only inside a trusted network",
            ));
        }
        let shard_ports = self.validate_cluster()?;
        self.validate_ports(&shard_ports)?;
        parse_delay_levels(&self.message_delay_level)
            .map_err(|why| bad("message_delay_level", &self.message_delay_level, &why))?;
        if !is_log_filter(&self.log_level) {
            return Err(bad(
                "log_level",
                &self.log_level,
                "is not a level or a list of target=level",
            ));
        }
        Ok(())
    }

    fn validate_ports(&self, shard_ports: &[u16]) -> Result<(), String> {
        let mut ports: Vec<(&str, u16)> = Vec::new();
        for port in shard_ports {
            ports.push(("the port of a shard", *port));
            if self.vip_enable && *port != 0 {
                let vip = port.checked_sub(2).filter(|p| *p > 0);
                let vip = vip.ok_or("ports of shards must be above 2 while vip_enable is on")?;
                ports.push(("the port of a shard - 2 (vip_enable)", vip));
            }
        }
        if self.is_cluster() {
            ports.push(("peer_listen_port", self.peer_listen_port));
        } else if self.roles.broker {
            ports.push(("listen_port", self.listen_port));
            if self.vip_enable && (1..=2).contains(&self.listen_port) {
                return Err("listen_port must be above 2 while vip_enable is on".into());
            }
            ports.extend(self.vip_port().map(|p| ("listen_port - 2 (vip_enable)", p)));
        }
        if self.roles.registry {
            ports.push(("namesrv_listen_port", self.namesrv_listen_port));
        }
        if self.http_enable {
            ports.push(("http_listen_port", self.http_listen_port));
        }
        for (i, (key, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..i].iter().find(|(_, p)| p == port && *p != 0) {
                return Err(format!("{other} and {key} are both {port}"));
            }
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), String> {
        const MIB: u64 = 1 << 20;
        /// The most topics and groups that anybody may set.
        const MANY: u64 = 10_000_000;
        let size = u64::from(self.max_message_size);
        let checks: &[(&str, u64, u64, u64)] = &[
            ("replicas", self.replicas.into(), 1, 7),
            ("node_id", self.node_id, 1, i64::MAX as u64),
            (
                "heartbeat_interval_ms",
                self.heartbeat_interval_ms,
                10,
                10_000,
            ),
            ("election_timeout_ms", self.election_timeout_ms, 30, 60_000),
            ("flush_interval_ms", self.flush_interval_ms, 10, 60_000),
            (
                "sync_flush_timeout_ms",
                self.sync_flush_timeout_ms,
                100,
                600_000,
            ),
            ("slave_timeout_ms", self.slave_timeout_ms, 100, 600_000),
            (
                "default_topic_queue_nums",
                self.default_topic_queue_nums.into(),
                1,
                1_024,
            ),
            (
                "timer_max_delay_secs",
                self.timer_max_delay_secs,
                1,
                365 * 86_400,
            ),
            ("short_polling_ms", self.short_polling_ms, 1, 60_000),
            ("max_message_size", size, 1_024, MAX_MESSAGE_SIZE),
            (
                "max_transfer_count",
                self.max_transfer_count.into(),
                1,
                4_096,
            ),
            (
                "max_transfer_bytes",
                self.max_transfer_bytes.into(),
                1_024,
                8 * MIB,
            ),
            (
                "file_reserved_hours",
                self.file_reserved_hours.into(),
                1,
                876_000,
            ),
            (
                "disk_space_warning_level_ratio",
                self.disk_space_warning_level_ratio.into(),
                10,
                99,
            ),
            (
                "log_segment_bytes",
                self.log_segment_bytes,
                MIB,
                1_024 * MIB,
            ),
            (
                "block_cache_bytes",
                self.block_cache_bytes,
                MIB,
                i64::MAX as u64,
            ),
            ("memtable_bytes", self.memtable_bytes, MIB, i64::MAX as u64),
            (
                "tail_cache_bytes",
                self.tail_cache_bytes,
                MIB,
                i64::MAX as u64,
            ),
            (
                "max_inflight_bytes",
                self.max_inflight_bytes,
                2 * size,
                i64::MAX as u64,
            ),
            (
                "max_frame_bytes",
                self.max_frame_bytes.into(),
                size + FRAME_OVERHEAD,
                16 * MIB,
            ),
            ("max_topics", self.max_topics, 1, MANY),
            (
                "auto_create_max_topics",
                self.auto_create_max_topics,
                0,
                self.max_topics,
            ),
            ("max_groups", self.max_groups, 1, MANY),
            (
                "auto_create_max_groups",
                self.auto_create_max_groups,
                0,
                self.max_groups,
            ),
            (
                "max_delayed_messages",
                self.max_delayed_messages,
                1,
                100 * MANY,
            ),
            ("max_group_offsets", self.max_group_offsets, 1, 100 * MANY),
            (
                "max_state_bytes",
                self.max_state_bytes,
                16 * MIB,
                i64::MAX as u64,
            ),
            (
                "connection_topics_per_minute",
                self.connection_topics_per_minute.into(),
                1,
                MANY,
            ),
            (
                "connection_auto_topics_per_minute",
                self.connection_auto_topics_per_minute.into(),
                1,
                MANY,
            ),
            (
                "connection_groups_per_minute",
                self.connection_groups_per_minute.into(),
                1,
                MANY,
            ),
            (
                "connection_auto_groups_per_minute",
                self.connection_auto_groups_per_minute.into(),
                1,
                MANY,
            ),
            (
                "connection_delayed_messages_per_minute",
                self.connection_delayed_messages_per_minute.into(),
                1,
                MANY,
            ),
            ("max_connections", self.max_connections.into(), 1, 1_000_000),
            (
                "max_connections_per_address",
                self.max_connections_per_address.into(),
                0,
                1_000_000,
            ),
            (
                "max_pending_requests",
                self.max_pending_requests.into(),
                1,
                1_000_000,
            ),
            ("idle_timeout_secs", self.idle_timeout_secs, 1, 86_400),
            ("frame_deadline_secs", self.frame_deadline_secs, 1, 86_400),
            (
                "write_buffer_limit_bytes",
                self.write_buffer_limit_bytes,
                65_536,
                i64::MAX as u64,
            ),
            ("gateway_threads", self.gateway_threads.into(), 0, 256),
            ("read_threads", self.read_threads.into(), 0, 256),
            ("register_period_secs", self.register_period_secs, 1, 60),
            (
                "broker_expiry_secs",
                self.broker_expiry_secs,
                self.register_period_secs + 1,
                3_600,
            ),
            (
                "metrics_max_topics",
                self.metrics_max_topics.into(),
                1,
                100_000,
            ),
        ];
        for (key, value, min, max) in checks {
            if value < min || value > max {
                return Err(if *max == i64::MAX as u64 {
                    format!("{key} = {value} must be at least {min}")
                } else {
                    format!("{key} = {value} must be between {min} and {max}")
                });
            }
        }
        if ![2, 4, 6].contains(&self.broker_permission) {
            return Err(format!(
                "broker_permission = {} must be 2 (write), 4 (read) or 6 (both)",
                self.broker_permission
            ));
        }
        Ok(())
    }
}

fn bad(key: &str, value: &str, why: &str) -> String {
    let shown: String = value.chars().take(100).collect();
    format!("{key} = \"{}\" {why}", shown.escape_debug())
}

pub(super) fn name(key: &str, value: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%' | '|');
    if value.is_empty() || value.len() > 127 || !value.chars().all(legal) {
        return Err(bad(
            key,
            value,
            "must be 1 to 127 letters, digits or _ - % |",
        ));
    }
    Ok(())
}

/// `level` or `target=level`, separated by commas.
fn is_log_filter(text: &str) -> bool {
    let level = |s: &str| s.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    text.split(',').all(|part| {
        let part = part.trim();
        level(part.split_once('=').map_or(part, |(_, l)| l))
    }) && text.parse::<tracing_subscriber::filter::Targets>().is_ok()
}

/// Delay levels in milliseconds, level 1 first.
pub(super) fn parse_delay_levels(text: &str) -> Result<Vec<u64>, String> {
    let mut levels = Vec::new();
    for word in text.split_ascii_whitespace() {
        let unit = match word.chars().last() {
            Some('s') => 1_000,
            Some('m') => 60_000,
            Some('h') => 3_600_000,
            Some('d') => 86_400_000,
            _ => return Err("needs a unit s, m, h or d after each number".into()),
        };
        let ms = word[..word.len() - 1]
            .parse::<u32>()
            .ok()
            .and_then(|n| u64::from(n).checked_mul(unit))
            .ok_or("needs a whole number before each unit")?;
        levels.push(ms);
    }
    if levels.is_empty() || levels.len() > 64 {
        return Err("must have 1 to 64 levels".into());
    }
    Ok(levels)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
