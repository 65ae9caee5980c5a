//! Runs a load through its phases and watches the processes meanwhile.

use super::clock;
use super::procs::{self, Process, Snapshot};
use super::producer::Producer;
use super::sending::Sending;
use indicatif::{ProgressBar, ProgressStyle};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest wait for all connections before the first message.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// The measured time.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Its length, seconds.
    pub seconds: f64,
    /// CPU seconds of this process in it.
    pub own_cpu_s: f64,
    /// The watched processes.
    pub processes: Vec<Process>,
    /// It was ended by SIGINT.
    pub interrupted: bool,
}

/// Starts to watch; the end of the measured time is [`Watch::stop`].
#[derive(Debug)]
pub(super) struct Watch {
    pids: Vec<u32>,
    before: Snapshot,
    cpu: u64,
    at: u64,
}

impl Watch {
    pub(super) fn start(pids: &[u32]) -> Self {
        Self {
            pids: pids.to_vec(),
            before: Snapshot::take(pids),
            cpu: clock::own_cpu(),
            at: clock::now(),
        }
    }

    pub(super) fn stop(&self, interrupted: bool) -> Measured {
        let seconds = (clock::now() - self.at) as f64 / 1e9;
        let own = clock::own_cpu() - self.cpu;
        Measured {
            seconds,
            own_cpu_s: procs::round(own as f64 / 1e9),
            processes: Snapshot::take(&self.pids).since(&self.before),
            interrupted,
        }
    }
}

/// Waits for SIGINT; for ever when it cannot be caught.
pub(super) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// `wait` for some time, for ever without one.
async fn limit(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// A bar on the terminal; nothing elsewhere. `total` of 0 has no end.
pub(super) fn bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = match total {
        0 => "{prefix} {spinner} {pos} {msg}",
        _ => "{prefix} [{bar:30}] {percent}% {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

/// Sends with all connections: warm-up, measured time, and the answers that are left. Must run in
/// a `LocalSet`.
///
/// # Errors
/// When the machine has no more file descriptors.
pub(super) async fn send(
    sending: &Rc<Sending>,
    (warmup, duration): (Duration, Option<Duration>),
    pids: &[u32],
) -> Result<Measured, String> {
    let mut connections = JoinSet::new();
    for index in 0..sending.plan.connections {
        let producer =
            Producer::new(sending.clone(), index).map_err(|e| format!("cannot start: {e}"))?;
        connections.spawn_local(producer.run());
    }
    let show = tokio::task::spawn_local(show(sending.clone(), warmup, duration));
    let mut stop = Box::pin(interrupt());
    let all_connected = async {
        while !sending.is_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all_connected = async {
        let _ = tokio::time::timeout(CONNECT_WAIT, all_connected).await;
    };
    let mut interrupted = phase(&mut connections, &mut stop, all_connected).await;
    sending.go();
    if !warmup.is_zero() && !interrupted {
        interrupted |= phase(&mut connections, &mut stop, tokio::time::sleep(warmup)).await;
    }
    let watch = Watch::start(pids);
    sending.begin(!warmup.is_zero());
    if !interrupted {
        let done = async {
            tokio::select! {
                () = limit(duration) => {}
                () = sending.finished.notified() => {}
            }
        };
        interrupted |= phase(&mut connections, &mut stop, done).await;
    }
    let measured = watch.stop(interrupted);
    sending.end(sending.plan.timeout);
    if interrupted {
        // The second SIGINT is caught by a new wait.
        stop = Box::pin(interrupt());
    }
    phase(&mut connections, &mut stop, std::future::pending()).await;
    connections.abort_all();
    while connections.join_next().await.is_some() {}
    show.abort();
    Ok(measured)
}

/// Until `done`, SIGINT (`true`), or the end of all connections.
async fn phase(
    connections: &mut JoinSet<()>,
    stop: &mut (impl Future<Output = ()> + Unpin),
    done: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        () = done => false,
        () = stop => true,
        () = async { while connections.join_next().await.is_some() {} } => false,
    }
}

/// Keeps the bar up to date.
async fn show(sending: Rc<Sending>, warmup: Duration, duration: Option<Duration>) {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let total = match (sending.plan.messages, duration) {
        (Some(n), _) => n,
        (None, Some(d)) => millis(warmup + d),
        (None, None) => 0,
    };
    let bar = bar(total, "sending");
    if bar.is_hidden() {
        return;
    }
    let mut last = (clock::now(), 0);
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (acked, failed) = {
            let stats = sending.stats.borrow();
            (stats.acked_total, stats.failed)
        };
        let now = clock::now();
        let rate = (acked - last.1) as f64 * 1e9 / (now - last.0).max(1) as f64;
        last = (now, acked);
        match sending.plan.messages {
            Some(_) => bar.set_position(acked),
            None => bar.set_position((now - sending.start()) / 1_000_000),
        }
        bar.set_message(format!("{acked} acked, {rate:.0}/s, {failed} failed"));
    }
}
