//! `sim --seed N [--seeds K] [--minutes M]`: plays seeds and says what they came to.

use clap::Parser;
use std::time::Instant;

/// Plays seeds of the simulation.
#[derive(Parser)]
struct Args {
    /// The first seed.
    #[arg(long)]
    seed: u64,
    /// How many seeds, counted from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// About how many virtual minutes of faults a seed lasts, instead of 200 to 600 operations.
    #[arg(long)]
    minutes: Option<u32>,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Print everything that happens (one seed).
    #[arg(long)]
    tell: bool,
    /// Plant this defect, by the name that its test prints.
    #[arg(long)]
    defect: Option<String>,
}

/// The planted defect of this name.
fn planted(name: &str) -> Result<cluster_tests::defects::Planted, String> {
    use cluster_tests::defects::{ALL, CONSUMERS, CONSUMERS_OF_GROUP, FORWARDING, GROUP, MANY};
    let mut all = ALL.iter().chain(&GROUP).chain(&MANY);
    let mut all = all
        .by_ref()
        .chain(&CONSUMERS)
        .chain(&CONSUMERS_OF_GROUP)
        .chain(&FORWARDING)
        .copied();
    let found = all.find(|defect| format!("{defect:?}") == name);
    found.ok_or_else(|| format!("no planted defect is called {name}"))
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let seeds: Vec<u64> = (args.seed..args.seed.saturating_add(args.seeds)).collect();
    let how = cluster_tests::Play {
        nodes: args.nodes,
        minutes: args.minutes,
        defect: match args.defect.as_deref().map(planted).transpose() {
            Ok(defect) => defect,
            Err(why) => {
                eprintln!("{why}");
                return std::process::ExitCode::FAILURE;
            }
        },
    };
    if args.tell {
        let mut sim = cluster_tests::sim::Sim::new(args.seed, how, false);
        println!("{:#?}", sim.plan);
        sim.tell = true;
        let (result, _, _) = sim.run();
        println!("{result:?}");
        return std::process::ExitCode::from(u8::from(result.is_err()));
    }
    let begun = Instant::now();
    let report = cluster_tests::play_many(&seeds, how);
    let secs = begun.elapsed().as_secs_f64();
    for (name, count) in report.counters.all() {
        println!("{name:>20} {count}");
    }
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(seeds.len());
    let rate = report.seeds as f64 / secs * 3600.0 / threads as f64;
    println!(
        "{} seeds in {secs:.1} s: {rate:.0} seeds per hour and processor",
        report.seeds
    );
    for (seed, failure) in &report.failures {
        println!(
            "seed {seed}: {} at {} ms: {}",
            failure.invariant, failure.at_ms, failure.what
        );
        println!(
            "  again: cargo run -p cluster-tests --release -- --nodes {} --seed {seed}",
            args.nodes
        );
    }
    if report.failures.is_empty() {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
