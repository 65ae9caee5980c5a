//! What the start of a server tells people.

use super::{BrokerRole, Config, FlushDiskType};

impl Config {
    /// The lines printed at start: where the node listens, where the data is, which durability
    /// class is on and what that class may lose (reliability reference §1).
    pub fn summary_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.roles.registry {
            lines.push(format!(
                "name server  {}",
                self.listener(self.namesrv_listen_port)
            ));
        }
        if let Some(cluster) = self.cluster() {
            lines.push(format!(
                "node         {} of the {} nodes of cluster {}, peers on {}",
                self.node_id,
                cluster.nodes.len(),
                self.cluster_id,
                self.listener(self.peer_listen_port)
            ));
            for shard in &cluster.shards {
                lines.push(format!(
                    "broker       {}; {} of {}",
                    self.listener(shard.port),
                    shard.name,
                    self.cluster_name,
                ));
            }
        } else if self.roles.broker {
            let vip = match self.vip_port() {
                Some(port) => format!(", VIP port {port}"),
                None => String::new(),
            };
            let told = match self.broker_ip.as_str() {
                "" => "the address each client uses".to_owned(),
                ip => ip.to_owned(),
            };
            lines.push(format!(
                "broker       {}{vip}; {} of {}, advertised as {told}",
                self.listener(self.listen_port),
                self.broker_name,
                self.cluster_name,
            ));
        }
        if self.http_enable {
            lines.push(format!(
                "metrics      http://{}/metrics",
                self.listener(self.http_listen_port)
            ));
        }
        if self.roles.broker {
            lines.push(format!("data         {}", self.data_dir));
            let (acked, may_lose) = self.durability();
            lines.push(format!(
                "durability   {} + {}: a send is acknowledged when {acked}",
                self.broker_role, self.flush_disk_type
            ));
            lines.push(format!("may lose     {may_lose}"));
        }
        lines
    }

    fn listener(&self, port: u16) -> String {
        let host = match self.bind_host.as_str() {
            h if h.contains(':') => format!("[{h}]"),
            h => h.to_owned(),
        };
        match port {
            0 => format!("{host}, any free port"),
            p => format!("{host}:{p}"),
        }
    }

    /// When a send is acknowledged, and what the class may lose.
    fn durability(&self) -> (&'static str, String) {
        let interval = self.flush_interval_ms;
        match (self.broker_role, self.flush_disk_type) {
            (BrokerRole::SyncMaster, FlushDiskType::SyncFlush) => (
                "a majority of the replicas has synced it to disk (group commit)",
                "nothing acknowledged, as long as a majority of the replicas keeps its disk \
                 (a single node: its own disk)"
                    .to_owned(),
            ),
            (BrokerRole::SyncMaster, FlushDiskType::AsyncFlush) => (
                "a majority of the replicas has written it, unsynced",
                format!(
                    "on power loss of a majority: the last {interval} ms of acknowledged messages; \
                     nothing when only processes are killed"
                ),
            ),
            (BrokerRole::AsyncMaster, FlushDiskType::SyncFlush) => (
                "this node has synced it to disk",
                "what was not yet replicated, if this node does not come back or another one leads \
                 first"
                    .to_owned(),
            ),
            (BrokerRole::AsyncMaster, FlushDiskType::AsyncFlush) => (
                "this node has written it, unsynced",
                format!(
                    "what was not yet replicated, if this node does not come back or another one \
                     leads first; on power loss also the last {interval} ms"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_says_what_it_may_lose() {
        let mut seen = std::collections::BTreeSet::new();
        for broker_role in [BrokerRole::SyncMaster, BrokerRole::AsyncMaster] {
            for flush_disk_type in [FlushDiskType::SyncFlush, FlushDiskType::AsyncFlush] {
                let config = Config {
                    broker_role,
                    flush_disk_type,
                    flush_interval_ms: 321,
                    ..Config::default()
                };
                let text = config.summary_lines().join("\n");
                assert!(text.contains(broker_role.as_str()), "{text}");
                assert!(text.contains(flush_disk_type.as_str()), "{text}");
                let asynchronous = flush_disk_type == FlushDiskType::AsyncFlush;
                assert_eq!(text.contains("321 ms"), asynchronous, "{text}");
                assert!(seen.insert(text));
            }
        }
    }

    #[test]
    fn default_summary_names_all_listeners() {
        let text = Config::default().summary_lines().join("\n");
        for part in [
            "127.0.0.1:9876",
            "127.0.0.1:10911",
            "10909",
            "127.0.0.1:8080",
            "./data",
        ] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
        let registry = Config {
            roles: "registry".parse().unwrap(),
            ..Config::default()
        };
        let text = registry.summary_lines().join("\n");
        assert!(
            !text.contains("10911") && !text.contains("durability"),
            "{text}"
        );
    }
}
