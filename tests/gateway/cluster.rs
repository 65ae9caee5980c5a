//! Three real nodes of one shard in this process.

use super::harness::{Client, Node};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use troupemq::config::Config;

/// Longest a test waits for anything; only a broken node comes near it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes 1 to 3; node 1 leads while nothing is wrong.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts them with the defaults, changed by `change`, and waits until node 1 leads and the
    /// others know.
    pub fn start(change: impl Fn(&mut Config)) -> Self {
        let ports = free_ports(3);
        let peers: Vec<String> = ports
            .iter()
            .zip(1..)
            .map(|(port, id)| format!("{id}=127.0.0.1:{port}"))
            .collect();
        let nodes = ports.iter().zip(1..).map(|(port, id)| {
            Node::start(|config| {
                config.cluster_id = "test".to_owned();
                config.node_id = id;
                config.peers = peers.join(";");
                config.peer_listen_port = *port;
                config.shards = "broker-a".to_owned();
                config.shard_ports = "0".to_owned();
                // Not for nothing on a busy machine.
                config.heartbeat_interval_ms = 200;
                config.election_timeout_ms = 10_000;
                change(config);
            })
        });
        let cluster = Self {
            nodes: nodes.collect(),
        };
        let until = Instant::now() + PATIENCE;
        while !cluster
            .nodes
            .iter()
            .all(|node| led_by_one(&node.page("/cluster")))
        {
            assert!(Instant::now() < until, "node 1 does not lead");
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster
    }

    /// The leader's port and a follower's.
    pub fn ports(&self) -> [(&'static str, SocketAddr); 2] {
        let (leader, follower) = (&self.nodes[0], &self.nodes[2]);
        [("leader", leader.broker), ("follower", follower.broker)]
    }

    /// A connection to the leader.
    pub fn client(&self) -> Client {
        self.nodes[0].client()
    }
}

/// Ports of loopback where nobody listens, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    let taken: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let ports = taken.iter().map(|l| l.local_addr().expect("address"));
    ports.map(|addr| addr.port()).collect()
}

fn led_by_one(page: &str) -> bool {
    let body = page.split("\r\n\r\n").nth(1).unwrap_or_default();
    let view: Value = serde_json::from_str(body).unwrap_or_default();
    let shard = &view["shards"][0];
    let serves = view["node_id"] != 1 || shard["serving"] == true;
    shard["leader"] == 1 && serves
}
