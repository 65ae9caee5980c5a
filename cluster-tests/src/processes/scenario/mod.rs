//! The scenarios, by their numbers in the reliability reference.

mod busy;
mod config;
mod disk;
mod kill;
mod members;
mod network;
mod pause;
mod rot;
mod service;
mod settings;
mod weather;

use super::disk::Disk;
use super::nodes::{Nodes, Setup};
use super::report::{Row, Verdict};
use super::shim;
use super::space::Spaces;
use super::stage::Stage;
use super::sys;
use super::throttle;
use std::path::{Path, PathBuf};

/// What a scenario needs of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Network namespaces.
    pub spaces: bool,
    /// File systems of the nodes' own, in MiB.
    pub disk_mib: Option<u64>,
    /// A control group that slows a disk down.
    pub throttle: bool,
    /// One node more, which is not part of the cluster at first.
    pub spare: bool,
    /// A network in user space.
    pub tunnel: bool,
    /// A library that fails syncs and shifts clocks.
    pub shim: bool,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Number, with a letter where there are variants.
    pub number: &'static str,
    pub name: &'static str,
    pub nodes: usize,
    /// Settings of every node.
    pub sets: &'static [&'static str],
    pub needs: Needs,
    /// Part of the smoke run.
    pub smoke: bool,
    pub work: fn(&mut Stage) -> Result<(), String>,
}

const NOTHING: Needs = Needs {
    spaces: false,
    disk_mib: None,
    throttle: false,
    tunnel: false,
    spare: false,
    shim: false,
};
const NETWORK: Needs = Needs {
    spaces: true,
    ..NOTHING
};

/// A scenario of three nodes with default settings, outside of the smoke run.
const fn scenario(
    number: &'static str,
    name: &'static str,
    needs: Needs,
    work: fn(&mut Stage) -> Result<(), String>,
) -> Scenario {
    Scenario {
        number,
        name,
        nodes: 3,
        sets: &[],
        needs,
        smoke: false,
        work,
    }
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(kill::SCENARIOS);
    all.extend(pause::SCENARIOS);
    all.extend(network::SCENARIOS);
    all.extend(disk::SCENARIOS);
    all.extend(service::SCENARIOS);
    all.extend(weather::SCENARIOS);
    all.extend(members::SCENARIOS);
    all.extend(config::SCENARIOS);
    all.extend(busy::SCENARIOS);
    all.extend(settings::SCENARIOS);
    all.extend(rot::SCENARIOS);
    let number = |s: &Scenario| {
        let digits = s.number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        digits.parse::<u32>().unwrap_or(u32::MAX)
    };
    all.sort_by_key(number);
    all
}

/// How a run is made.
#[derive(Debug, Clone)]
pub struct How {
    pub binary: PathBuf,
    /// Directory of this scenario's data and logs.
    pub dir: PathBuf,
    pub prefix: String,
    pub seed: u64,
    /// How long faults come.
    pub seconds: u64,
    pub rate: u32,
    pub sets: Vec<String>,
    /// Java clients beside the own load: `java550` or `java498`.
    pub java: Option<String>,
    /// Kinds of violations that do not fail it.
    pub allow: Vec<String>,
    /// Plain loopback, also where namespaces could be made.
    pub loopback: bool,
}

/// Programs that namespaces need.
const NET_TOOLS: [&str; 2] = ["ip", "nft"];
/// Programs that file systems need.
const DISK_TOOLS: [&str; 4] = ["mkfs.ext4", "mount", "umount", "fsfreeze"];

fn lacking(tools: &[&str]) -> Option<String> {
    if !sys::root() {
        return Some("it needs root".into());
    }
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|t| !sys::installed(t))
        .collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(" ")))
}

/// Why there can be no network namespaces. They are tried out: a container may have all programs
/// and still not the right.
fn no_spaces(how: &How) -> Option<String> {
    if how.loopback {
        return Some("it needs network namespaces".into());
    }
    lacking(&NET_TOOLS).or_else(|| {
        let tried = Spaces::new(&format!("{}-try", how.prefix), 1, None);
        tried
            .err()
            .map(|why| format!("no network namespaces: {why}"))
    })
}

/// The same for file systems on loop devices.
fn no_disks(how: &How) -> Option<String> {
    lacking(&DISK_TOOLS).or_else(|| {
        let image = how.dir.join("try.ext4");
        let tried = std::fs::create_dir_all(&how.dir)
            .map_err(|e| e.to_string())
            .and_then(|()| Disk::new(&image, &how.dir.join("try"), 16));
        tried.err().map(|why| format!("no file systems: {why}"))
    })
}

impl Scenario {
    /// Number and name.
    pub fn title(&self) -> String {
        format!("{} {}", self.number, self.name)
    }

    /// Why it cannot be run here.
    fn impossible(&self, how: &How) -> Option<String> {
        let mut why = None;
        if self.needs.spaces {
            why = why.or_else(|| no_spaces(how));
        }
        if self.needs.disk_mib.is_some() {
            why = why.or_else(|| no_disks(how));
        }
        if self.needs.tunnel && !Path::new("/dev/net/tun").exists() {
            why = why.or_else(|| Some("there is no /dev/net/tun".into()));
        }
        if self.needs.throttle {
            why = why.or_else(throttle::impossible);
        }
        if self.needs.shim && !sys::installed("cc") {
            why = why.or_else(|| Some("there is no C compiler".into()));
        }
        why
    }

    /// Runs it in a thread of its own, which moves to the clients' namespace.
    pub fn run(&self, how: &How) -> Row {
        let (scenario, own) = (*self, how.clone());
        let work = move || scenario.play(&own);
        let thread = std::thread::Builder::new().name(self.title());
        let ended = thread.spawn(work).map(std::thread::JoinHandle::join);
        let row = match ended {
            Ok(Ok(Ok(row))) => return row,
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => "the driver panicked".to_owned(),
            Err(why) => why.to_string(),
        };
        Row::without(self.title(), how.seed, Verdict::Failed(row))
    }

    fn play(&self, how: &How) -> Result<Row, String> {
        must_be_empty(&how.dir)?;
        if let Some(why) = self.impossible(how) {
            return Ok(Row::without(self.title(), how.seed, Verdict::Skipped(why)));
        }
        let mut sets: Vec<String> = self.sets.iter().map(|s| (*s).to_owned()).collect();
        sets.extend(how.sets.iter().cloned());
        let shim = match self.needs.shim {
            true => {
                let library = shim::compile(&how.dir)?;
                for node in 0..=self.nodes {
                    let control = Nodes::control_in(&how.dir, node);
                    shim::create(&control).map_err(|e| e.to_string())?;
                }
                Some(library)
            }
            false => None,
        };
        let setup = Setup {
            binary: how.binary.clone(),
            dir: how.dir.clone(),
            prefix: how.prefix.clone(),
            members: self.nodes,
            nodes: self.nodes + usize::from(self.needs.spare),
            sets,
            spaces: no_spaces(how).is_none(),
            tunnel: self.needs.tunnel.then_some(how.seed),
            disk_mib: self.needs.disk_mib,
            shim,
        };
        let mut stage = Stage::open(setup, how.seed, how.rate, how.seconds)?;
        if let Some(client) = &how.java {
            stage.add_java(client)?;
        }
        if let Err(why) = (self.work)(&mut stage) {
            stage.problem(why);
        }
        stage.close(&self.title(), &how.allow)
    }
}

/// The part of a directory's name that a scenario gives.
pub fn dir_name(base: &Path, scenario: &Scenario, seed: u64) -> PathBuf {
    let name = scenario.name.replace([' ', '/'], "-");
    base.join(format!("{}-{name}-{seed}", scenario.number))
}

/// Refuses a directory that holds something: a scenario would take the data of an earlier run for
/// its own.
///
/// # Errors
/// One line that says what to do.
pub fn must_be_empty(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    match std::fs::read_dir(dir).map(|mut files| files.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{shown} holds the data of an earlier run: remove it, or keep this run in another directory"
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("{shown}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_unique_and_the_smoke_run_is_there() {
        let all = all();
        let numbers: BTreeSet<&str> = all.iter().map(|s| s.number).collect();
        assert_eq!(numbers.len(), all.len());
        assert!(all.iter().any(|s| s.smoke));
    }
}
