//! Seeded simulation of one node or of several: the product's cores on a simulated disk, network
//! and clock, in one thread.
//! One seed decides everything, so that a failure can be played again:
//!
//! ```text
//! cargo run -p cluster-tests --release -- --seed 4711
//! ```
//!
//! [`sim`] is the world, [`node`] the shell around the cores, [`disk`] the writer, [`clients`] the
//! workload, [`group`] several nodes and the network between them, [`extra`] faults that a
//! quarter of the lives have beside those of the plan, [`invariants`] the checkers,
//! [`defects`] what they are proved with.
//!
//! [`processes`] is the other half: real processes under real faults.

mod again;
mod answers;
mod behind;
mod changes;
pub mod clients;
pub mod clock;
pub mod clocks;
pub mod consumers;
pub mod counters;
pub mod defects;
pub mod disk;
mod disk_faults;
pub mod doors;
pub mod end;
pub mod extra;
pub mod faults;
mod fills;
mod fooled;
pub mod group;
pub mod invariants;
mod later;
mod lease;
mod links;
mod losses;
pub mod moments;
pub mod mutants;
mod network;
pub mod node;
pub mod plan;
mod probe;
pub mod processes;
mod promises;
pub mod publish;
mod resize;
pub mod restart;
mod rhythm;
mod rot;
pub mod schedule;
pub mod seen;
pub mod sim;
mod stalls;
mod stops;
mod stress;
pub mod view;

use counters::Counters;
use defects::Planted;
use sim::{Failure, Sim};
use troupemq::model::ShardId;

/// The shard that is simulated.
pub const SHARD: ShardId = ShardId(1);

/// What to play beside the seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Play {
    /// Nodes; 0 and 1 for one alone.
    pub nodes: usize,
    /// Virtual minutes instead of a number of operations.
    pub minutes: Option<u32>,
    pub defect: Option<Planted>,
}

/// Plays one seed. A panic is a failure like any other.
pub fn play(seed: u64, how: Play) -> (Result<(), Failure>, Counters) {
    let (result, counters, _) = guarded(seed, how, false);
    (result, counters)
}

/// Plays one seed twice and compares every step.
pub fn play_twice(seed: u64, how: Play) -> Result<usize, String> {
    let (_, _, first) = guarded(seed, how, true);
    let (_, _, second) = guarded(seed, how, true);
    match first.iter().zip(&second).position(|(a, b)| a != b) {
        Some(step) => Err(format!("seed {seed} took another way at step {step}")),
        None if first.len() != second.len() => Err(format!(
            "seed {seed} took {} and {} steps",
            first.len(),
            second.len()
        )),
        None => Ok(first.len()),
    }
}

fn guarded(seed: u64, how: Play, trace: bool) -> (Result<(), Failure>, Counters, Vec<u64>) {
    let run = std::panic::AssertUnwindSafe(|| Sim::new(seed, how, trace).run());
    match std::panic::catch_unwind(run) {
        Ok((result, mut counters, trace)) => {
            let mut clocks = || clocks::play(seed, how.nodes.max(1), &mut counters);
            let result = result.and_then(|()| clocks());
            (result, counters, trace)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let what = text.unwrap_or_else(|| "a panic without a text".into());
            (
                Err(Failure {
                    invariant: "panic",
                    what,
                    at_ms: 0,
                }),
                Counters::default(),
                Vec::new(),
            )
        }
    }
}

/// What a range of seeds came to.
#[derive(Debug, Default)]
pub struct Report {
    pub counters: Counters,
    pub failures: Vec<(u64, Failure)>,
    pub seeds: u64,
}

/// Plays seeds on all processors; one in a hundred twice.
pub fn play_many(seeds: &[u64], how: Play) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |n: usize| seeds.iter().skip(n).step_by(threads).copied();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let run = |n| {
            scope.spawn(move || {
                let mut report = Report::default();
                for seed in share(n) {
                    let (result, counters) = play(seed, how);
                    report.counters.add(&counters);
                    report.seeds += 1;
                    if let Err(failure) = result {
                        report.failures.push((seed, failure));
                    }
                    if seed % 100 == 0 && how.defect.is_none() {
                        if let Err(what) = play_twice(seed, how) {
                            report.failures.push((
                                seed,
                                Failure {
                                    invariant: "determinism",
                                    what,
                                    at_ms: 0,
                                },
                            ));
                        }
                    }
                }
                report
            })
        };
        let handles: Vec<_> = (0..threads).map(run).collect();
        handles.into_iter().filter_map(|h| h.join().ok()).collect()
    });
    let mut all = Report::default();
    for report in reports {
        all.counters.add(&report.counters);
        all.failures.extend(report.failures);
        all.seeds += report.seeds;
    }
    all.failures.sort_by_key(|(seed, _)| *seed);
    all
}
