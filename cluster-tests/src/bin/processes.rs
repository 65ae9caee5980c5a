//! Runs scenarios against real processes of a `troupe` binary and prints a table.

use clap::Parser;
use cluster_tests::processes::java;
use cluster_tests::processes::report::{Row, Verdict};
use cluster_tests::processes::scenario::{self, dir_name, must_be_empty, How, Scenario};
use cluster_tests::processes::watchdog::{self, Watchdog};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Three or five nodes as processes, faults under load, and a check of every acknowledgement,
/// every delivery and every offset.
#[derive(Parser)]
struct Args {
    /// The binary to test
    #[arg(long, value_name = "PATH", required_unless_present_any = ["list", "watchdog"])]
    troupe_binary: Option<PathBuf>,
    /// Only these scenarios: numbers or names, separated by commas; 9 means 9a and 9b
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Decides the choices of the driver
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs each scenario with so many seeds, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long faults come
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Messages a second, beside those that measure
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Every scenario with three seeds and 65 seconds of faults
    #[arg(long)]
    full: bool,
    /// The short list that runs with every change
    #[arg(long)]
    smoke: bool,
    /// Java clients beside the own load: java (5.5.0), java550 or java498
    #[arg(long, value_name = "CLIENT", value_parser = ["own", "java", "java550", "java498"])]
    load: Option<String>,
    /// Plain loopback, also where network namespaces could be made
    #[arg(long)]
    loopback: bool,
    /// A kind of violation that is shown, but does not fail a scenario. May be repeated
    #[arg(long, value_name = "KIND")]
    allow: Vec<String>,
    /// Setting of every node. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep data, logs and histories in this directory; without it only those of failures are kept.
    /// What an earlier run kept there is never used again: a scenario that would is refused
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Name the scenarios and end
    #[arg(long)]
    list: bool,
    /// Clean up behind the run with this prefix, once standard input closes
    #[arg(long, hide = true, value_name = "PREFIX")]
    watchdog: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let (Some(prefix), Some(base)) = (&args.watchdog, &args.keep) {
        watchdog::guard(prefix, base);
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<Scenario> = scenario::all()
        .into_iter()
        .filter(|s| wanted(&args, s))
        .collect();
    if chosen.is_empty() {
        eprintln!("processes: no such scenario; --list names them");
        return ExitCode::from(2);
    }
    if args.list {
        for s in chosen {
            println!("{:4} {}, {} nodes", s.number, s.name, s.nodes);
        }
        return ExitCode::SUCCESS;
    }
    match run(&args, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("processes: {why}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(args: &Args, s: &Scenario) -> bool {
    let digits = s.number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let named =
        |want: &String| want == s.number || want == digits || want.replace('-', " ") == s.name;
    (args.scenario.is_empty() || args.scenario.iter().any(named)) && (!args.smoke || s.smoke)
}

fn run(args: &Args, chosen: &[Scenario]) -> Result<bool, String> {
    let (seeds, seconds) = match args.full {
        true => (args.seeds.max(3), args.seconds.max(65)),
        false => (args.seeds, args.seconds),
    };
    let binary = args.troupe_binary.as_deref().unwrap_or(Path::new("troupe"));
    let binary = binary
        .canonicalize()
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix("troupe-processes-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let base = match &args.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
            dir.canonicalize().map_err(|e| e.to_string())?
        }
        None => temporary.path().to_owned(),
    };
    // Before the first scenario, not hours later.
    for seed in args.seed..args.seed + seeds {
        for scenario in chosen {
            must_be_empty(&dir_name(&base, scenario, seed))?;
        }
    }
    let java = match args.load.as_deref() {
        None | Some("own") => None,
        Some("java") => Some("java550".to_owned()),
        Some(client) => Some(client.to_owned()),
    };
    if let Some(client) = &java {
        java::prepare(client)?;
    }
    let prefix = format!("tmq{}", std::process::id());
    let mut watchdog = Watchdog::start(&prefix, &base).map_err(|e| e.to_string())?;
    let mut passed = true;
    let mut kept = false;
    println!("{}", Row::HEAD);
    for seed in args.seed..args.seed + seeds {
        for (n, scenario) in chosen.iter().enumerate() {
            // Start, drain and the checks come on top.
            watchdog.expect_within(Duration::from_secs(seconds + 300));
            let dir = dir_name(&base, scenario, seed);
            eprintln!("{}, seed {seed}", scenario.title());
            let row = scenario.run(&How {
                binary: binary.clone(),
                dir: dir.clone(),
                prefix: format!("{prefix}-{seed}-{n}"),
                seed,
                seconds,
                rate: args.rate,
                sets: args.set.clone(),
                java: java.clone(),
                allow: args.allow.clone(),
                loopback: args.loopback,
            });
            println!("{}", row.line());
            let failed = matches!(row.verdict, Verdict::Failed(_));
            passed &= !failed;
            kept |= failed;
            if !failed && args.keep.is_none() {
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }
    drop(watchdog);
    if kept && args.keep.is_none() {
        eprintln!(
            "processes: data, logs and histories of failures are in {}",
            temporary.keep().display()
        );
    }
    Ok(passed)
}
