//! The nodes and shards of a cluster, read from the flat keys.

use super::{split_addrs, Config};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Most nodes and shards a configuration may list.
const MAX_NODES: usize = 64;
/// Client ports of neighbouring shards differ by this much, unless `shard_ports` says otherwise.
const PORT_STEP: u16 = 10;
/// Longest name of a host, bytes.
const MAX_HOST: usize = 253;
/// Shortest secret for links that leave the machine.
const MIN_SECRET: usize = 16;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    pub id: u64,
    /// `host:port` of its peer port.
    pub addr: String,
}

/// A shard of the cluster and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterShard {
    /// Number of the shard, from 1 on; the same on every node.
    pub id: u32,
    /// The broker name that clients see.
    pub name: String,
    /// Port for clients. 0: any free port.
    pub port: u16,
    /// Nodes with a replica when the cluster is new, the preferred leader first.
    pub nodes: Vec<u64>,
}

/// What the cluster keys say, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// In the order of `peers`.
    pub nodes: Vec<ClusterNode>,
    pub shards: Vec<ClusterShard>,
}

impl Cluster {
    /// Names of the shards and nodes of their first replicas.
    pub fn begun(&self) -> Vec<(String, Vec<u64>)> {
        let shards = self.shards.iter();
        shards.map(|s| (s.name.clone(), s.nodes.clone())).collect()
    }
}

impl Config {
    /// This node is one of a cluster.
    pub fn is_cluster(&self) -> bool {
        !self.peers.is_empty()
    }

    /// The cluster as configured; `None` for a single node, or when [`Config::validate`] refuses
    /// the keys.
    pub fn cluster(&self) -> Option<Cluster> {
        self.parse_cluster().ok().flatten()
    }

    pub(super) fn parse_cluster(&self) -> Result<Option<Cluster>, String> {
        if !self.is_cluster() {
            return Ok(None);
        }
        let nodes = parse_nodes(&self.peers)?;
        // A node that joins has no part in how a new cluster's shards are placed.
        let joins = |n: &&ClusterNode| self.join && n.id == self.node_id;
        let first: Vec<u64> = nodes.iter().filter(|n| !joins(n)).map(|n| n.id).collect();
        if first.is_empty() {
            return Err("join: peers must list the nodes of the cluster to join".into());
        }
        let names: Vec<String> = match self.shards.as_str() {
            "" => (0..first.len()).map(default_name).collect(),
            text => split_addrs(text).map(str::to_owned).collect(),
        };
        if names.len() > MAX_NODES {
            return Err(format!("shards: at most {MAX_NODES} are possible"));
        }
        let mut seen = BTreeSet::new();
        for name in &names {
            super::validate::name("shards", name)?;
            if !seen.insert(name) {
                return Err(format!("shards: \"{name}\" is listed twice"));
            }
        }
        let replicas = (self.replicas as usize).min(first.len());
        let placed = |at: usize| {
            (0..replicas)
                .map(|r| first[(at + r) % first.len()])
                .collect()
        };
        let begun: Vec<_> = (names.into_iter().enumerate())
            .map(|(at, name)| (name, placed(at)))
            .collect();
        self.with_shards(nodes, &begun).map(Some)
    }

    /// The cluster with the nodes of the configuration and these shards (names, and the nodes of
    /// their first replicas).
    ///
    /// # Errors
    /// One line, when the other keys do not fit.
    pub fn cluster_of(&self, begun: &[(String, Vec<u64>)]) -> Result<Cluster, String> {
        self.with_shards(parse_nodes(&self.peers)?, begun)
    }

    fn with_shards(
        &self,
        nodes: Vec<ClusterNode>,
        begun: &[(String, Vec<u64>)],
    ) -> Result<Cluster, String> {
        let ports = self.parse_shard_ports(begun.len())?;
        let shards = begun.iter().zip(ports).enumerate();
        let shards = shards.map(|(at, ((name, nodes), port))| ClusterShard {
            id: at as u32 + 1,
            name: name.clone(),
            port,
            nodes: nodes.clone(),
        });
        Ok(Cluster {
            shards: shards.collect(),
            nodes,
        })
    }

    fn parse_shard_ports(&self, count: usize) -> Result<Vec<u16>, String> {
        if !self.shard_ports.is_empty() {
            let ports: Result<Vec<u16>, String> = split_addrs(&self.shard_ports)
                .map(|p| {
                    p.parse()
                        .map_err(|_| format!("shard_ports: \"{}\" is no port", p.escape_debug()))
                })
                .collect();
            let ports = ports?;
            if ports.len() != count {
                return Err(format!(
                    "shard_ports lists {} ports for {count} shards",
                    ports.len()
                ));
            }
            return Ok(ports);
        }
        let port = |at: usize| match self.listen_port {
            0 => Some(0),
            first => (at as u16)
                .checked_mul(PORT_STEP)
                .and_then(|step| first.checked_add(step)),
        };
        (0..count)
            .map(|at| port(at).ok_or_else(|| "listen_port leaves no ports for all shards".into()))
            .collect()
    }

    /// The secret of the cluster's links.
    ///
    /// # Errors
    /// One line, when the file cannot be read.
    pub fn read_cluster_secret(&self) -> Result<String, String> {
        if self.cluster_secret_file.is_empty() {
            return Ok(self.cluster_secret.clone());
        }
        let file = &self.cluster_secret_file;
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("cluster_secret_file {file}: {e}"))?;
        let secret = text.trim().to_owned();
        if secret.len() < MIN_SECRET {
            return Err(format!(
                "cluster_secret_file {file}: at least {MIN_SECRET} characters are needed"
            ));
        }
        Ok(secret)
    }

    /// Checks the cluster keys; gives the ports that this node's shards open.
    pub(super) fn validate_cluster(&self) -> Result<Vec<u16>, String> {
        let Some(cluster) = self.parse_cluster()? else {
            return Ok(Vec::new());
        };
        super::validate::name("cluster_id", &self.cluster_id)?;
        if !cluster.nodes.iter().any(|n| n.id == self.node_id) {
            return Err(format!("node_id = {} is not in peers", self.node_id));
        }
        if !self.roles.broker {
            return Err("peers: only a node with the role broker has peers".into());
        }
        if self.broker_ip.is_empty()
            && self
                .bind_host
                .parse()
                .is_ok_and(|ip: IpAddr| ip.is_unspecified())
        {
            return Err(
                "broker_ip is needed in a cluster when bind_host is not one address: name \
                 servers on other nodes have to be told how to reach this one"
                    .into(),
            );
        }
        if self.namesrv_addr.is_empty() {
            return Err(
                "namesrv_addr is needed in a cluster: the name servers of all nodes".into(),
            );
        }
        let tls = [
            &self.peer_tls_cert_file,
            &self.peer_tls_key_file,
            &self.peer_tls_ca_file,
        ];
        let given = tls.iter().filter(|f| !f.is_empty()).count();
        if given != 0 && given != tls.len() {
            return Err(
                "peer_tls_cert_file, peer_tls_key_file and peer_tls_ca_file belong together".into(),
            );
        }
        if !self.cluster_secret.is_empty() && !self.cluster_secret_file.is_empty() {
            return Err("cluster_secret and cluster_secret_file are both given".into());
        }
        let outside = cluster.nodes.iter().find(|n| !is_loopback(&n.addr));
        let weak = self.cluster_secret_file.is_empty() && self.cluster_secret.len() < MIN_SECRET;
        if let (Some(node), 0, true) = (outside, given, weak) {
            return Err(format!(
                "cluster_secret: peer {} is on another machine, so a secret of at least \
                 {MIN_SECRET} characters or peer_tls_* files are needed",
                node.id
            ));
        }
        if self.election_timeout_ms < 3 * self.heartbeat_interval_ms {
            return Err(format!(
                "election_timeout_ms = {} must be at least three times heartbeat_interval_ms",
                self.election_timeout_ms
            ));
        }
        // Also those that have no replica here: they may get one.
        Ok(cluster.shards.iter().map(|s| s.port).collect())
    }
}

fn default_name(at: usize) -> String {
    match u8::try_from(at).ok().filter(|n| *n < 26) {
        Some(n) => format!("broker-{}", char::from(b'a' + n)),
        None => format!("broker-{at}"),
    }
}

fn is_loopback(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads one `id=host:port`.
///
/// # Errors
/// One line, when that is not what it is: also when there are several.
pub fn parse_node(item: &str) -> Result<ClusterNode, String> {
    let bad = |why: &str| {
        let shown: String = item.chars().take(100).collect();
        Err(format!("peers: \"{}\" {why}", shown.escape_debug()))
    };
    let Some((id, addr)) = item.split_once('=') else {
        return bad("is not id=host:port");
    };
    let (id, addr) = (id.trim(), addr.trim());
    let Some(id) = id.parse().ok().filter(|id: &u64| *id > 0) else {
        return bad("has no node id of 1 or more");
    };
    let host_and_port = addr.rsplit_once(':').filter(|(host, port)| {
        let named = |c: char| c.is_alphanumeric() || "-_.:[]%".contains(c);
        let host = !host.is_empty() && host.len() <= MAX_HOST && host.chars().all(named);
        host && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if host_and_port.is_none() {
        return bad("is not id=host:port");
    }
    let addr = addr.to_owned();
    Ok(ClusterNode { id, addr })
}

/// Reads `id=host:port;id=host:port`.
///
/// # Errors
/// One line, when that is not what it is.
fn parse_nodes(text: &str) -> Result<Vec<ClusterNode>, String> {
    let mut nodes: Vec<ClusterNode> = Vec::new();
    for item in split_addrs(text) {
        let node = parse_node(item)?;
        if nodes.iter().any(|n| n.id == node.id || n.addr == node.addr) {
            return Err(format!(
                "peers: \"{}\" has an id or address that another node has",
                item.escape_debug()
            ));
        }
        nodes.push(node);
    }
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err(format!("peers: 1 to {MAX_NODES} nodes are possible"));
    }
    Ok(nodes)
}

/// Those of a list of nodes that can be read, each by itself; and what is wrong with the others.
pub fn read_nodes(text: &str) -> (Vec<ClusterNode>, Vec<String>) {
    let mut found = (Vec::new(), Vec::new());
    for item in split_addrs(text) {
        match parse_node(item) {
            Ok(node) => found.0.push(node),
            Err(why) => found.1.push(why),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Config {
        Config {
            cluster_id: "c".into(),
            node_id: 2,
            peers: "1=127.0.0.1:1001;2=127.0.0.1:1002;3=localhost:1003".into(),
            namesrv_addr: "127.0.0.1:9876".into(),
            ..Config::default()
        }
    }

    fn refused(change: impl FnOnce(&mut Config), word: &str) {
        let mut config = three();
        change(&mut config);
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains(word) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn as_many_shards_as_nodes_with_leaders_spread() {
        let config = three();
        config.validate().unwrap();
        let cluster = config.cluster().unwrap();
        let shards: Vec<_> = cluster
            .shards
            .iter()
            .map(|s| (s.id, s.name.as_str(), s.port, s.nodes.clone()))
            .collect();
        assert_eq!(
            shards,
            [
                (1, "broker-a", 10911, vec![1, 2, 3]),
                (2, "broker-b", 10921, vec![2, 3, 1]),
                (3, "broker-c", 10931, vec![3, 1, 2]),
            ]
        );
    }

    #[test]
    fn five_nodes_have_three_replicas_each() {
        let mut config = three();
        config.peers += ";7=127.0.0.1:1007;5=127.0.0.1:1005";
        config.shards = "x, y".into();
        config.shard_ports = "1;2".into();
        let cluster = config.cluster().unwrap();
        assert_eq!(cluster.shards[1].nodes, [2, 3, 7]);
        assert_eq!(
            (cluster.shards[1].name.as_str(), cluster.shards[1].port),
            ("y", 2)
        );
        config.replicas = 5;
        assert_eq!(config.cluster().unwrap().shards[1].nodes, [2, 3, 7, 5, 1]);
        assert!(Config::default().cluster().is_none());
    }

    #[test]
    fn a_node_that_joins_changes_no_placement() {
        let mut config = three();
        let before = config.cluster().unwrap();
        config.peers += ";4=127.0.0.1:1004";
        config.node_id = 4;
        config.join = true;
        config.validate().unwrap();
        let joined = config.cluster().unwrap();
        assert_eq!(joined.shards, before.shards);
        assert_eq!(joined.nodes.len(), 4);
        refused(
            |c| {
                c.join = true;
                c.peers = "2=127.0.0.1:1002".into();
            },
            "join",
        );
    }

    #[test]
    fn the_three_files_describe_one_cluster_on_one_machine() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut clusters = Vec::new();
        let mut ports = BTreeSet::new();
        for node in 1..=3 {
            let file = dir.join(format!("node-{node}.toml"));
            let config = Config::load(Some(&file), [], &[]).unwrap().config;
            assert_eq!(config.node_id, node);
            let cluster = config.cluster().unwrap();
            let own = [
                config.namesrv_listen_port,
                config.http_listen_port,
                config.peer_listen_port,
            ];
            let shards: Vec<u16> = cluster.shards.iter().map(|s| s.port).collect();
            let vip: Vec<u16> = shards.iter().map(|p| p - 2).collect();
            for port in own.into_iter().chain(shards).chain(vip) {
                assert!(ports.insert(port), "port {port} is used twice");
            }
            assert!(cluster.nodes[node as usize - 1]
                .addr
                .ends_with(&format!(":{}", config.peer_listen_port)));
            assert!(config
                .namesrv_addrs()
                .contains(&format!("127.0.0.1:{}", config.namesrv_listen_port)));
            clusters.push((cluster.nodes, config.cluster_id, config.namesrv_addr));
        }
        assert!(clusters.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn mistakes_are_named() {
        refused(|c| c.node_id = 4, "node_id = 4 is not in peers");
        refused(|c| c.cluster_id = String::new(), "cluster_id");
        for bad in [
            "1",
            "1=",
            "=h:1",
            "0=h:1",
            "1=h",
            "1=h:0",
            "1=h:1;1=h:2",
            "1=h:1;2=h:1",
            ";",
        ] {
            refused(|c| c.peers = bad.into(), "peers");
        }
        refused(|c| c.shards = "a;a".into(), "listed twice");
        refused(|c| c.shards = "a/b".into(), "shards");
        refused(|c| c.shard_ports = "1;2".into(), "2 ports for 3 shards");
        refused(|c| c.shard_ports = "1;2;x".into(), "is no port");
        refused(|c| c.listen_port = 65_530, "leaves no ports");
        refused(|c| c.namesrv_addr = String::new(), "namesrv_addr");
        refused(|c| c.peer_tls_key_file = "k".into(), "belong together");
        refused(|c| c.election_timeout_ms = 100, "election_timeout_ms");
        refused(
            |c| c.peers = "1=192.0.2.1:1;2=192.0.2.2:1".into(),
            "cluster_secret",
        );
        refused(
            |c| {
                c.bind_host = "0.0.0.0".into();
                c.allow_insecure_non_loopback = true;
            },
            "broker_ip",
        );
        refused(|c| c.peer_listen_port = 10921, "both 10921");
        refused(|c| c.http_listen_port = 10919, "both 10919");
        let mut config = three();
        config.peers = "1=192.0.2.1:1;2=192.0.2.2:1".into();
        config.cluster_secret = "0123456789abcdef".into();
        config.validate().unwrap();
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let config = Config {
            cluster_secret_file: file.display().to_string(),
            ..three()
        };
        assert!(config.read_cluster_secret().unwrap_err().contains("secret"));
        std::fs::write(&file, "short\n").unwrap();
        assert!(config.read_cluster_secret().unwrap_err().contains("16"));
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        assert_eq!(config.read_cluster_secret().unwrap(), "0123456789abcdef");
    }
}
