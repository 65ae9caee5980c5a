//! The process ends, as by `kill -9`, at each fail point of the write path; after the next start every
//! acknowledged message is there, once, in its place, and the node serves.
//!
//! The servers are this program itself: it starts itself again with [`server`] as its only test, which
//! sets the hook that `troupe` never sets. So no second build is needed.

mod common;

#[path = "crash/check.rs"]
mod check;
#[path = "crash/load.rs"]
mod load;

#[path = "fail_points/alone.rs"]
mod alone;
#[path = "fail_points/large.rs"]
mod large;
#[path = "fail_points/three.rs"]
mod three;

use common::{wait_for, Server};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use troupemq::storage::points::{on_fail_points, FailPoint};

/// How a point is reached. The test of each group passes all points of it, and fails when one is not
/// reached; a new point does not compile before it has a place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The first start on an empty directory.
    First,
    /// Any later start.
    Start,
    /// A start after one that ended in the middle.
    Again,
    /// Load from several clients, SYNC_FLUSH.
    Load,
    /// One message after the other.
    Gentle,
    /// The same with ASYNC_FLUSH.
    Async,
    /// SIGTERM under load.
    Stop,
    /// More than retention allows.
    Trim,
    /// A key of the name server.
    Kv,
    /// A node of three, in the way that `three` knows.
    Three,
}

fn way(point: FailPoint) -> Way {
    use FailPoint::*;
    match point {
        Append | AppendWritten | AppendVisible | AppendMarked | AppendTold => Way::Load,
        MarksWritten | State | StateWritten | StateTold | Publish | Answer => Way::Load,
        ZerosWritten | ZerosSynced => Way::Gentle,
        SyncApart | SyncedApart | MarkedApart => Way::Async,
        Sync | Synced | MarksSynced | StateFlush | StateFlushed | Close | Closed => Way::Stop,
        Trim | TrimWritten | TrimDeleted => Way::Trim,
        FormatWritten | FormatRenamed | Created | Regain | RegainWritten => Way::First,
        KeepLinked | KeepRenamed | Opened | Begin | BeginWritten | BeginMarked => Way::Start,
        ReleaseRenamed | Released => Way::Start,
        UndoMoved | UndoRenamed => Way::Again,
        ScrubWritten | ScrubRenamed => Way::Three,
        KvWritten | KvRenamed => Way::Kv,
        OverwriteWritten => Way::Three,
        Install | InstallWritten | InstallMarked | InstallDeleted => Way::Three,
        Mend | MendWritten | CondemnWritten | CondemnSynced => Way::Three,
        RepairEmptied | RepairDeleted | RepairWritten | AsideMoved | AsideDone => Way::Three,
        IdentityWritten | IdentityRenamed | NodesWritten | NodesRenamed => Way::Three,
    }
}

fn points(of: Way) -> impl Iterator<Item = FailPoint> {
    let all = FailPoint::ALL.iter().copied();
    all.filter(move |point| way(*point) == of)
}

/// Arguments of the server, a line each; the point at which it ends, and at which passing.
const ARGS: &str = "FAIL_POINT_ARGS";
const POINT: &str = "FAIL_POINT";

static WANTED: OnceLock<(FailPoint, u64)> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);

fn passing(point: FailPoint) {
    let Some((wanted, nth)) = WANTED.get() else {
        return;
    };
    if point == *wanted && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
        // SAFETY: a signal to this process; it ends before the call is over.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

#[test]
#[ignore = "the server that the other tests start"]
fn server() {
    let Ok(args) = std::env::var(ARGS) else {
        return;
    };
    if let Ok(point) = std::env::var(POINT) {
        let (name, nth) = point.split_once(' ').expect("a point and a number");
        let found = FailPoint::ALL.iter().find(|p| p.name() == name);
        let wanted = (*found.expect("a point"), nth.parse().expect("a number"));
        WANTED.set(wanted).expect("once");
        assert!(on_fail_points(passing));
    }
    // The harness has begun a line.
    println!();
    assert_eq!(
        troupemq::cli::run(args.lines()),
        ExitCode::SUCCESS,
        "the server failed"
    );
}

/// Makes a command of `troupe` one of this program, which ends at the `nth` passing of `point`.
fn own(command: &mut Command, data: &Path, at: Option<(FailPoint, u64)>) {
    let args = command.get_args().map(|a| a.to_str().expect("text"));
    let args = std::iter::once("troupe").chain(args);
    let args = args.collect::<Vec<_>>().join("\n");
    let log = |end| File::create(data.with_extension(end)).expect("a log file");
    let mut own = Command::new(std::env::current_exe().expect("this program"));
    own.args(["--ignored", "--exact", "server", "--nocapture"])
        .arg("--test-threads=1")
        .env(ARGS, args)
        .stdin(Stdio::null())
        .stdout(log("out"))
        .stderr(log("err"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TROUPE_") {
            own.env_remove(name);
        }
    }
    match at {
        Some((point, nth)) => own.env(POINT, format!("{} {nth}", point.name())),
        None => own.env_remove(POINT),
    };
    *command = own;
}

/// A server without a fail point, ready.
fn start(data: &Path, sets: &[&str]) -> Server {
    Server::start_with(data, sets, |command| own(command, data, None))
}

/// A server that ends at the `nth` passing of `point`; it may have ended already.
fn armed(data: &Path, sets: &[&str], point: FailPoint, nth: u64) -> Server {
    Server::spawn_with(data, sets, |command| own(command, data, Some((point, nth))))
}

/// Waits for the end, which was the fail point's.
fn ended(server: &mut Server, point: FailPoint) {
    let name = point.name();
    let status = wait_for(
        &format!("the fail point {name}, which is not reached"),
        || server.ended_within(std::time::Duration::ZERO),
    );
    assert_eq!(
        status.signal(),
        Some(libc::SIGKILL),
        "at {name}: {status}: {}",
        server.log()
    );
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = FailPoint::ALL.iter().map(|p| p.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FailPoint::ALL.len());
}
