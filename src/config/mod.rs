//! Configuration: defaults, file, environment, flags; validation.
//!
//! [`Config`] is one flat struct. [`Config::load`] builds it from a file, then the environment
//! (`TROUPE_` + key in upper case), then flags; each source overrides the ones before it.
//! RocketMQ's own names are accepted everywhere for the same thing; those of its settings that mean
//! nothing here are noted; unknown keys are refused.
//! `config/reference.toml` lists every key with its default.

mod cluster;
mod keys;
mod load;
pub mod operator;
mod properties;
mod reference;
mod stock;
mod summary;
mod told;
mod types;
mod validate;

pub use cluster::{parse_node, read_nodes, Cluster, ClusterNode, ClusterShard};
pub use keys::{Config, KeyInfo, Kind, Scope, KEYS, OTHER_UNITS};
pub use load::{ConfigError, Loaded};
pub use reference::reference_text;
pub use stock::{Status, Stock, STOCK};
pub use types::{BrokerRole, FlushDiskType, LogFormat, Roles};
pub use validate::MAX_MESSAGE_SIZE;

use crate::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Config {
    /// True when every listener binds to a loopback address.
    pub fn is_loopback(&self) -> bool {
        if self.bind_host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        self.bind_host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
    }

    /// The settings that leaders go by and nodes compare, by name, as text. No secret is among them.
    pub fn shared(&self) -> BTreeMap<String, String> {
        let all = toml::Table::try_from(self).unwrap_or_default();
        let shared = KEYS.iter().filter(|key| key.scope == Scope::Shared);
        let values = shared.filter_map(|key| Some((key.name, all.get(key.name)?)));
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        values
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect()
    }

    /// The VIP port: two below the broker's, if that is on and there is one.
    pub fn vip_port(&self) -> Option<u16> {
        if !self.vip_enable {
            return None;
        }
        self.listen_port.checked_sub(2).filter(|p| *p > 0)
    }

    /// The limit of connections per address that is in force.
    pub fn connections_per_address(&self) -> u32 {
        match self.max_connections_per_address {
            0 if self.is_loopback() => self.max_connections,
            0 => self.max_connections.min(1_000),
            n => n,
        }
    }

    /// Time of one tick of a shard's clock, ms, and ticks of a heartbeat and an election timeout.
    /// A single node has nobody to wait for and ticks slowly.
    pub fn raft_ticks(&self) -> (u64, usize, usize) {
        if !self.is_cluster() {
            return (100, 2, 10);
        }
        let tick = (self.heartbeat_interval_ms / 2).max(5);
        let count = |ms: u64| ms.div_ceil(tick).max(1) as usize;
        (
            tick,
            count(self.heartbeat_interval_ms),
            count(self.election_timeout_ms),
        )
    }

    /// Ticks for which a follower that heard its leader stays with it: four signs of life, so that
    /// leases go on through one that is late. How long clients wait after a leader was killed goes
    /// by this.
    pub fn promise_ticks(&self) -> usize {
        let (_, heartbeat, election) = self.raft_ticks();
        (4 * heartbeat).min(election)
    }

    /// What an acknowledgement waits for, unless a message or topic says otherwise.
    pub fn ack_policy(&self) -> AckPolicy {
        AckPolicy {
            master: match self.broker_role {
                BrokerRole::SyncMaster => MasterPolicy::Sync,
                BrokerRole::AsyncMaster => MasterPolicy::Async,
            },
            flush: match self.flush_disk_type {
                FlushDiskType::SyncFlush => FlushPolicy::Sync,
                FlushDiskType::AsyncFlush => FlushPolicy::Async,
            },
        }
    }

    /// The name servers that were configured, `host:port` each; empty when none was.
    pub fn namesrv_addrs(&self) -> Vec<String> {
        split_addrs(&self.namesrv_addr).map(str::to_owned).collect()
    }

    /// The delay levels in milliseconds; level 1 first. Empty if the text is invalid, which
    /// [`Config::validate`] refuses.
    pub fn delay_levels_ms(&self) -> Vec<u64> {
        validate::parse_delay_levels(&self.message_delay_level).unwrap_or_default()
    }
}

/// RocketMQ separates name servers by `;`; a comma or blank is accepted too.
fn split_addrs(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', ',', ' '])
        .map(str::trim)
        .filter(|s| !s.is_empty())
}
