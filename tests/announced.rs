//! Who made or changed a topic may ask any name server of the cluster at once.

#[allow(dead_code)] // each test uses its part
#[path = "gateway/cluster.rs"]
mod cluster;
#[allow(dead_code)] // each test uses its part
#[path = "gateway/harness.rs"]
mod harness;

use cluster::{free_ports, Cluster};
use harness::{topic_ext, Client};
use serde_json::Value;

#[test]
fn a_topic_that_was_made_is_known_to_every_name_server_that_can_be_reached() {
    let ports = free_ports(4);
    // Nobody listens on the last one.
    let all: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let cluster = Cluster::start(|config| {
        let node = usize::try_from(config.node_id).expect("small");
        config.namesrv_listen_port = ports[node - 1];
        config.namesrv_addr = all.join(";");
    });
    let mut servers: Vec<Client> = cluster
        .nodes
        .iter()
        .map(|node| Client::open(node.registry))
        .collect();
    let mut makers = cluster.ports().map(|(_, port)| Client::open(port));
    for round in 0..40 {
        for (n, maker) in makers.iter_mut().enumerate() {
            // Made, and then given more queues.
            let (name, queues) = (format!("Made-{n}-{}", round / 2), 4 + 4 * (round % 2));
            let (head, _) = maker.call(17, &topic_ext(&name, queues, 6), b"");
            assert_eq!(head["code"], 0, "{head}");
            for (place, server) in servers.iter_mut().enumerate() {
                let (head, body) = server.call(105, &[("topic", name.clone())], b"");
                assert_eq!(head["code"], 0, "{name} at name server {place}: {head}");
                let route: Value = serde_json::from_slice(&body).expect("a route");
                let queue = &route["queueDatas"][0];
                assert_eq!(queue["writeQueueNums"], queues, "{place}: {route}");
                // The leader's address is with it.
                let brokers = &route["brokerDatas"][0]["brokerAddrs"];
                assert!(brokers["0"].is_string(), "{place}: {route}");
            }
        }
    }
}
