//! Disks that fail: 6, and 14 to 19.

use super::{Needs, Scenario, NETWORK};
use crate::processes::check::PowerCut;
use crate::processes::damage::{self, Tail};
use crate::processes::history::{Place, TOPICS};
use crate::processes::nodes::{wait_until, Signal, SHARDS};
use crate::processes::shim;
use crate::processes::stage::Stage;
use crate::processes::throttle::Throttle;
use std::time::Duration;
use troupemq::client::Client;
use troupemq::wire::remoting::code::request;
use troupemq::wire::remoting::Val;

const DISKS: Needs = Needs {
    disk_mib: Some(768),
    ..NETWORK
};
const THROTTLED: Needs = Needs {
    throttle: true,
    ..DISKS
};
const SHIM: Needs = Needs {
    shim: true,
    ..NETWORK
};
/// What a power cut may take in ASYNC_FLUSH: the flush interval, and the time that stopping all
/// nodes takes, in microseconds.
const UNSYNCED: u64 = 1_000_000;
/// Space left on a full disk, in MiB: less than the last 5 %.
const LEFT: u64 = 4;

pub(super) const SCENARIOS: [Scenario; 15] = [
    scenario(
        "6a",
        "power cut of all, SYNC_FLUSH",
        DISKS,
        false,
        power_sync,
    ),
    Scenario {
        sets: &["flush_disk_type=ASYNC_FLUSH"],
        ..scenario(
            "6b",
            "power cut of all, ASYNC_FLUSH",
            DISKS,
            false,
            power_async,
        )
    },
    scenario(
        "14a",
        "slow disk of a follower",
        THROTTLED,
        false,
        slow_follower,
    ),
    scenario(
        "14b",
        "slow disk of a leader",
        THROTTLED,
        false,
        slow_leader,
    ),
    scenario("15", "disk hang of a leader", DISKS, false, hang),
    scenario(
        "16a",
        "disk full on a follower",
        DISKS,
        false,
        full_follower,
    ),
    scenario("16b", "disk full on a leader", DISKS, true, full_leader),
    scenario("16c", "disk full on all", DISKS, false, full_all),
    scenario(
        "17a",
        "sync error on a leader",
        SHIM,
        false,
        sync_error_leader,
    ),
    scenario(
        "17b",
        "sync error on a follower",
        SHIM,
        false,
        sync_error_follower,
    ),
    scenario(
        "18a",
        "torn write at the end of the log",
        NETWORK,
        true,
        torn,
    ),
    scenario(
        "18b",
        "synced end of the log lost",
        NETWORK,
        false,
        synced_end_lost,
    ),
    scenario("19a", "bit flip in the log", NETWORK, false, flip_log),
    Scenario {
        // Tables are written early.
        sets: &["memtable_bytes=1048576"],
        ..scenario("19b", "bit flip in a table", NETWORK, false, flip_table)
    },
    scenario(
        "19c",
        "bit flip in the manifest",
        NETWORK,
        false,
        flip_manifest,
    ),
];

const fn scenario(
    number: &'static str,
    name: &'static str,
    needs: Needs,
    smoke: bool,
    work: fn(&mut Stage) -> Result<(), String>,
) -> Scenario {
    Scenario {
        smoke,
        ..super::scenario(number, name, needs, work)
    }
}

/// All nodes stand still, their disks are off, and they start again.
fn power_cut(stage: &mut Stage) -> Result<(), String> {
    stage.fault(
        "power cut of all".into(),
        &[0, 1, 2],
        Some(Duration::from_secs(15)),
    );
    let order = stage.rng.order(stage.nodes.count());
    stage.nodes.power_off(&order)?;
    for node in 0..stage.nodes.count() {
        stage.nodes.power_cut(node)?;
    }
    stage.nodes.start_all()?;
    stage.settle(Duration::from_secs(30))
}

fn power_sync(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    while stage.more() {
        power_cut(stage)?;
    }
    Ok(())
}

fn power_async(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    let seconds = stage.rng.between(3, 8) as f64;
    stage.sleep(seconds);
    let before: f64 = unclean(stage);
    stage.load.leave_uncommitted(true);
    stage.sleep(0.5);
    let at = stage.load.now();
    stage.power_cut = Some(PowerCut {
        at: at + UNSYNCED / 2,
        interval: UNSYNCED,
    });
    power_cut(stage)?;
    stage.load.leave_uncommitted(false);
    let told = unclean(stage) - before;
    stage.note(&format!("{told} unclean recoveries reported"));
    stage.unclean_reported = told > 0.0;
    Ok(())
}

/// Starts at which nodes found that they had lost entries, as they count them.
pub(super) fn unclean(stage: &Stage) -> f64 {
    let of = |n| stage.nodes.metric(n, "unclean_recovery_total");
    (0..stage.nodes.count()).filter_map(of).sum()
}

fn throttle(stage: &mut Stage, node: usize) -> Result<Throttle, String> {
    let device = stage.nodes.disk(node)?.device()?;
    let pid = stage.nodes.pid(node).ok_or("the node does not run")?;
    let name = format!("{}-slow", stage.nodes.prefix());
    Throttle::new(&name, &device, pid, 1 << 20, 20)
}

/// Others do not wait for a follower whose disk is slow.
fn slow_follower(stage: &mut Stage) -> Result<(), String> {
    let node = stage.rng.below(stage.nodes.count());
    let followed = stage.followed_by(node);
    let begin = stage.load.now();
    stage.sleep(6.0);
    let before = stage.load.p99(&followed, begin);
    let what = format!("node {} writes 1 MiB/s, 20 times a second", node + 1);
    stage.fault(what, &followed, Some(Duration::from_secs(1)));
    let slow = throttle(stage, node)?;
    let begin = stage.load.now();
    let seconds = stage.seconds.min(20) as f64;
    stage.sleep(seconds);
    let during = stage.load.p99(&followed, begin);
    drop(slow);
    stage.note(&format!(
        "p99 {before:.1?} before, {during:.1?} with a slow follower"
    ));
    // Below some milliseconds it is the machine that is measured.
    if during > 2 * before.max(Duration::from_millis(30)) {
        stage.problem(format!("p99 {before:.1?} became {during:.1?}"));
    }
    stage.settle(Duration::from_secs(60))
}

/// A leader whose disk is slow hands over or slows its producers down, and its memory is bounded.
fn slow_leader(stage: &mut Stage) -> Result<(), String> {
    let shard = stage.rng.below(SHARDS.len());
    let node = stage.leader(shard)?;
    let led = stage.led_by(node);
    let what = format!("node {}, leader of {led:?}, writes 1 MiB/s", node + 1);
    stage.fault(what, &led, Some(Duration::from_secs(10)));
    let slow = throttle(stage, node)?;
    let mut most = 0;
    for _ in 0..stage.seconds.min(20) {
        stage.sleep(1.0);
        most = most.max(stage.nodes.resident_mib(node).unwrap_or(0));
    }
    drop(slow);
    stage.note(&format!("at most {most} MiB resident"));
    if most > 600 {
        stage.problem(format!("{most} MiB resident"));
    }
    stage.settle(Duration::from_secs(60))
}

/// The process lives, but whatever writes hangs: others lead within 10 s.
fn hang(stage: &mut Stage) -> Result<(), String> {
    let shard = stage.rng.below(SHARDS.len());
    let node = stage.leader(shard)?;
    let led = stage.led_by(node);
    let what = format!("disk of node {}, leader of {led:?}, hangs", node + 1);
    stage.fault(what, &led, Some(Duration::from_secs(10)));
    stage.nodes.disk(node)?.freeze()?;
    stage.sleep(20.0);
    stage.nodes.disk(node)?.thaw();
    stage.note("thawed");
    restart_if_ended(stage, node)?;
    stage.settle(Duration::from_secs(60))
}

/// A node may end when its disk fails: its supervisor starts it again.
fn restart_if_ended(stage: &mut Stage, node: usize) -> Result<(), String> {
    stage.sleep(1.0);
    if !stage.nodes.runs(node) {
        let _ = stage.nodes.wait(node, Duration::from_secs(5));
        stage.note(&format!("node {} ended and is started again", node + 1));
        stage.nodes.start(node)?;
    }
    Ok(())
}

/// Reads, and offsets of consumers, work on a full disk.
fn reads_work(stage: &mut Stage, shard: usize) {
    let client = Client::new(stage.nodes.name_servers(), Duration::from_secs(3));
    let node = stage.leader(shard).unwrap_or(0);
    let addr = stage.nodes.replica(node, shard);
    let place = Place {
        topic: 0,
        shard: shard as u8,
        queue: 0,
    };
    let topic = TOPICS[usize::from(place.topic)];
    let done = stage.block_on(async {
        client.max_offset(&addr, topic, 0).await?;
        let from = (topic, 0, 0);
        client
            .pull(&addr, "full", from, "*", Duration::ZERO)
            .await?;
        let ext = [
            ("consumerGroup", Val::Str("full")),
            ("topic", Val::Str(topic)),
            ("queueId", Val::Int(0)),
            ("commitOffset", Val::Int(1)),
        ];
        let code = request::UPDATE_CONSUMER_OFFSET;
        client.call(&addr, code, &ext, &[]).await
    });
    if let Err(why) = done {
        stage.problem(format!("on a full disk: {why}"));
    }
}

/// The disk of a follower of these shards fills up: they go on.
fn full_follower(stage: &mut Stage) -> Result<(), String> {
    let node = stage.rng.below(stage.nodes.count());
    let followed = stage.followed_by(node);
    let what = format!(
        "disk of node {}, follower of {followed:?}, is full",
        node + 1
    );
    stage.fault(what, &followed, Some(Duration::from_secs(2)));
    stage.nodes.disk(node)?.fill(LEFT)?;
    let seconds = stage.seconds.min(20) as f64;
    stage.sleep(seconds);
    stage.measured();
    space_returns(stage, &[node])
}

/// Space comes back: the nodes go on by themselves.
fn space_returns(stage: &mut Stage, of: &[usize]) -> Result<(), String> {
    stage.fault(
        "space again".into(),
        &[0, 1, 2],
        Some(Duration::from_secs(10)),
    );
    for node in of {
        stage.nodes.disk(*node)?.deflate();
    }
    for node in of {
        if !stage.nodes.runs(*node) {
            stage.problem(format!("node {} ended on a full disk", node + 1));
            let _ = stage.nodes.wait(*node, Duration::ZERO);
            stage.nodes.start(*node)?;
        }
    }
    stage.settle(Duration::from_secs(30))
}

/// Producers of the leader's shards are refused or served elsewhere; reads go on.
fn full_leader(stage: &mut Stage) -> Result<(), String> {
    let shard = stage.rng.below(SHARDS.len());
    let node = stage.leader(shard)?;
    let led = stage.led_by(node);
    stage.fault(
        format!("disk of node {}, leader of {led:?}, is full", node + 1),
        &stage.followed_by(node),
        Some(Duration::from_secs(2)),
    );
    stage.nodes.disk(node)?.fill(LEFT)?;
    let half = stage.seconds.min(16) as f64 / 2.0;
    stage.sleep(half);
    reads_work(stage, shard);
    stage.sleep(half);
    stage.measured();
    space_returns(stage, &[node])
}

fn full_all(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    stage.note("all disks are full");
    for node in 0..stage.nodes.count() {
        stage.nodes.disk(node)?.fill(LEFT)?;
    }
    stage.sleep(5.0);
    for shard in 0..SHARDS.len() {
        reads_work(stage, shard);
    }
    let before = stage.load.acked();
    stage.sleep(5.0);
    let during = stage.load.acked() - before;
    if during > 0 {
        stage.problem(format!("{during} messages acknowledged on full disks"));
    }
    let all: Vec<usize> = (0..stage.nodes.count()).collect();
    space_returns(stage, &all)
}

/// One sync fails. The replica ends or steps down; the error is not tried away.
fn sync_error(stage: &mut Stage, node: usize, shards: &[usize]) -> Result<(), String> {
    let what = format!("one sync of node {} fails", node + 1);
    stage.fault(what, shards, Some(Duration::from_secs(5)));
    let control = stage.nodes.control(node);
    shim::fail_syncs(&control, 1)?;
    let failed = || shim::failed_syncs(&control) > 0;
    if wait_until(Duration::from_secs(5), failed).is_none() {
        return Err("no sync came in 5 s".into());
    }
    let from = stage.load.now();
    let noticed = wait_until(Duration::from_secs(5), || {
        let leads =
            (0..SHARDS.len()).any(|s| stage.nodes.leader(s).is_some_and(|(n, _)| n == node));
        !stage.nodes.runs(node) || !leads
    });
    match noticed {
        Some(took) => stage.note(&format!("it leads nothing after {took:.2?}")),
        None => stage.problem("it goes on to lead after a failed sync"),
    }
    stage.sleep(2.0);
    let served = stage.load.acked_by(node, from + 300_000);
    if served > 0 && !stage.nodes.runs(node) {
        stage.problem(format!("{served} acknowledged on it afterwards"));
    }
    let told = wait_until(Duration::from_secs(10), || {
        let view = stage.nodes.view(node).unwrap_or_default();
        !stage.nodes.runs(node) || view.iter().any(|s| s.failed.is_some())
    });
    if told.is_none() {
        stage.problem("it neither ends nor reports a shard as failed");
    }
    stage.nodes.signal(node, Signal::Terminate);
    if stage.nodes.wait(node, Duration::from_secs(10)).is_none() {
        stage.nodes.kill(node)?;
    }
    stage.nodes.start(node)?;
    stage.settle(Duration::from_secs(30))
}

fn sync_error_leader(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        shim::create(&stage.nodes.control(node)).map_err(|e| e.to_string())?;
        sync_error(stage, node, &led)?;
    }
    Ok(())
}

fn sync_error_follower(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let followed = stage.followed_by(node);
        shim::create(&stage.nodes.control(node)).map_err(|e| e.to_string())?;
        sync_error(stage, node, &followed)?;
    }
    Ok(())
}

/// Behind the last whole record is what was being written when the power went: it is dropped.
fn torn(stage: &mut Stage) -> Result<(), String> {
    spoil(stage, &[Tail::Unfinished, Tail::Appended])
}

/// What was synced is gone from the end of the log. The node says so, does not vote with what it
/// has, and is filled again by its peers.
fn synced_end_lost(stage: &mut Stage) -> Result<(), String> {
    spoil(stage, &[Tail::Cut, Tail::Zeroed, Tail::Garbage])
}

fn spoil(stage: &mut Stage, kinds: &[Tail]) -> Result<(), String> {
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let led = stage.led_by(node);
        let how = kinds[stage.rng.below(kinds.len())];
        let bytes = stage.rng.between(1, 20_000);
        let what = format!(
            "node {}, leader of {led:?}: end of the log {how:?}, {bytes} bytes",
            node + 1
        );
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(5)));
        stage.nodes.kill(node)?;
        let logs = damage::files(&stage.nodes.data(node).join("db"), "log");
        let last = logs.last().ok_or("there is no log file")?;
        damage::tail(last, how, bytes, &mut stage.rng).map_err(|e| e.to_string())?;
        stage.sleep(0.5);
        stage.nodes.start(node)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

/// Damage that no crash makes. The replica says so and serves nothing of it; a wiped one fills up
/// from its peers.
fn flip(
    stage: &mut Stage,
    choose: fn(&mut Stage, usize) -> Option<std::path::PathBuf>,
) -> Result<(), String> {
    let node = stage.rng.below(stage.nodes.count());
    // Files of a few seconds.
    stage.sleep(6.0);
    let what = format!("node {} is damaged", node + 1);
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(5)));
    stage.nodes.kill(node)?;
    let file = choose(stage, node).ok_or("there is no such file")?;
    let at = damage::flip(&file, (30, 70), &mut stage.rng).map_err(|e| e.to_string())?;
    stage.note(&format!("bit flip at {at} of {}", file.display()));
    stage.nodes.start(node)?;
    let healthy = {
        let all = [node];
        stage.nodes.ready(&all, Duration::from_secs(15)).is_ok()
    };
    let log = stage.nodes.log(node).to_lowercase();
    let named = log.contains("corrupt") || log.contains("checksum") || log.contains("damage");
    stage.note(&format!(
        "ready: {healthy}, damage named in its log: {named}"
    ));
    if !healthy && !named {
        stage.problem("it does not start and does not say why");
    }
    if healthy {
        return stage.settle(Duration::from_secs(30));
    }
    stage.note("it is wiped and fills up from its peers");
    if stage.nodes.wait(node, Duration::ZERO).is_none() {
        let _ = stage.nodes.kill(node);
    }
    stage.wipe(node)?;
    stage.settle(Duration::from_secs(30))
}

fn flip_log(stage: &mut Stage) -> Result<(), String> {
    flip(stage, |stage, node| {
        damage::files(&stage.nodes.data(node).join("db"), "log").pop()
    })
}

fn flip_table(stage: &mut Stage) -> Result<(), String> {
    flip(stage, |stage, node| {
        let tables = damage::files(&stage.nodes.data(node).join("db"), "sst");
        let size = |p: &std::path::PathBuf| p.metadata().map_or(0, |m| m.len());
        tables.into_iter().max_by_key(size)
    })
}

fn flip_manifest(stage: &mut Stage) -> Result<(), String> {
    flip(stage, |stage, node| {
        let db = stage.nodes.data(node).join("db");
        let name = ["MANIFEST", "CURRENT"][stage.rng.below(2)];
        damage::named(&db, name).pop()
    })
}
