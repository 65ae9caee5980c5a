//! What everybody of a node holds of its clock.

use super::core::{ClockCore, Event};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, ms since 1970. Anybody may set it: for samples and for people only.
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

/// Time since the machine started, in which it slept or this process was stopped too, ms. For
/// durations: nobody can set it.
pub fn boot_ms() -> i64 {
    (crate::actors::shard::status::boot_ns() / 1_000_000) as i64
}

/// What metrics show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The wall clock minus the node's time.
    pub wall_ahead_ms: i64,
    /// The wall clock is not believed.
    pub held: bool,
    /// Times it ceased to be believed.
    pub holds: u64,
    /// Times the node's time jumped.
    pub jumps: u64,
}

/// The node's time. Reading it costs one look at a clock of the kernel.
pub struct NodeClock {
    core: Mutex<ClockCore>,
    offset_ms: AtomicI64,
    settled: AtomicBool,
}

impl NodeClock {
    /// The clock of a node in a cluster with so many other nodes.
    pub fn new(others: usize) -> Arc<Self> {
        let core = ClockCore::new(others, boot_ms(), wall_ms());
        Arc::new(Self {
            offset_ms: AtomicI64::new(core.offset_ms()),
            settled: AtomicBool::new(core.is_settled()),
            core: Mutex::new(core),
        })
    }

    /// Looks at the wall clock. Called at every tick of a shard.
    pub fn refresh(&self) {
        let mut core = self.core.lock();
        let event = core.look(boot_ms(), wall_ms());
        self.offset_ms.store(core.offset_ms(), Ordering::Release);
        self.settled.store(core.is_settled(), Ordering::Release);
        drop(core);
        match event {
            Some(Event::Settled {
                own_ahead_ms,
                confirmed,
            }) => {
                tracing::info!(own_ahead_ms, confirmed, "the node's time is known");
            }
            Some(Event::Held { own_ahead_ms }) => tracing::error!(
                own_ahead_ms,
                "this machine's clock is not believed: the other nodes' do not say the same"
            ),
            Some(Event::Freed) => tracing::warn!("this machine's clock is believed again"),
            Some(Event::Jumped { by_ms }) => {
                tracing::warn!(by_ms, "time jumped: most clocks say so for a minute");
            }
            None => {}
        }
    }

    /// Another node's wall clock was heard just now.
    pub fn heard(&self, node: u64, wall_ms: i64) {
        self.core.lock().heard(node, wall_ms, boot_ms());
    }

    /// The node's time, ms since 1970: for stamps.
    pub fn now_ms(&self) -> i64 {
        boot_ms().saturating_add(self.offset_ms.load(Ordering::Acquire))
    }

    /// The node's time for what happens when it is due: 0 while it is not settled, so that a clock
    /// that is wrong at the start fires and removes nothing.
    pub fn due_ms(&self) -> i64 {
        match self.settled.load(Ordering::Acquire) {
            true => self.now_ms(),
            false => 0,
        }
    }

    /// What metrics show.
    pub fn figures(&self) -> Figures {
        let core = self.core.lock();
        let (holds, jumps) = core.counts();
        Figures {
            wall_ahead_ms: core.own_ahead_ms(),
            held: core.is_held(),
            holds,
            jumps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_follows_its_wall_clock() {
        let clock = NodeClock::new(0);
        clock.refresh();
        assert!((clock.now_ms() - wall_ms()).abs() < 1_000);
        assert!(clock.due_ms() > 0);
        let figures = clock.figures();
        assert!(!figures.held && figures.jumps == 0 && figures.wall_ahead_ms.abs() < 1_000);
    }

    #[test]
    fn nothing_is_due_before_others_were_heard() {
        let clock = NodeClock::new(2);
        clock.refresh();
        assert_eq!(clock.due_ms(), 0);
        assert!(clock.now_ms() > 0);
        // Both say that it is an hour later.
        let there = wall_ms() + 3_600_000;
        clock.heard(2, there);
        clock.heard(3, there);
        clock.refresh();
        assert!((clock.due_ms() - there).abs() < 1_000);
        assert!(clock.figures().held);
    }
}
