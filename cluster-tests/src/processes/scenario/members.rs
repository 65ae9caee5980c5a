//! Members that forget, are replaced, come and go: 5, 20 and 24; a learner that knows more than the voters,
//! 6c; one that catches up, 26.

use super::disk::unclean;
use super::{scenario, Needs, Scenario, NETWORK};
use crate::processes::check::PowerCut;
use crate::processes::nodes::{wait_until, Signal, SHARDS};
use crate::processes::stage::Stage;
use std::time::Duration;

const DISKS: Needs = Needs {
    disk_mib: Some(768),
    ..NETWORK
};
const SPARE: Needs = Needs {
    spare: true,
    ..NETWORK
};
const SPARE_DISK: Needs = Needs {
    disk_mib: Some(768),
    ..SPARE
};
/// What the voters of 6c may lose: their flush interval, and the time that stopping all takes, microseconds.
const UNSYNCED: u64 = 3_500_000;

/// So often the voters of 6c lose their power until they have less than the learner.
const TRIES_OF_6C: usize = 5;

pub(super) const SCENARIOS: [Scenario; 7] = [
    Scenario {
        // What is written directly to preallocated space is on the disk before a sync.
        sets: &[
            "flush_disk_type=ASYNC_FLUSH",
            "flush_interval_ms=3000",
            "direct_io=false",
        ],
        ..scenario(
            "6c",
            "power cut of the voters, a learner kept more",
            SPARE_DISK,
            learner_kept_more,
        )
    },
    Scenario {
        sets: &["flush_disk_type=ASYNC_FLUSH", "flush_interval_ms=3000"],
        ..scenario("5", "power cut, then leader paused", DISKS, power_cut)
    },
    scenario("20a", "empty disk under the same id", NETWORK, empty_disk),
    scenario("20b", "lost node replaced", SPARE, replaced),
    scenario(
        "24a",
        "node added, another removed",
        SPARE,
        added_and_removed,
    ),
    scenario("24b", "leaders moved by hand", NETWORK, moved),
    Scenario {
        // Small files of the log, and few of them: what a node misses is gone soon.
        sets: &["log_segment_bytes=1048576", "retention_bytes=6000000"],
        ..scenario(
            "26",
            "catch-up by snapshot, killed in the middle",
            NETWORK,
            snapshot,
        )
    },
];

/// Leader and one follower acknowledge while the other follower stands still; the first follower
/// forgets; then the leader stands still and the others are left to themselves. Who forgot must
/// not help to elect a leader that never had what was acknowledged.
fn forgetful(
    stage: &mut Stage,
    forget: fn(&mut Stage, usize) -> Result<(), String>,
) -> Result<(), String> {
    stage.sends_may_fail = true;
    let shard = stage.rng.below(SHARDS.len());
    let leader = stage.leader(shard)?;
    let mut others = stage.others(&[leader]);
    others.rotate_left(stage.rng.below(2));
    let (forgets, lags) = (others[0], others[1]);
    let what = format!(
        "node {} leads {}, node {} stands still, node {} forgets",
        leader + 1,
        SHARDS[shard],
        lags + 1,
        forgets + 1
    );
    stage.fault(what, &[shard], None);
    stage.nodes.signal(lags, Signal::Stop);
    let begin = stage.load.now();
    stage.sleep(1.5);
    if stage.load.last_ack(shard) < begin + 300_000 {
        return Err("leader and one follower acknowledge nothing".into());
    }
    forget(stage, forgets)?;
    stage.nodes.signal(leader, Signal::Stop);
    stage.nodes.signal(lags, Signal::Continue);
    stage.sleep(5.0);
    let new = stage.nodes.leader(shard);
    stage.note(&format!("without the old leader: {new:?}"));
    stage.nodes.signal(leader, Signal::Continue);
    stage.measured();
    stage.fault(
        "leader goes on".into(),
        &[shard],
        Some(Duration::from_secs(15)),
    );
    Ok(())
}

fn power_cut(stage: &mut Stage) -> Result<(), String> {
    forgetful(stage, |stage, node| {
        stage.nodes.power_cut(node)?;
        stage.nodes.start(node)
    })?;
    stage.settle(Duration::from_secs(30))
}

/// The node may refuse to start; it must not take part as if nothing had happened.
fn empty_disk(stage: &mut Stage) -> Result<(), String> {
    forgetful(stage, |stage, node| {
        stage.nodes.kill(node)?;
        stage.wipe(node)
    })?;
    stage.sleep(5.0);
    stage.measured();
    for node in stage.others(&[]) {
        if stage.nodes.ready(&[node], Duration::from_secs(10)).is_err() {
            stage.note(&format!("node {} is refused, and taken away", node + 1));
            let _ = stage.nodes.kill(node);
            stage.nodes.retire(node);
        }
    }
    stage.recovered(Duration::from_secs(20))
}

/// Asks the nodes by the product's own command.
fn operate(stage: &mut Stage, args: &[&str]) -> Result<(), String> {
    stage.note(&format!("troupe cluster {}", args.join(" ")));
    let said = stage.nodes.cluster_command(args)?;
    for line in said.lines() {
        stage.note(&format!("  {line}"));
    }
    Ok(())
}

/// A node and its disk are gone for good; another one takes its place under load.
fn replaced(stage: &mut Stage) -> Result<(), String> {
    let gone = stage.rng.below(3);
    let led = stage.led_by(gone);
    let what = format!("node {}, leader of {led:?}, is lost", gone + 1);
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(5)));
    stage.nodes.kill(gone)?;
    stage.nodes.retire(gone);
    stage.sleep(2.0);
    stage.nodes.start(3)?;
    let peer = stage.nodes.peer(3);
    let gone = (gone + 1).to_string();
    let args = [
        "replace", "--node", &gone, "--with", "4", "--peer", &peer, "--within", "60",
    ];
    operate(stage, &args)?;
    stage.settle(Duration::from_secs(60))
}

/// No pause is longer than 2 s, and who was removed cannot disturb.
fn added_and_removed(stage: &mut Stage) -> Result<(), String> {
    let limit = Some(Duration::from_secs(2));
    stage.fault("node 4 is added".into(), &[0, 1, 2], limit);
    stage.nodes.start(3)?;
    let peer = stage.nodes.peer(3);
    let args = ["add", "--node", "4", "--peer", &peer, "--within", "60"];
    operate(stage, &args)?;
    stage.settle(Duration::from_secs(60))?;
    let gone = stage.rng.below(3);
    let name = (gone + 1).to_string();
    stage.fault(format!("node {name} is removed"), &[0, 1, 2], limit);
    operate(stage, &["remove", "--node", &name])?;
    // It runs on for a while, and comes back once more.
    stage.sleep(5.0);
    stage.nodes.kill(gone)?;
    stage.sleep(1.0);
    stage.nodes.start(gone)?;
    stage.sleep(5.0);
    stage.nodes.signal(gone, Signal::Terminate);
    let _ = stage.nodes.wait(gone, Duration::from_secs(10));
    stage.nodes.retire(gone);
    stage.settle(Duration::from_secs(60))
}

/// The voters lose the unsynced end of their logs, and a learner keeps it: they are the group. The learner gives
/// up what it has and is filled again, at one start after another as far as it had more of several shards.
fn learner_kept_more(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    let (voters, learner) = ([0, 1, 2], 3);
    stage.nodes.start(learner)?;
    let peer = stage.nodes.peer(learner);
    let args = [
        "add",
        "--node",
        "4",
        "--peer",
        &peer,
        "--learner",
        "--within",
        "60",
    ];
    operate(stage, &args)?;
    // A voter that synced just before the cut, or just then, has all that the learner has.
    for _ in 0..TRIES_OF_6C {
        let seconds = stage.rng.between(4, 8) as f64;
        stage.sleep(seconds);
        if voters_lose_power(stage, &voters, learner)? {
            return stage.settle(Duration::from_secs(60));
        }
        stage.settle(Duration::from_secs(60))?;
    }
    stage.problem("the learner never had more than the voters, or did not notice");
    Ok(())
}

/// Whether the learner then gave up what it had.
fn voters_lose_power(stage: &mut Stage, voters: &[usize], learner: usize) -> Result<bool, String> {
    stage.load.leave_uncommitted(true);
    stage.sleep(1.5);
    stage.fault("power cut of the voters".into(), voters, None);
    let at = stage.load.now();
    stage.power_cut = Some(PowerCut {
        at: at + 500_000,
        interval: UNSYNCED,
    });
    let before = unclean(stage);
    stage.nodes.power_off(voters)?;
    for node in voters {
        stage.nodes.power_cut(*node)?;
    }
    stage.nodes.start_all()?;
    stage.nodes.ready(voters, Duration::from_secs(30))?;
    stage.load.leave_uncommitted(false);
    stage.unclean_reported = unclean(stage) > before;
    let mut starts = 0;
    while stage.nodes.wait(learner, Duration::from_secs(10)).is_some() {
        starts += 1;
        if starts > SHARDS.len() {
            return Err("the learner ends at every start".into());
        }
        stage.nodes.start(learner)?;
    }
    let said = stage.nodes.log(learner).contains("other_log");
    stage.note(&format!(
        "the learner started again {starts} times, other_log: {said}"
    ));
    Ok(said)
}

/// A node misses more than the others keep of the log. Others do not wait for its catching up.
fn snapshot(stage: &mut Stage) -> Result<(), String> {
    stage.retention = true;
    let node = stage.rng.below(stage.nodes.count());
    let begin = stage.load.now();
    let all = [0, 1, 2];
    stage.sleep(5.0);
    let before = stage.load.p99(&all, begin);
    stage.note(&format!("kill -9 of node {}", node + 1));
    stage.nodes.kill(node)?;
    let seconds = stage.seconds.max(25) as f64;
    stage.sleep(seconds);
    let followed: Vec<usize> = (0..SHARDS.len())
        .filter(|s| stage.nodes.leader(*s).is_some())
        .collect();
    stage.fault(
        format!("node {} catches up", node + 1),
        &followed,
        Some(Duration::from_secs(5)),
    );
    let begin = stage.load.now();
    for _ in 0..3 {
        stage.nodes.start(node)?;
        let part = stage.rng.between(200, 900) as f64 / 1_000.0;
        stage.sleep(part);
        stage.nodes.kill(node)?;
    }
    stage.nodes.start(node)?;
    stage.recovered(Duration::from_secs(60))?;
    let during = stage.load.p99(&all, begin);
    stage.note(&format!(
        "p99 {before:.1?} before, {during:.1?} while it caught up"
    ));
    if during > 2 * before.max(Duration::from_millis(50)) {
        stage.problem(format!("p99 {before:.1?} became {during:.1?}"));
    }
    stage.settle(Duration::from_secs(30))
}

fn moved(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let leader = stage.leader(shard)?;
        let others = stage.others(&[leader]);
        let to = others[stage.rng.below(others.len())];
        let what = format!("{} moves from {} to {}", SHARDS[shard], leader + 1, to + 1);
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(2)));
        let name = (to + 1).to_string();
        operate(
            stage,
            &["transfer", "--shard", SHARDS[shard], "--to", &name],
        )?;
        let there = || stage.nodes.leader(shard).is_some_and(|(n, _)| n == to);
        if wait_until(Duration::from_secs(5), there).is_none() {
            stage.problem(format!("node {name} does not lead"));
        }
        stage.settle(Duration::from_secs(30))?;
    }
    operate(stage, &["rebalance"])
}
