//! Runs scenarios against real processes of a `troupe` binary and prints a table.

use clap::Parser;
use cluster_tests::processes::scenario::{self, Fault, Report};
use std::path::PathBuf;
use std::process::ExitCode;

/// Three nodes as processes on loopback, a fault on each leader under load, and a check that every
/// acknowledged message is where it was said to be.
#[derive(Parser)]
struct Args {
    /// The binary to test
    #[arg(long, value_name = "PATH")]
    troupe_binary: PathBuf,
    /// Only this scenario: kill-leader, pause-leader or rolling-restart
    #[arg(long)]
    scenario: Option<String>,
    /// Setting of every node. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep data and logs in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|f| args.scenario.as_deref().is_none_or(|s| s == f.name()))
        .collect();
    if chosen.is_empty() {
        eprintln!("processes: no such scenario");
        return ExitCode::from(2);
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

fn run(args: &Args, chosen: &[Fault]) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let temporary = tempfile::tempdir().map_err(|e| e.to_string())?;
    let base = args.keep.as_deref().unwrap_or(temporary.path());
    let mut passed = true;
    println!("{}", Report::HEAD);
    for fault in chosen {
        let dir = base.join(fault.name());
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let local = tokio::task::LocalSet::new();
        let work = scenario::run(&args.troupe_binary, &dir, *fault, &args.set);
        match local.block_on(&runtime, work) {
            Ok(report) => {
                println!("{}", report.row());
                passed &= report.passed();
            }
            Err(why) => {
                println!("| {} | | | | | | | | FAILED: {why} |", fault.name());
                passed = false;
            }
        }
    }
    Ok(passed)
}
