//! Clocks, 21, and the name service, 25.

use super::{scenario, Needs, Scenario, NETWORK};
use crate::processes::nodes::SHARDS;
use crate::processes::shim;
use crate::processes::space::{Member, Rule};
use crate::processes::stage::Stage;
use std::time::{Duration, Instant};
use troupemq::client::Client;

const SHIM: Needs = Needs {
    shim: true,
    ..NETWORK
};
const HOUR_MS: i64 = 3_600_000;
/// An hour is enough for retention, and there are segments that it could drop: whoever believes a
/// clock that jumps ahead has nothing left, which the end of the scenario sees.
const YOUNG: &[&str] = &["file_reserved_hours=1", "log_segment_bytes=1048576"];
/// Port of the name server in a namespace.
const NAMES: u16 = 9876;

pub(super) const SCENARIOS: [Scenario; 6] = [
    Scenario {
        sets: YOUNG,
        ..scenario("21a", "clock of a leader jumps", SHIM, clock_leader)
    },
    Scenario {
        sets: YOUNG,
        ..scenario("21b", "clock of a follower jumps", SHIM, clock_follower)
    },
    Scenario {
        sets: YOUNG,
        ..scenario("21c", "clocks of all jump", SHIM, clock_all)
    },
    scenario("25a", "one name server lost", NETWORK, one_name_server),
    scenario("25b", "all name servers lost", NETWORK, all_name_servers),
    scenario("25c", "a stale name server", NETWORK, stale_name_server),
];

/// An hour or two days, there or back. Delayed messages are never early, and no message expires:
/// what was delivered and what is left is judged at the end of every scenario. There is no storm of
/// elections, and no route expires. One that is alone with its clock says so; of one that all have,
/// nothing is believed within a minute.
fn clock(stage: &mut Stage, of: &[usize]) -> Result<(), String> {
    let jumps = [HOUR_MS, -HOUR_MS, 48 * HOUR_MS, -48 * HOUR_MS];
    let jump = jumps[stage.rng.below(jumps.len())];
    let hours = jump / HOUR_MS;
    let what = format!("clocks of nodes {of:?}, counted from 0, jump by {hours} h");
    let before: Vec<_> = (0..SHARDS.len()).map(|s| stage.nodes.leader(s)).collect();
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(2)));
    for node in of {
        shim::shift_clock(&stage.nodes.control(*node), jump)?;
    }
    stage.sleep(8.0);
    let after: Vec<_> = (0..SHARDS.len()).map(|s| stage.nodes.leader(s)).collect();
    let term = |l: &Option<(usize, u64)>| l.map_or(0, |(_, term)| term);
    if before
        .iter()
        .zip(&after)
        .any(|(b, a)| term(a) > term(b) + 1)
    {
        stage.problem(format!("leaders and terms {before:?} became {after:?}"));
    }
    let alone = of.len() * 2 < stage.nodes.count();
    for node in 0..stage.nodes.count() {
        let held = stage.nodes.metric(node, "clock_held");
        let want = if of.contains(&node) { 1.0 } else { 0.0 };
        // Where most jump, the others' clocks are the ones that are not like most.
        if alone && held != Some(want) {
            stage.problem(format!("node {}: clock_held is {held:?}", node + 1));
        }
        let jumps = stage.nodes.metric(node, "clock_jumps_total");
        if jumps != Some(0.0) {
            stage.problem(format!("node {}: time jumped {jumps:?} times", node + 1));
        }
        if route(stage, vec![stage.nodes.name_server(node)]).is_none() {
            stage.problem(format!("the name server of node {} lost routes", node + 1));
        }
    }
    for node in of {
        shim::shift_clock(&stage.nodes.control(*node), 0)?;
    }
    stage.settle(Duration::from_secs(30))
}

fn clock_leader(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        clock(stage, &[node])?;
    }
    Ok(())
}

/// With three shards on three nodes each leads one: the one that is judged is only followed.
fn clock_follower(stage: &mut Stage) -> Result<(), String> {
    clock_leader(stage)
}

fn clock_all(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let all: Vec<usize> = (0..stage.nodes.count()).collect();
        clock(stage, &all)?;
    }
    Ok(())
}

/// Nobody of `from` reaches the name server of `node`.
fn unreachable(from: &[Member], node: usize) -> Vec<Rule> {
    let rule = |from: &Member| Rule {
        from: *from,
        to: Member::Node(node),
        port: Some(NAMES),
        percent: 100,
    };
    from.iter().map(rule).collect()
}

/// Clients go on with the others.
fn one_name_server(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let what = format!("name server of node {} lost", node + 1);
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(1)));
        stage.network(unreachable(&[Member::Clients], node))?;
        stage.sleep(5.0);
        let others: Vec<String> = stage
            .others(&[node])
            .into_iter()
            .map(|n| stage.nodes.name_server(n))
            .collect();
        if route(stage, others).is_none() {
            stage.problem("a new client gets no route from those that are left");
        }
        stage.network(Vec::new())?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn route(stage: &Stage, name_servers: Vec<String>) -> Option<Vec<String>> {
    let client = Client::new(name_servers, Duration::from_secs(2));
    let topic = crate::processes::history::TOPICS[0];
    let route = stage.block_on(client.route(topic)).ok()?;
    let master = |name: &&str| {
        route
            .broker(name)
            .and_then(|b| b.master())
            .map(str::to_owned)
    };
    SHARDS.iter().map(master).collect()
}

/// Who has a route goes on; new clients get in when a name server is back.
fn all_name_servers(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        stage.fault(
            "all name servers lost".into(),
            &[0, 1, 2],
            Some(Duration::from_secs(1)),
        );
        let rules = (0..stage.nodes.count()).flat_map(|n| unreachable(&[Member::Clients], n));
        stage.network(rules.collect())?;
        stage.sleep(6.0);
        if route(stage, stage.nodes.name_servers()).is_some() {
            stage.problem("the cut does not work: a new client got a route");
        }
        stage.network(Vec::new())?;
        let begin = Instant::now();
        while route(stage, stage.nodes.name_servers()).is_none() {
            if begin.elapsed() > Duration::from_secs(10) {
                stage.problem("a new client gets no route after the heal");
                break;
            }
        }
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

/// No leader can register at one name server while leaders change: clients that ask it have old
/// routes, and right ones at most 30 s after the heal.
fn stale_name_server(stage: &mut Stage) -> Result<(), String> {
    let stale = stage.rng.below(stage.nodes.count());
    let others = stage.others(&[stale]);
    let what = format!(
        "name server of node {} hears nothing of the others",
        stale + 1
    );
    // A prober whose own name server is on the killed node may go on to the stale one, and has old routes for the
    // 6 s that this lasts.
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(8)));
    let from: Vec<Member> = others.iter().copied().map(Member::Node).collect();
    stage.network(unreachable(&from, stale))?;
    let gone = others[stage.rng.below(others.len())];
    stage.note(&format!("kill -9 of node {}", gone + 1));
    stage.nodes.kill(gone)?;
    stage.sleep(6.0);
    stage.nodes.start(gone)?;
    stage.network(Vec::new())?;
    let own = stage.nodes.name_server(stale);
    let begin = Instant::now();
    loop {
        let right: Option<Vec<String>> = (0..SHARDS.len())
            .map(|s| {
                stage
                    .nodes
                    .leader(s)
                    .map(|(n, _)| stage.nodes.replica(n, s))
            })
            .collect();
        let told = route(stage, vec![own.clone()]);
        if right.is_some() && told == right {
            stage.note(&format!(
                "its routes are right after {:.1?}",
                begin.elapsed()
            ));
            break;
        }
        if begin.elapsed() > Duration::from_secs(30) {
            stage.problem(format!("it tells {told:?}, right is {right:?}"));
            break;
        }
        stage.sleep(0.2);
    }
    stage.settle(Duration::from_secs(30))
}
