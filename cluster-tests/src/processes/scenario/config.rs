//! Configurations that differ or are wrong: 31 and 32.

use super::{scenario, Scenario, NETWORK};
use crate::processes::history::{QUEUES, TOPICS};
use crate::processes::nodes::{wait_until, Signal, SHARDS};
use crate::processes::stage::Stage;
use std::collections::BTreeMap;
use std::time::Duration;
use troupemq::client::Client;

pub(super) const SCENARIOS: [Scenario; 3] = [
    Scenario {
        sets: &["retention_bytes=6000000"],
        ..scenario("31", "unequal settings", NETWORK, unequal)
    },
    scenario("32a", "wrong peers and shards", NETWORK, wrong),
    scenario(
        "32b",
        "empty disk, and peers names nobody else",
        NETWORK,
        alone,
    ),
];

/// Ends a node in peace and starts it with these settings of its own.
fn restart(stage: &mut Stage, node: usize, sets: &[&str]) -> Result<(), String> {
    end(stage, node)?;
    stage.nodes.set(node, sets);
    stage.nodes.start(node)
}

fn end(stage: &mut Stage, node: usize) -> Result<(), String> {
    stage.nodes.signal(node, Signal::Terminate);
    match stage.nodes.wait(node, Duration::from_secs(15)) {
        Some(_) => Ok(()),
        None => Err(format!("node {} does not end", node + 1)),
    }
}

/// Hands a shard's lead to a node, and asks there where each queue begins.
fn begins(stage: &mut Stage, node: usize, shard: usize) -> Result<Vec<i64>, String> {
    let to = (node + 1).to_string();
    let args = ["transfer", "--shard", SHARDS[shard], "--to", &to];
    let leads = |stage: &Stage| stage.nodes.leader(shard).is_some_and(|(n, _)| n == node);
    let mut why = String::new();
    let moved = wait_until(Duration::from_secs(20), || {
        if let Err(error) = stage.nodes.cluster_command(&args) {
            why = error;
        }
        leads(stage)
    });
    moved.ok_or(format!("{} stays where it is: {why}", SHARDS[shard]))?;
    let client = Client::new(stage.nodes.name_servers(), Duration::from_secs(3));
    let addr = stage.nodes.replica(node, shard);
    stage.block_on(async {
        let mut all = Vec::new();
        for topic in TOPICS {
            for queue in 0..QUEUES {
                let min = client.min_offset(&addr, topic, i32::from(queue)).await;
                all.push(min.map_err(|e| e.to_string())?);
            }
        }
        Ok(all)
    })
}

/// A change of sizes and limits has come to some nodes and not to others. Whoever leads trims by
/// its own; where queues begin is the same on all.
fn unequal(stage: &mut Stage) -> Result<(), String> {
    stage.retention = true;
    stage.sends_may_fail = true;
    let mib = ["1048576", "2097152", "3145728"];
    let order = stage.rng.order(stage.nodes.count());
    for (n, node) in order.iter().enumerate() {
        let size = format!("log_segment_bytes={}", mib[n]);
        stage.note(&format!("node {}: {size}", node + 1));
        restart(stage, *node, &[&size, "file_reserved_hours=71"][..=n % 2])?;
        stage.recovered(Duration::from_secs(30))?;
    }
    let shown = stage.nodes.cluster_command(&["show"])?;
    for key in ["log_segment_bytes", "file_reserved_hours"] {
        if !shown.contains(&format!("DIFFERS: {key}")) {
            stage.problem(format!("troupe cluster show does not tell of {key}"));
        }
    }
    let differ = |n| stage.nodes.metric(n, "settings_differ").unwrap_or(0.0);
    let differ: f64 = (0..stage.nodes.count()).map(differ).sum();
    stage.note(&format!("{differ} differences in the metrics"));
    if differ < 6.0 {
        stage.problem(format!("only {differ} differences in the metrics"));
    }
    let seconds = stage.seconds.max(30) as f64;
    stage.sleep(seconds);
    let mut known: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for _ in 0..3 {
        for (shard, name) in SHARDS.iter().enumerate() {
            for node in stage.nodes.wanted() {
                let found = begins(stage, node, shard)?;
                for (queue, min) in found.iter().enumerate() {
                    let before = known.entry((shard, queue)).or_insert(*min);
                    if *min < *before {
                        stage.problem(format!(
                            "queue {queue} of {name} begins at {min} on node {}, and began at {before}",
                            node + 1
                        ));
                    }
                    *before = (*before).max(*min);
                }
            }
        }
        stage.sleep(5.0);
    }
    let trimmed = known.values().filter(|min| **min > 0).count();
    stage.note(&format!("{trimmed} of {} queues trimmed", known.len()));
    if trimmed == 0 {
        stage.problem("nothing was trimmed");
    }
    for node in stage.nodes.wanted() {
        let differ = stage.nodes.metric(node, "state_differences_total");
        if differ != Some(0.0) {
            stage.problem(format!("node {}: states differ: {differ:?}", node + 1));
        }
    }
    Ok(())
}

/// What a node said last.
fn last_words(stage: &Stage, node: usize) -> String {
    let log = stage.nodes.log(node);
    log.lines().last().unwrap_or_default().to_owned()
}

/// A node is started with these settings: it must not start, and say why in one line that names
/// the command to use.
fn refused(stage: &mut Stage, node: usize, set: &str, words: &[&str]) -> Result<(), String> {
    stage.note(&format!("node {}: {set}", node + 1));
    restart(stage, node, &[set])?;
    let ended = stage.nodes.wait(node, Duration::from_secs(10));
    let said = last_words(stage, node);
    match ended {
        Some(false) => {
            stage.note(&format!("  {said}"));
            if let Some(lacking) = words.iter().find(|w| !said.contains(**w)) {
                stage.problem(format!("no word of {lacking:?} in: {said}"));
            }
        }
        other => {
            stage.problem(format!("node {} with {set} goes on: {other:?}", node + 1));
            stage.sleep(5.0);
            let _ = stage.nodes.kill(node);
        }
    }
    stage.nodes.set(node, &[]);
    stage.nodes.start(node)?;
    stage.settle(Duration::from_secs(30))
}

/// Voters of the shards as a node knows them.
fn voters(stage: &Stage, node: usize) -> Vec<Vec<u64>> {
    let page = stage.nodes.page(node, "/cluster").unwrap_or_default();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
    let list = |v: &serde_json::Value| {
        let all = v.as_array().into_iter().flatten();
        all.filter_map(serde_json::Value::as_u64)
            .collect::<Vec<_>>()
    };
    let shards = page["shards"].as_array().into_iter().flatten();
    shards.map(|s| list(&s["voters"])).collect()
}

fn wrong(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    let order = stage.rng.order(stage.nodes.count());
    let (node, other) = (order[0], order[1]);
    let peers: Vec<String> = (0..stage.nodes.count())
        .map(|n| format!("{}={}", n + 1, stage.nodes.peer(n)))
        .collect();
    let command = "troupe cluster";
    stage.fault("wrong configurations".into(), &[0, 1, 2], None);
    let alone = format!("peers={}", peers[node]);
    refused(
        stage,
        node,
        &alone,
        &["peers", command, "remove", "replace"],
    )?;
    let two = format!("peers={};{}", peers[node], peers[other]);
    refused(stage, other, &two, &["peers", command])?;
    refused(
        stage,
        node,
        "shards=broker-a;broker-c;broker-b",
        &["shards", command],
    )?;
    refused(stage, node, "shards=broker-a;broker-b", &["shards"])?;
    // Addresses that belong to others: nobody there answers to the wrong number.
    let mut swapped = peers.clone();
    let rest = order[2];
    let addr = |n: usize| stage.nodes.peer(n);
    swapped[other] = format!("{}={}", other + 1, addr(rest));
    swapped[rest] = format!("{}={}", rest + 1, addr(other));
    let swapped = format!("peers={}", swapped.join(";"));
    stage.note(&format!("node {}: {swapped}", node + 1));
    restart(stage, node, &[&swapped])?;
    stage.sleep(5.0);
    stage.acks_again(Duration::from_secs(5))?;
    restart(stage, node, &[])?;
    stage.settle(Duration::from_secs(30))?;
    // One more everywhere: an address, and no voter.
    let more = format!("peers={};4=127.0.0.1:9", peers.join(";"));
    for node in stage.nodes.wanted() {
        restart(stage, node, &[&more])?;
        stage.recovered(Duration::from_secs(30))?;
    }
    for node in stage.nodes.wanted() {
        let leads = stage.led_by(node);
        let found = voters(stage, node);
        for shard in leads {
            if found.get(shard).map(Vec::as_slice) != Some(&[1, 2, 3]) {
                stage.problem(format!("voters of {}: {found:?}", SHARDS[shard]));
            }
        }
    }
    stage.settle(Duration::from_secs(30))
}

/// A node lost its disk, and its configuration does not know that others joined it.
fn alone(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    let node = stage.rng.below(stage.nodes.count());
    let own = format!("peers={}={}", node + 1, stage.nodes.peer(node));
    stage.fault(
        format!("node {}: empty disk, {own}", node + 1),
        &[0, 1, 2],
        None,
    );
    stage.nodes.kill(node)?;
    stage.nodes.set(node, &[&own]);
    stage.wipe(node)?;
    stage.sleep(12.0);
    let leads = stage.nodes.view(node).unwrap_or_default();
    let leads: Vec<&str> = leads
        .iter()
        .filter(|s| s.serving)
        .map(|s| s.name.as_str())
        .collect();
    if !leads.is_empty() {
        stage.problem(format!("node {} leads {leads:?}, alone", node + 1));
    }
    if stage.nodes.page(node, "/health/ready").is_some() {
        stage.problem("it says that it is ready");
    }
    stage.note(
        &stage
            .nodes
            .page(node, "/health/ready")
            .unwrap_or_else(|| "not ready".into()),
    );
    stage.acks_again(Duration::from_secs(5))?;
    // Put right: the others tell it how the shards began, and fill it.
    end(stage, node)?;
    stage.nodes.set(node, &[]);
    for _ in 0..2 {
        stage.nodes.start(node)?;
        if stage.nodes.wait(node, Duration::from_secs(5)).is_none() {
            break;
        }
        stage.note(&last_words(stage, node));
    }
    stage.settle(Duration::from_secs(60))
}
