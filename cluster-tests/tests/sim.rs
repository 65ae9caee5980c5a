//! Fresh seeds in every run, fixed ones, and all that ever failed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seeds that once found a defect.
const ONCE_FAILED: [u64; 16] = [
    4,
    8,
    11,
    12,
    23,
    49,
    67,
    93,
    145,
    196,
    254,
    337,
    400,
    1795262735127,
    1795262825894,
    1795262911140,
];
const FIXED: std::ops::Range<u64> = 0..20;
const FRESH: u64 = 1000;

#[test]
fn a_node_keeps_its_promises_in_a_thousand_fresh_lives() {
    let base = match std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64),
    };
    println!("fresh seeds {base}..{}", base + FRESH);
    let seeds: Vec<u64> = FIXED.chain(ONCE_FAILED).chain(base..base + FRESH).collect();
    let begun = Instant::now();
    let report = cluster_tests::play_many(&seeds, None, None);
    let rate = report.seeds as f64 / begun.elapsed().as_secs_f64() * 3600.0;
    println!(
        "{} seeds, {rate:.0} per hour: {:#?}",
        report.seeds, report.counters
    );
    for (seed, failure) in &report.failures {
        eprintln!(
            "seed {seed}: {} at {} ms: {}\n  again: cargo run -p cluster-tests --release -- --seed {seed}",
            failure.invariant, failure.at_ms, failure.what
        );
    }
    assert!(
        report.failures.is_empty(),
        "{} seeds failed",
        report.failures.len()
    );
    let missed: Vec<_> = report
        .counters
        .all()
        .into_iter()
        .filter(|(_, n)| *n == 0)
        .collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

#[test]
fn a_seed_decides_every_step() {
    for seed in 0..10 {
        let steps = cluster_tests::play_twice(seed).unwrap();
        assert!(steps > 500, "seed {seed} took only {steps} steps");
    }
}
