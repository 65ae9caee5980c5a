//! Bad input at a real node's sockets: reliability reference §8, rows 1–9, 12–16 and 23–25. After
//! each the node is up, nothing that was refused is stored, and memory is bounded.

#[path = "gateway/again.rs"]
mod again;
#[path = "gateway/attributes.rs"]
mod attributes;
#[path = "gateway/frames.rs"]
mod frames;
#[path = "gateway/harness.rs"]
mod harness;
#[path = "gateway/requests.rs"]
mod requests;

use harness::Node;
use std::sync::OnceLock;

/// One node for the rows that need no settings of their own. It lives as long as the process.
fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::start(|c| c.max_message_size = 1_048_576);
        node.topic("Alive", 1);
        node
    })
}

/// Memory of this process, node and test together.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Header fields of requests about one queue.
fn queue_ext(topic: &str, queue: i64) -> Vec<(&'static str, String)> {
    vec![("topic", topic.to_owned()), ("queueId", queue.to_string())]
}
