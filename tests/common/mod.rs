//! A `troupe server` of its own for a test: any free ports, a directory of the caller's.

#![allow(dead_code)] // each test uses its part

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest a test waits for anything; only a broken server comes near it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until there is something, every few milliseconds.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    out: PathBuf,
    /// Address of its name server; empty without that role.
    pub registry: String,
    /// Address of its broker; empty without that role.
    pub broker: String,
}

/// `troupe server` on `data`, with flags and settings; its output goes to `logs`.out and .err.
fn command(data: &Path, logs: &Path, sets: &[&str]) -> (Command, PathBuf, PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TROUPE_") {
            command.env_remove(name);
        }
    }
    // The tests' data is small, and their machine's disk may be full for other reasons.
    command
        .env("TROUPE_DISK_SPACE_WARNING_LEVEL_RATIO", "99")
        .env("TROUPE_DISK_MIN_FREE_BYTES", "0");
    command.arg("server").arg("--data-dir").arg(data);
    for key in ["listen_port", "namesrv_listen_port", "http_listen_port"] {
        if !sets.iter().any(|s| s.split('=').next() == Some(key)) {
            command.arg("--set").arg(format!("{key}=0"));
        }
    }
    for set in sets {
        match set.starts_with("--") {
            true => command.arg(set),
            false => command.arg("--set").arg(set),
        };
    }
    let (out, err) = (logs.with_extension("out"), logs.with_extension("err"));
    let file = |path: &Path| std::fs::File::create(path).expect("log file");
    command
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err));
    (command, out, err)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Server {
    /// Starts it without waiting for anything.
    pub fn spawn(data: &Path, sets: &[&str]) -> Self {
        Self::spawn_with(data, sets, |_| ())
    }

    /// [`Server::spawn`] by a command that `change` changed.
    pub fn spawn_with(data: &Path, sets: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let (mut command, out, _) = command(data, data, sets);
        change(&mut command);
        let child = command.spawn().expect("the server starts");
        Self {
            child,
            out,
            registry: String::new(),
            broker: String::new(),
        }
    }

    /// Starts it and waits until clients can connect.
    pub fn start(data: &Path, sets: &[&str]) -> Self {
        Self::start_with(data, sets, |_| ())
    }

    /// [`Server::start`] by a command that `change` changed.
    pub fn start_with(data: &Path, sets: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let server = Self::spawn_with(data, sets, change);
        server.ready(sets).unwrap_or_else(|status| {
            let log = read(&data.with_extension("err"));
            panic!("the server ended with {status}: {log}")
        })
    }

    /// Waits until clients can connect, or until it has ended.
    pub fn ready(mut self, sets: &[&str]) -> Result<Self, ExitStatus> {
        let text = wait_for("the start of the server", || {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return Some(Err(status));
            }
            // The last line, with its end.
            let text = read(&self.out);
            let last = if sets.contains(&"roles=registry") {
                "name server"
            } else {
                "may lose"
            };
            let at = text.find(last)?;
            text[at..].contains('\n').then_some(Ok(text))
        })?;
        let address = |what: &str| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(what))
                .unwrap_or_default();
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .trim_end_matches([';', ','])
                .to_owned()
        };
        self.registry = address("name server ");
        self.broker = address("broker ");
        Ok(self)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        read(&self.out.with_extension("err"))
    }

    /// Address of its pages.
    pub fn http(&self) -> String {
        wait_for("the address of its pages", || {
            let text = read(&self.out);
            let (_, rest) = text.split_once("http://")?;
            Some(rest.split_once("/metrics\n")?.0.to_owned())
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("is killed");
        self.child.wait().expect("ends");
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        // SAFETY: a signal to a child that was not waited for, so the id is still its own.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        assert_eq!(sent, 0);
    }

    /// Its end, if that comes within `limit`.
    pub fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that must not start: its exit code and what it said on standard error, without what
/// it logged (lines with a level).
pub fn refused(data: &Path, sets: &[&str]) -> (Option<i32>, Vec<String>) {
    refused_with(data, sets, |_| ())
}

/// [`refused`], of a command that `change` changed.
pub fn refused_with(
    data: &Path,
    sets: &[&str],
    change: impl FnOnce(&mut Command),
) -> (Option<i32>, Vec<String>) {
    let (mut command, _, err) = command(data, &data.with_extension("refused.log"), sets);
    change(&mut command);
    let mut child = command.spawn().expect("starts");
    let status = wait_for("the refusal", || child.try_wait().expect("its state"));
    let logged = |l: &str| [" INFO ", " WARN "].iter().any(|level| l.contains(level));
    let said = read(&err)
        .lines()
        .filter(|l| !logged(l))
        .map(str::to_owned)
        .collect();
    (status.code(), said)
}

/// Runs a future on a runtime of one thread.
pub fn run<F: std::future::Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("runtime").block_on(future)
}
