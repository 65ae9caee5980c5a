//! `mutants`: takes guards out of a copy of the sources, one at a time, and plays seeds of the simulation.
//! The answer is a Markdown table: which guards are noticed, and which are not.
//!
//! The copy is built once: each guard has a switch in it.

use clap::Parser;
use cluster_tests::mutants::{self, Guard};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Seeds that one process plays: the first failure ends the search.
const AT_ONCE: u64 = 50;
/// A process that plays them longer hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// Takes guards out one by one.
#[derive(Parser)]
struct Args {
    /// Where the copy of the sources and its build go. The first build compiles everything; a copy of an
    /// earlier target directory as `SCRATCH/target` spares that.
    #[arg(long, default_value = "target/mutants")]
    scratch: PathBuf,
    /// Only guards whose file or purpose holds this text; several times for several texts.
    #[arg(long)]
    only: Vec<String>,
    /// Seeds for each number of nodes.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Numbers of nodes, in this order.
    #[arg(long, value_delimiter = ',', default_value = "3,1,5")]
    nodes: Vec<usize>,
    /// Guards that are tried at the same time; each process of the simulation uses all processors.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The program that builds.
    #[arg(long, default_value = "cargo")]
    cargo: PathBuf,
}

/// What the simulation noticed.
struct Found {
    nodes: usize,
    seed: u64,
    what: String,
}

/// What became of a guard.
struct Outcome {
    alone: Option<Found>,
    /// Together with those that back it.
    together: Option<Found>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, String> {
    build(args)?;
    let guards = mutants::all();
    let wanted = |g: &Guard| {
        let named = |only: &String| g.file.contains(only) || g.what.contains(only);
        args.only.is_empty() || args.only.iter().any(named)
    };
    let todo: Vec<usize> = (0..guards.len()).filter(|n| wanted(&guards[*n])).collect();
    let next = AtomicUsize::new(0);
    let one = |worker: usize| {
        let mut done = Vec::new();
        while let Some(number) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = try_one(args, worker, &guards, *number)?;
            eprintln!("{}", row(&guards[*number], &outcome));
            done.push((*number, outcome));
        }
        Ok(done)
    };
    let results: Vec<Result<Vec<(usize, Outcome)>, String>> = std::thread::scope(|scope| {
        let workers = (0..args.jobs.max(1)).map(|n| scope.spawn(move || one(n)));
        let workers: Vec<_> = workers.collect();
        let ended = || Err("a worker ended".to_owned());
        let join = |w: std::thread::ScopedJoinHandle<'_, _>| w.join().unwrap_or_else(|_| ended());
        workers.into_iter().map(join).collect()
    });
    let mut outcomes = Vec::new();
    for result in results {
        outcomes.extend(result?);
    }
    outcomes.sort_by_key(|(number, _)| *number);
    println!("| guard | file | noticed | by |\n|---|---|---|---|");
    for (number, outcome) in &outcomes {
        println!("{}", row(&guards[*number], outcome));
    }
    let noticed = outcomes.iter().filter(|(_, o)| o.alone.is_some()).count();
    let together = outcomes.iter().filter(|(_, o)| o.together.is_some());
    let explained = outcomes.iter().filter(|(n, o)| {
        o.alone.is_none() && o.together.is_none() && !guards[*n].unnoticed.is_empty()
    });
    let (together, explained) = (together.count(), explained.count());
    println!(
        "\n{} guards: {noticed} are noticed alone, {together} only without those that back them, \
         {explained} are not and the table says why, {} are not.",
        outcomes.len(),
        outcomes.len() - noticed - together - explained
    );
    Ok(noticed + together + explained == outcomes.len())
}

/// A line of the table.
fn row(guard: &Guard, outcome: &Outcome) -> String {
    let place = |f: &Found| format!("{} nodes, seed {}", f.nodes, f.seed);
    let (noticed, by) = match (&outcome.alone, &outcome.together) {
        (Some(found), _) => (place(found), found.what.clone()),
        (None, Some(found)) => {
            let others = guard.backed_by.join("”, “");
            let how = format!("without “{others}” too: {}", place(found));
            (how, found.what.clone())
        }
        (None, None) => ("**no**".into(), guard.unnoticed.to_owned()),
    };
    format!("| {} | `{}` | {noticed} | {by} |", guard.what, guard.file)
}

fn try_one(args: &Args, worker: usize, guards: &[Guard], number: usize) -> Result<Outcome, String> {
    let alone = first_failure(args, worker, &[number])?;
    let mut together = None;
    let backs = |g: &Guard| guards[number].backed_by.contains(&g.what);
    let mut out: Vec<usize> = (0..guards.len()).filter(|n| backs(&guards[*n])).collect();
    if alone.is_none() && !out.is_empty() {
        out.push(number);
        together = first_failure(args, worker, &out)?;
    }
    Ok(Outcome { alone, together })
}

/// Builds the simulation of a copy with a switch for each guard.
fn build(args: &Args) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = args.scratch.join("source");
    let files = mutants::switch_all(&root)?;
    copy_sources(&root, &copy, &files)?;
    let target = std::path::absolute(args.scratch.join("target")).map_err(|e| e.to_string())?;
    let status = Command::new(&args.cargo)
        .args(["build", "--release", "-p", "cluster-tests", "--bin", "sim"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(&copy)
        .stdout(Stdio::null())
        .status();
    match status.map_err(|e| format!("{}: {e}", args.cargo.display()))? {
        status if status.success() => Ok(()),
        _ => Err("the copy does not build".into()),
    }
}

/// The first seeds that fail, and how.
fn first_failure(args: &Args, worker: usize, out: &[usize]) -> Result<Option<Found>, String> {
    for nodes in args.nodes.iter().copied() {
        let mut seed = args.seed;
        let end = args.seed.saturating_add(args.seeds);
        while seed < end {
            let seeds = AT_ONCE.min(end - seed);
            if let Some((seed, what)) = play(args, worker, out, nodes, (seed, seeds))? {
                // Or the table would say nothing.
                if let Some((_, what)) = play(args, worker, &[], nodes, (seed, 1))? {
                    return Err(format!(
                        "seed {seed} of {nodes} nodes fails as it is: {what}"
                    ));
                }
                return Ok(Some(Found { nodes, seed, what }));
            }
            seed += seeds;
        }
    }
    Ok(None)
}

fn play(
    args: &Args,
    worker: usize,
    out: &[usize],
    nodes: usize,
    (seed, seeds): (u64, u64),
) -> Result<Option<(u64, String)>, String> {
    let log = args.scratch.join(format!("sim{worker}.log"));
    let file = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    let numbers: Vec<String> = out.iter().map(usize::to_string).collect();
    let mut sim = Command::new(args.scratch.join("target/release/sim"))
        .args(["--nodes", &nodes.to_string()])
        .args(["--seed", &seed.to_string(), "--seeds", &seeds.to_string()])
        .env(mutants::SWITCHES, numbers.join(","))
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("sim: {e}"))?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = sim.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if begun.elapsed() > LONGEST {
            let _ = sim.kill();
            let _ = sim.wait();
            return Ok(Some((seed, "it hangs".into())));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
    let failed = text.lines().find_map(|line| {
        let (seed, what) = line.strip_prefix("seed ")?.split_once(": ")?;
        let what: String = what.chars().take(110).collect();
        Some((seed.parse().ok()?, what.replace('|', "/")))
    });
    Ok(Some(failed.unwrap_or((seed, "the process ended".into()))))
}

/// Copies what git knows of, `changed` files below `src` with another text, and leaves alone what is the
/// same, so that builds are incremental.
fn copy_sources(
    root: &Path,
    copy: &Path,
    changed: &BTreeMap<String, String>,
) -> Result<(), String> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git: {e}"))?;
    let names = String::from_utf8(listed.stdout).map_err(|e| e.to_string())?;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root.join(name), copy.join(name));
        let other = name.strip_prefix("src/").and_then(|name| changed.get(name));
        let content = match other {
            Some(text) => Ok(text.clone().into_bytes()),
            None => std::fs::read(&from),
        };
        let Ok(content) = content else {
            // Deleted, and git was not told yet; or no plain file.
            continue;
        };
        if std::fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        let folder = to.parent().ok_or("a path without a folder")?;
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        std::fs::write(&to, content).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(())
}
