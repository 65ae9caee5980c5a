//! Disks that lie: damage to all members, 33, and a bit that flips where no start looks, 34.

use super::{scenario, Scenario, NETWORK};
use crate::processes::damage::{self, Tail};
use crate::processes::nodes::{wait_until, Signal, SHARDS};
use crate::processes::read;
use crate::processes::stage::Stage;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tables are written early.
const SMALL: &[&str] = &["memtable_bytes=3145728"];

pub(super) const SCENARIOS: [Scenario; 6] = [
    Scenario {
        sets: SMALL,
        ..scenario("33a", "bit flip in every manifest", NETWORK, manifests)
    },
    Scenario {
        sets: SMALL,
        ..scenario("33b", "every CURRENT missing", NETWORK, currents)
    },
    scenario("33c", "synced end of every log lost", NETWORK, tails),
    Scenario {
        sets: SMALL,
        ..scenario("33d", "a rescue that only looks", NETWORK, look)
    },
    Scenario {
        sets: SMALL,
        ..scenario(
            "34a",
            "bit flip in an old table, read",
            NETWORK,
            found_on_read,
        )
    },
    Scenario {
        sets: SMALL,
        ..scenario(
            "34b",
            "bit flip in an old table, scrubbed",
            NETWORK,
            found_by_scrub,
        )
    },
];

/// All nodes are killed.
fn down(stage: &mut Stage, what: &str) -> Result<(), String> {
    stage.sends_may_fail = true;
    // Tables of a few seconds.
    stage.sleep(8.0);
    stage.fault(what.into(), &[], None);
    for node in 0..stage.nodes.count() {
        stage.nodes.kill(node)?;
    }
    Ok(())
}

/// The nodes start, and none of the shards serves what contradicts the marks: nothing at all.
fn serves_nothing(stage: &mut Stage) -> Result<(), String> {
    let before = stage.load.acked();
    stage.nodes.start_all()?;
    let all: Vec<usize> = (0..stage.nodes.count()).collect();
    let ready = stage.nodes.ready(&all, Duration::from_secs(15)).is_ok();
    let leader = (0..SHARDS.len()).find_map(|shard| stage.nodes.leader(shard));
    let acked = stage.load.acked() - before;
    if ready || leader.is_some() || acked > 0 {
        stage.problem(format!(
            "after damage to all members: ready {ready}, a leader {leader:?}, {acked} sends acknowledged"
        ));
    }
    for node in all {
        let page = stage.nodes.page(node, "/cluster").unwrap_or_default();
        let log = stage.nodes.log(node);
        let owes = page.contains("\"owed\":") && page.matches("\"owed\":0").count() < SHARDS.len();
        if !owes || !log.contains("unclean_recovery") {
            stage.problem(format!("node {} does not say what it waits for", node + 1));
        }
        stage.nodes.signal(node, Signal::Terminate);
        if stage.nodes.wait(node, Duration::from_secs(10)).is_none() {
            stage.nodes.kill(node)?;
        }
    }
    Ok(())
}

/// What the start put aside becomes the database again, with the tables that were in it before.
fn put_back(stage: &mut Stage, node: usize, before: &[String]) -> Result<PathBuf, String> {
    let data = stage.nodes.data(node);
    let text = |e: std::io::Error| format!("{}: {e}", data.display());
    let (db, aside) = (data.join("db"), data.join("db.damaged-1"));
    if !aside.exists() {
        return Err(format!("node {} put nothing aside", node + 1));
    }
    for name in before.iter().filter(|name| name.ends_with(".sst")) {
        if !aside.join(name).exists() {
            std::fs::rename(db.join(name), aside.join(name)).map_err(text)?;
        }
    }
    std::fs::remove_dir_all(&db).map_err(text)?;
    std::fs::rename(&aside, &db).map_err(text)?;
    std::fs::rename(db.join("synced.marks"), data.join("synced.marks")).map_err(text)?;
    Ok(db)
}

fn names(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = files
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Nobody can open what it has: no empty cluster comes up, and with the bits put right all is there.
fn manifests(stage: &mut Stage) -> Result<(), String> {
    down(stage, "a bit flips in the manifest of every node")?;
    let mut flipped = Vec::new();
    for node in 0..stage.nodes.count() {
        let db = stage.nodes.data(node).join("db");
        let file = damage::named(&db, "MANIFEST").pop().ok_or("no manifest")?;
        let good = std::fs::read(&file).map_err(|e| e.to_string())?;
        let before = names(&db);
        damage::flip(&file, (30, 70), &mut stage.rng).map_err(|e| e.to_string())?;
        flipped.push((file.file_name().map(PathBuf::from), good, before));
    }
    serves_nothing(stage)?;
    for (node, (name, good, before)) in flipped.into_iter().enumerate() {
        let db = put_back(stage, node, &before)?;
        let name = name.ok_or("a manifest without a name")?;
        std::fs::write(db.join(name), good).map_err(|e| e.to_string())?;
    }
    stage.nodes.start_all()?;
    stage.settle(Duration::from_secs(30))
}

fn currents(stage: &mut Stage) -> Result<(), String> {
    down(stage, "the file CURRENT of every node is gone")?;
    let mut missing = Vec::new();
    for node in 0..stage.nodes.count() {
        let db = stage.nodes.data(node).join("db");
        let before = names(&db);
        let current = db.join("CURRENT");
        let good = std::fs::read(&current).map_err(|e| e.to_string())?;
        std::fs::remove_file(&current).map_err(|e| e.to_string())?;
        missing.push((before, good));
    }
    serves_nothing(stage)?;
    for (node, (before, good)) in missing.into_iter().enumerate() {
        let db = put_back(stage, node, &before)?;
        let kept = names(&db);
        let lost: Vec<_> = before.iter().filter(|name| !kept.contains(name)).collect();
        if lost.iter().any(|name| *name != "CURRENT") {
            stage.problem(format!("node {} has lost {lost:?}", node + 1));
        }
        std::fs::write(db.join("CURRENT"), good).map_err(|e| e.to_string())?;
    }
    stage.nodes.start_all()?;
    stage.settle(Duration::from_secs(30))
}

/// The ends of the logs are gone everywhere. What the marks say was there is not begun without.
fn tails(stage: &mut Stage) -> Result<(), String> {
    down(stage, "every node loses the synced end of its log")?;
    let mut saved = Vec::new();
    for node in 0..stage.nodes.count() {
        let data = stage.nodes.data(node);
        let copy = data.with_extension("saved");
        copy_dir(&data, &copy)?;
        let log = damage::files(&data.join("db"), "log")
            .pop()
            .ok_or("no log")?;
        // Zeros stand ahead of the end.
        let bytes = std::fs::read(&log).map_err(|e| e.to_string())?;
        let zeros = bytes.iter().rev().take_while(|b| **b == 0).count() as u64;
        damage::tail(&log, Tail::Cut, zeros + 200_000, &mut stage.rng)
            .map_err(|e| e.to_string())?;
        saved.push(copy);
    }
    serves_nothing(stage)?;
    for (node, copy) in saved.iter().enumerate() {
        let data = stage.nodes.data(node);
        std::fs::remove_dir_all(&data).map_err(|e| e.to_string())?;
        std::fs::rename(copy, &data).map_err(|e| e.to_string())?;
    }
    stage.nodes.start_all()?;
    stage.settle(Duration::from_secs(30))
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), String> {
    let text = |e: std::io::Error| format!("{}: {e}", from.display());
    std::fs::create_dir_all(to).map_err(text)?;
    for file in std::fs::read_dir(from).map_err(text)? {
        let file = file.map_err(text)?;
        let to = to.join(file.file_name());
        if file.file_type().map_err(text)?.is_dir() {
            copy_dir(&file.path(), &to)?;
        } else {
            std::fs::copy(file.path(), &to).map_err(text)?;
        }
    }
    Ok(())
}

/// `rescue` without an accepted loss changes nothing, also where the database is damaged.
fn look(stage: &mut Stage) -> Result<(), String> {
    let node = stage.rng.below(stage.nodes.count());
    stage.sleep(8.0);
    stage.fault(format!("node {} is damaged", node + 1), &[0, 1, 2], None);
    stage.nodes.kill(node)?;
    let data = stage.nodes.data(node);
    let manifest = damage::named(&data.join("db"), "MANIFEST").pop();
    let manifest = manifest.ok_or("no manifest")?;
    damage::flip(&manifest, (30, 70), &mut stage.rng).map_err(|e| e.to_string())?;
    let before = (names(&data), names(&data.join("db")));
    let said = stage.nodes.rescue(node, false)?;
    stage.note(&said);
    let after = (names(&data), names(&data.join("db")));
    if before != after {
        stage.problem(format!("looking changed {before:?} to {after:?}"));
    }
    if !said.contains("DAMAGED") {
        stage.problem(format!("it does not tell of the damage: {said}"));
    }
    stage.nodes.start(node)?;
    stage.settle(Duration::from_secs(30))
}

/// A clean stop leaves nothing to be replayed; then a bit flips in an old table of a log, and the node leads.
fn flip_old_table(stage: &mut Stage) -> Result<usize, String> {
    let node = stage.rng.below(stage.nodes.count());
    stage.sleep(10.0);
    let what = format!("a bit flips in an old table of node {}", node + 1);
    stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(5)));
    stage.nodes.signal(node, Signal::Terminate);
    if stage.nodes.wait(node, Duration::from_secs(20)).is_none() {
        return Err("it does not stop".into());
    }
    let tables = damage::files(&stage.nodes.data(node).join("db"), "sst");
    let size = |p: &PathBuf| p.metadata().map_or(0, |m| m.len());
    let log = tables.iter().find(|p| size(p) > 800_000);
    let file = log.ok_or("there is no table of a log")?;
    let at = damage::flip(file, (30, 70), &mut stage.rng).map_err(|e| e.to_string())?;
    stage.note(&format!("bit flip at {at} of {}", file.display()));
    stage.nodes.start(node)?;
    stage.settle(Duration::from_secs(30))?;
    Ok(node)
}

/// The damage was seen and mended, and nothing is lost.
fn mended(stage: &mut Stage, node: usize) {
    let count = |name: &str| stage.nodes.metric(node, name).unwrap_or(0.0);
    let done = wait_until(Duration::from_secs(20), || {
        let found = count("bad_entries_total");
        found > 0.0 && found == count("mended_entries_total")
    });
    let [found, mended, lost] = [
        "bad_entries_total",
        "mended_entries_total",
        "lost_entries_total",
    ]
    .map(count);
    stage.note(&format!(
        "{found} entries found bad, {mended} mended, {lost} lost"
    ));
    if done.is_none() || lost > 0.0 {
        stage.problem(format!("{found} found bad, {mended} mended, {lost} lost"));
    }
}

/// Consumers of everything, through the damaged node as the leader of all shards.
fn found_on_read(stage: &mut Stage) -> Result<(), String> {
    let node = flip_old_table(stage)?;
    let to = (node + 1).to_string();
    for shard in SHARDS {
        stage
            .nodes
            .cluster_command(&["transfer", "--shard", shard, "--to", &to])?;
    }
    let addr = |shard: u8| vec![stage.nodes.replica(node, usize::from(shard))];
    let read = stage.block_on(read::read_all(|place| addr(place.shard)));
    match read {
        Ok((stored, _)) => {
            let gaps = stored.iter().filter(|(_, queue)| {
                let want = queue.max - queue.min;
                queue.messages.len() as i64 != want
            });
            for (place, queue) in gaps {
                let (read, min, max) = (queue.messages.len(), queue.min, queue.max);
                stage.problem(format!("{place:?}: {read} messages read of {min}..{max}"));
            }
        }
        Err(why) => stage.problem(format!("reading through the damaged node: {why}")),
    }
    mended(stage, node);
    stage.settle(Duration::from_secs(30))
}

/// Nobody reads it, and an operator asks for a scrub.
fn found_by_scrub(stage: &mut Stage) -> Result<(), String> {
    let node = flip_old_table(stage)?;
    match stage.nodes.cluster_command(&["scrub", "--within", "60"]) {
        Ok(said) => stage.note(said.trim()),
        Err(why) => stage.problem(format!("scrub: {why}")),
    }
    mended(stage, node);
    stage.settle(Duration::from_secs(30))
}
