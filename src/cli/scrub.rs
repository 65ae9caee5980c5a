//! `troupe cluster scrub`, and what `troupe cluster show` says of corrupt entries.

use super::operate::{Nodes, Operator};
use super::show::{get, list, number};
use super::{print_line, Failure};
use clap::Args;
use serde_json::{json, Value};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(super) struct Scrub {
    /// Only these shards (broker names), separated by commas; all when left out
    #[arg(long, value_name = "NAMES")]
    shards: Option<String>,
    /// Longest wait for the end, in seconds; the nodes go on by themselves
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    within: u64,
    #[command(flatten)]
    nodes: Nodes,
}

/// What is bad in a replica's stored log, if anything is.
pub(super) fn damage(damage: &Value) -> Option<String> {
    let count = |key| number(damage, key);
    if count("bad_entries") == 0 {
        return None;
    }
    let mut text = format!(
        "CORRUPT ENTRIES: {} found, the last one at {}, {} mended",
        count("bad_entries"),
        count("last_bad"),
        count("mended")
    );
    if count("lost") > 0 {
        text += &format!(
            ", {} LOST on all replicas ({} messages skipped, {} delayed ones given up)",
            count("lost"),
            count("skipped_messages"),
            count("lost_delayed")
        );
    }
    Some(text)
}

/// Asks every node, waits for the end and prints what was found.
pub(super) async fn scrub(args: Scrub) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    let names = args.shards.as_deref().unwrap_or("").split(',');
    let names: Vec<&str> = names.map(str::trim).filter(|n| !n.is_empty()).collect();
    let mut first_error = None;
    let mut asked = Vec::new();
    for addr in &operator.addrs {
        match operator
            .ask_one(addr, &json!({"op": "scrub", "shards": names}))
            .await
        {
            Ok(text) => {
                print_line(&crate::telemetry::escape_all(&format!("{addr}: {text}")))?;
                asked.push(addr);
            }
            Err(why) => {
                print_line(&crate::telemetry::escape_all(&why))?;
                first_error.get_or_insert(why);
            }
        }
    }
    let until = Instant::now() + Duration::from_secs(args.within);
    for addr in asked {
        let page = loop {
            tokio::time::sleep(LOOK).await;
            let page = get(addr, "/cluster").await;
            let page: Value = page
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default();
            let shards = list(&page, "shards");
            let busy = |shard: &Value| shard["scrub"]["at_once"] == true;
            if !shards.is_empty() && !shards.iter().any(busy) {
                break page;
            }
            if Instant::now() > until {
                return Err(format!("{addr}: not done after {} s", args.within));
            }
        };
        for shard in list(&page, "shards") {
            let name = shard["name"].as_str().unwrap_or("?");
            let found = damage(&shard["damage"]).unwrap_or_else(|| "nothing is corrupt".into());
            let node = number(&page, "node_id");
            let line = format!("node {node}, {name}: {found}");
            print_line(&crate::telemetry::escape_all(&line))?;
        }
    }
    first_error.map_or(Ok(()), Err)
}
