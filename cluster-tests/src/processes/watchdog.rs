//! Cleans up behind the driver, also when that was killed.
//!
//! The driver starts its own program as a watchdog and keeps a pipe to it open. When the pipe
//! closes, or a time limit that came over it passes, the watchdog thaws, kills, unmounts and
//! removes what carries the run's prefix.

use super::sys::{run, signal};
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The driver's side.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it. `base` is the directory of the run's mounts.
    pub fn start(prefix: &str, base: &Path) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--watchdog")
            .arg(prefix)
            .arg("--keep")
            .arg(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A signal to the driver's group does not reach it.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// The driver is killed when it has not said this again within the time.
    pub fn expect_within(&mut self, time: Duration) {
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "{}", time.as_secs());
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.child.wait();
    }
}

/// The watchdog itself: returns when the driver is gone and everything is removed.
pub fn guard(prefix: &str, base: &Path) {
    let (tx, rx) = channel::<u64>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(seconds) = line.unwrap_or_default().trim().parse() else {
                break;
            };
            let _ = tx.send(seconds);
        }
    });
    let mut until = Instant::now() + Duration::from_secs(3600);
    loop {
        match rx.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(seconds) => until = Instant::now() + Duration::from_secs(seconds),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("processes: no sign of life in time; ending the run");
                signal(std::os::unix::process::parent_id(), libc::SIGKILL);
                break;
            }
        }
    }
    remove_spaces(prefix);
    remove_mounts(base);
    super::throttle::remove_groups(prefix);
}

/// Kills what runs in the namespaces of this prefix and removes them.
pub fn remove_spaces(prefix: &str) {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('-'));
        if ours {
            names.push(name);
        }
    }
    let own = std::process::id();
    for name in names {
        // The driver itself, and programs it runs, are in the clients' namespace.
        if !name.ends_with("-cl") {
            let pids = run("ip", &["netns", "pids", &name]).unwrap_or_default();
            for pid in pids.lines().filter_map(|l| l.trim().parse::<u32>().ok()) {
                if pid != own {
                    signal(pid, libc::SIGKILL);
                }
            }
        }
        let _ = run("ip", &["netns", "del", &name]);
    }
}

/// Thaws and unmounts every file system below a directory.
pub fn remove_mounts(base: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let Some(target) = line.split_whitespace().nth(1) else {
            continue;
        };
        if Path::new(target).starts_with(base) {
            let _ = run("fsfreeze", &["--unfreeze", target]);
            unmount(Path::new(target));
        }
    }
}

/// Unmounts; lazily when it stays busy.
///
/// `false`: it is in use still, and goes once it is not.
pub fn unmount(target: &Path) -> bool {
    let target = target.to_string_lossy();
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(why) = run("umount", &[&target]) {
        if why.contains("not mounted") {
            return true;
        }
        if Instant::now() > until {
            let _ = run("umount", &["--lazy", &target]);
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}
