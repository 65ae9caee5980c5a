//! Networks that fail: 9 to 13.

use super::{Scenario, NETWORK};
use crate::processes::check::Isolated;
use crate::processes::nodes::SHARDS;
use crate::processes::space::{cut, cut_both, nodes, Member, Rule};
use crate::processes::stage::Stage;
use std::time::{Duration, Instant};

/// How long a network fault stays.
const STAYS: f64 = 6.0;
/// Both sides have noticed after so long, in microseconds: nothing of before is under way.
const NOTICED: u64 = 100_000;

pub(super) const SCENARIOS: [Scenario; 8] = [
    scenario("9a", "partition, leader alone", 3, true, leader_alone),
    scenario("9b", "partition, halves", 5, false, halves),
    scenario(
        "10a",
        "one-way, leader cannot receive",
        3,
        false,
        deaf_leader,
    ),
    scenario("10b", "one-way, leader cannot send", 3, false, mute_leader),
    scenario("11a", "bridge partition", 5, false, bridge),
    scenario("11b", "ring of majorities", 5, false, ring),
    scenario("12a", "cut from clients", 3, false, cut_from_clients),
    scenario("12b", "cut from peers", 3, false, cut_from_peers),
];

const fn scenario(
    number: &'static str,
    name: &'static str,
    nodes: usize,
    smoke: bool,
    work: fn(&mut Stage) -> Result<(), String>,
) -> Scenario {
    Scenario {
        nodes,
        smoke,
        ..super::scenario(number, name, NETWORK, work)
    }
}

/// These nodes have no majority and are asked all the time, whatever the route says.
fn isolate(stage: &mut Stage, alone: &[usize], rules: Vec<Rule>) -> Result<(), String> {
    let mut direct = Vec::new();
    for node in alone {
        direct.push(stage.load.direct(*node).map_err(|e| e.to_string())?);
    }
    stage.network(rules)?;
    let from = stage.load.now() + NOTICED;
    stage.sleep(STAYS);
    let to = stage.load.now();
    stage.network(Vec::new())?;
    for node in alone {
        stage.isolated.push(Isolated {
            node: *node as u8,
            from,
            to,
        });
    }
    // Those that were asked go on for a moment after the heal.
    stage.sleep(0.5);
    drop(direct);
    Ok(())
}

/// A leader without peers and clients: clients are led elsewhere within 5 s.
fn leader_alone(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        let mut others = nodes(&stage.others(&[node]));
        // Half of the time the old leader can still be reached by clients.
        let with_clients = stage.rng.below(2) == 0;
        if !with_clients {
            others.push(Member::Clients);
        }
        let from = if with_clients { "peers" } else { "everybody" };
        let what = format!("node {}, leader of {led:?}, is cut from {from}", node + 1);
        stage.fault(what, &led, Some(Duration::from_secs(5)));
        let rules = cut_both(&nodes(&[node]), &others);
        isolate(stage, &[node], rules)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

/// Two of five on the other side, with clients on both.
fn halves(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let order = stage.rng.order(stage.nodes.count());
        let (few, many) = order.split_at(2);
        let what = format!("nodes {few:?} cut from {many:?}, counted from 0");
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(5)));
        let rules = cut_both(&nodes(few), &nodes(many));
        isolate(stage, few, rules)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn one_way(stage: &mut Stage, leader_receives: bool) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        let others = nodes(&stage.others(&[node]));
        let own = Member::Node(node);
        let rules = others.iter().map(|other| match leader_receives {
            true => cut(own, *other),
            false => cut(*other, own),
        });
        let before: Vec<u64> = led.iter().map(|s| term(stage, *s)).collect();
        let way = if leader_receives { "send to" } else { "hear" };
        let what = format!(
            "node {}, leader of {led:?}, cannot {way} its peers",
            node + 1
        );
        stage.fault(what, &led, Some(Duration::from_secs(5)));
        stage.network(rules.collect())?;
        let begin = Instant::now();
        // Two election timeouts, each drawn from one to two times 1 s, and what the page takes.
        let limit = Duration::from_millis(2 * 2_000 + 500);
        let mut stepped_down = None;
        while begin.elapsed().as_secs_f64() < STAYS {
            let view = stage.nodes.view(node);
            if let (Some(view), None) = (view, stepped_down) {
                if view.iter().all(|s| !s.serving) {
                    stepped_down = Some(begin.elapsed());
                }
            }
            stage.sleep(0.05);
        }
        let after: Vec<u64> = led.iter().map(|s| term(stage, *s)).collect();
        stage.note(&format!(
            "stepped down after {stepped_down:?}; terms {before:?}, then {after:?}"
        ));
        if stepped_down.is_none_or(|took| took > limit) {
            stage.problem(format!("stepped down after {stepped_down:?}"));
        }
        // Each new leader is a term; another one for its return to the preferred node.
        if before.iter().zip(&after).any(|(b, a)| *a > b + 2) {
            stage.problem(format!("terms {before:?} became {after:?} in one fault"));
        }
        stage.network(Vec::new())?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn term(stage: &Stage, shard: usize) -> u64 {
    stage.nodes.leader(shard).map_or(0, |(_, term)| term)
}

fn deaf_leader(stage: &mut Stage) -> Result<(), String> {
    one_way(stage, false)
}

fn mute_leader(stage: &mut Stage) -> Result<(), String> {
    one_way(stage, true)
}

/// A partition of five nodes that leaves a leader for everybody possible: there is one within
/// 10 s, and it stays.
fn stable(stage: &mut Stage, what: String, rules: Vec<Rule>) -> Result<(), String> {
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(10)));
    stage.network(rules)?;
    stage.sleep(10.0);
    let before: Vec<_> = (0..SHARDS.len()).map(|s| stage.nodes.leader(s)).collect();
    stage.sleep(5.0);
    let after: Vec<_> = (0..SHARDS.len()).map(|s| stage.nodes.leader(s)).collect();
    if before != after || before.contains(&None) {
        stage.problem(format!("leaders and terms {before:?} became {after:?}"));
    }
    stage.network(Vec::new())?;
    stage.settle(Duration::from_secs(30))
}

/// Two halves that only one node sees.
fn bridge(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let order = stage.rng.order(5);
        let what = format!(
            "{:?} cut from {:?}, counted from 0",
            &order[..2],
            &order[3..]
        );
        let rules = cut_both(&nodes(&order[..2]), &nodes(&order[3..]));
        stable(stage, what, rules)?;
    }
    Ok(())
}

/// Each node sees its two neighbours only: everybody sees another majority.
fn ring(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let order = stage.rng.order(5);
        let mut rules = Vec::new();
        for (at, node) in order.iter().enumerate() {
            let far = [order[(at + 2) % 5], order[(at + 3) % 5]];
            rules.extend(nodes(&far).iter().map(|f| cut(Member::Node(*node), *f)));
        }
        let what = format!("ring {order:?}, counted from 0");
        stable(stage, what, rules)?;
    }
    Ok(())
}

/// Clients do not reach a leader that its peers do: their retries go to other shards.
fn cut_from_clients(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        let rest: Vec<usize> = (0..SHARDS.len()).filter(|s| !led.contains(s)).collect();
        let what = format!("node {}, leader of {led:?}, cut from clients", node + 1);
        stage.fault(what, &rest, Some(Duration::from_secs(2)));
        stage.network(cut_both(&nodes(&[node]), &[Member::Clients]))?;
        stage.sleep(STAYS);
        stage.measured();
        stage.network(Vec::new())?;
        stage.fault("healed".into(), &led, Some(Duration::from_secs(5)));
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

/// A node that only clients reach refuses; it does not keep requests for later.
fn cut_from_peers(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let led = stage.led_by(node);
        let what = format!("node {}, leader of {led:?}, cut from peers", node + 1);
        stage.fault(what, &led, Some(Duration::from_secs(5)));
        let rules = cut_both(&nodes(&[node]), &nodes(&stage.others(&[node])));
        isolate(stage, &[node], rules)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}
