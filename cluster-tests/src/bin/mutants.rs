//! `mutants`: takes guards out of a copy of the sources one at a time, builds the simulation and plays
//! seeds. The answer is a Markdown table: which guards are noticed, and which are not.

use clap::Parser;
use cluster_tests::mutants::{Guard, GUARDS};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
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
    /// Only guards whose file or purpose holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Seeds for each number of nodes.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Numbers of nodes, in this order.
    #[arg(long, value_delimiter = ',', default_value = "3,1,5")]
    nodes: Vec<usize>,
    /// The program that builds.
    #[arg(long, default_value = "cargo")]
    cargo: PathBuf,
}

/// What became of a guard.
enum Outcome {
    Found {
        nodes: usize,
        seed: u64,
        what: String,
    },
    NotFound,
    NotBuilt,
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = args.scratch.join("source");
    copy_sources(&root, &copy)?;
    let wanted = |g: &&Guard| {
        let only = args.only.as_deref().unwrap_or_default();
        g.file.contains(only) || g.what.contains(only)
    };
    let guards: Vec<&Guard> = GUARDS.iter().filter(wanted).collect();
    // Without a mutation nothing may fail, or the table would say nothing.
    if !build(args, &copy)? {
        return Err("the sources do not build".into());
    }
    for nodes in &args.nodes {
        if let Some((seed, what)) = first_failure(args, *nodes)? {
            return Err(format!(
                "seed {seed} of {nodes} nodes fails with all guards: {what}"
            ));
        }
    }
    println!("| guard | file | noticed | by |\n|---|---|---|---|");
    let mut missed = 0;
    for guard in &guards {
        let path = copy.join("src").join(guard.file);
        let whole = std::fs::read(&path).map_err(|e| e.to_string())?;
        let text = guard.taken_out_below(&copy)?;
        std::fs::write(&path, text).map_err(|e| e.to_string())?;
        let outcome = try_one(args, &copy);
        std::fs::write(&path, whole).map_err(|e| e.to_string())?;
        let (noticed, by) = match outcome? {
            Outcome::Found { nodes, seed, what } => (format!("{nodes} nodes, seed {seed}"), what),
            Outcome::NotFound => ("**no**".into(), String::new()),
            Outcome::NotBuilt => ("does not build".into(), String::new()),
        };
        missed += usize::from(by.is_empty());
        println!("| {} | `{}` | {noticed} | {by} |", guard.what, guard.file);
    }
    println!(
        "\n{} of {} guards are noticed.",
        guards.len() - missed,
        guards.len()
    );
    Ok(missed == 0)
}

fn try_one(args: &Args, copy: &Path) -> Result<Outcome, String> {
    if !build(args, copy)? {
        return Ok(Outcome::NotBuilt);
    }
    for nodes in args.nodes.iter().copied() {
        if let Some((seed, what)) = first_failure(args, nodes)? {
            return Ok(Outcome::Found { nodes, seed, what });
        }
    }
    Ok(Outcome::NotFound)
}

fn build(args: &Args, copy: &Path) -> Result<bool, String> {
    let target = std::path::absolute(args.scratch.join("target")).map_err(|e| e.to_string())?;
    let status = Command::new(&args.cargo)
        .args(["build", "--release", "-p", "cluster-tests", "--bin", "sim"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(copy)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Ok(status
        .map_err(|e| format!("{}: {e}", args.cargo.display()))?
        .success())
}

/// The first seed that fails, and how.
fn first_failure(args: &Args, nodes: usize) -> Result<Option<(u64, String)>, String> {
    let mut seed = 0;
    while seed < args.seeds {
        let seeds = AT_ONCE.min(args.seeds - seed);
        if let Some(found) = play(args, nodes, seed, seeds)? {
            return Ok(Some(found));
        }
        seed += seeds;
    }
    Ok(None)
}

fn play(args: &Args, nodes: usize, seed: u64, seeds: u64) -> Result<Option<(u64, String)>, String> {
    let log = args.scratch.join("sim.log");
    let out = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    let mut sim = Command::new(args.scratch.join("target/release/sim"))
        .args(["--nodes", &nodes.to_string()])
        .args(["--seed", &seed.to_string(), "--seeds", &seeds.to_string()])
        .stdout(out)
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
        let what: String = what.chars().take(90).collect();
        Some((seed.parse().ok()?, what.replace('|', "/")))
    });
    Ok(Some(failed.unwrap_or((seed, "the process ended".into()))))
}

/// Copies what git knows of, and leaves alone what is the same, so that builds are incremental.
fn copy_sources(root: &Path, copy: &Path) -> Result<(), String> {
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
        let Ok(content) = std::fs::read(&from) else {
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
