//! CPU time and memory of processes, and the machine's description, from `/proc`.

use serde::Serialize;
use std::fs;

/// A process at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Start time in ticks since boot: tells a process from a later one with its id.
    start: u64,
    name: String,
    user_s: f64,
    system_s: f64,
    threads: u64,
    memory: Memory,
}

impl Sample {
    /// Its memory.
    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

/// Memory of a process, KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// Resident (VmRSS).
    pub rss_kb: u64,
    /// Of it anonymous: heap and stacks.
    pub rss_anon_kb: u64,
    /// Of it pages of files.
    pub rss_file_kb: u64,
    /// Most resident since the process started (VmHWM).
    pub peak_kb: u64,
}

/// A watched process over the measured time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Process {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// CPU seconds within the measured time; absent when it ended or started meanwhile.
    pub cpu_s: Option<f64>,
    /// The part in user mode.
    pub cpu_user_s: Option<f64>,
    /// The part in the kernel.
    pub cpu_system_s: Option<f64>,
    /// Threads at the end.
    pub threads: u64,
    /// Memory at the start of the measured time.
    pub before: Memory,
    /// Memory at its end.
    #[serde(flatten)]
    pub after: Memory,
}

/// Reads a process; `None` when there is none.
pub(super) fn sample(pid: u32) -> Option<Sample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse(
        &stat,
        &status,
        rustix::param::clock_ticks_per_second() as f64,
    )
}

fn parse(stat: &str, status: &str, ticks: f64) -> Option<Sample> {
    // The name is in parentheses and may hold anything.
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of these is field 3 of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let status_of = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    };
    Some(Sample {
        start: number(22)?,
        name: name.to_owned(),
        user_s: number(14)? as f64 / ticks,
        system_s: number(15)? as f64 / ticks,
        threads: number(20)?,
        memory: Memory {
            rss_kb: status_of("VmRSS").unwrap_or(0),
            rss_anon_kb: status_of("RssAnon").unwrap_or(0),
            rss_file_kb: status_of("RssFile").unwrap_or(0),
            peak_kb: status_of("VmHWM").unwrap_or(0),
        },
    })
}

/// All watched processes at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot(Vec<(u32, Option<Sample>)>);

impl Snapshot {
    /// Reads them.
    pub(super) fn take(pids: &[u32]) -> Self {
        Self(pids.iter().map(|p| (*p, sample(*p))).collect())
    }

    /// What they used since `before`.
    pub(super) fn since(&self, before: &Self) -> Vec<Process> {
        self.0
            .iter()
            .zip(&before.0)
            .map(|((pid, after), (_, before))| difference(*pid, before.as_ref(), after.as_ref()))
            .collect()
    }
}

fn difference(pid: u32, before: Option<&Sample>, after: Option<&Sample>) -> Process {
    let same = before
        .zip(after)
        .filter(|(b, a)| b.start == a.start)
        .map(|(b, a)| (a.user_s - b.user_s, a.system_s - b.system_s));
    let known = after.or(before);
    Process {
        pid,
        name: known.map(|s| s.name.clone()).unwrap_or_default(),
        cpu_s: same.map(|(u, s)| round(u + s)),
        cpu_user_s: same.map(|(u, _)| round(u)),
        cpu_system_s: same.map(|(_, s)| round(s)),
        threads: after.map_or(0, |s| s.threads),
        before: before.map(|s| s.memory).unwrap_or_default(),
        after: after.map(|s| s.memory).unwrap_or_default(),
    }
}

/// To microseconds, so that sums of ticks print as they are meant.
pub(super) fn round(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// The machine, for the conditions of a result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// Operating system and kernel release.
    pub kernel: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Model of the CPU, when told.
    pub cpu: String,
    /// Memory, KiB.
    pub memory_kb: u64,
    /// Load average of the last minute at the start.
    pub load_1m: f64,
}

/// Describes this machine.
pub(super) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let uname = rustix::system::uname();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    Machine {
        kernel: format!(
            "{} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy()
        ),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        memory_kb: first_number(&memory),
        load_1m: read("/proc/loadavg")
            .split_whitespace()
            .next()
            .and_then(|l| l.parse().ok())
            .unwrap_or(0.0),
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "77 (a (b) c) S 1 77 77 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1 2 3";
    const STATUS: &str =
        "Name:\ta\nVmHWM:\t  900 kB\nVmRSS:\t  800 kB\nRssAnon:\t 500 kB\nRssFile:\t 300 kB\n";

    #[test]
    fn proc_is_understood() {
        let s = parse(STAT, STATUS, 100.0).unwrap();
        assert_eq!(
            (s.name.as_str(), s.threads, s.start),
            ("a (b) c", 9, 12_345)
        );
        assert_eq!((s.user_s, s.system_s), (2.5, 0.5));
        assert_eq!((s.memory.rss_kb, s.memory.peak_kb), (800, 900));
        assert!(parse("77 (a", STATUS, 100.0).is_none());
        assert!(parse("77 (a) S 1 2", STATUS, 100.0).is_none());
        assert!(sample(std::process::id()).unwrap().memory.rss_kb > 0);
    }

    #[test]
    fn a_process_that_was_replaced_has_no_cpu_time() {
        let before = parse(STAT, STATUS, 100.0).unwrap();
        let mut after = before.clone();
        after.user_s += 1.0;
        let used = difference(77, Some(&before), Some(&after));
        assert_eq!((used.cpu_s, used.cpu_system_s), (Some(1.0), Some(0.0)));
        after.start += 1;
        assert_eq!(difference(77, Some(&before), Some(&after)).cpu_s, None);
        assert_eq!(difference(77, Some(&before), None).cpu_s, None);
        assert_eq!(difference(77, Some(&before), None).name, "a (b) c");
    }
}
