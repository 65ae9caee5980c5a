//! What a node's clock tells.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;

/// The machine's wall clock and the node's time.
#[derive(Clone, Debug, Default)]
pub struct ClockMetrics {
    /// The wall clock minus the node's time, ms.
    pub ahead_ms: Gauge,
    /// 1 while the wall clock is not believed.
    pub held: Gauge,
    /// Times it ceased to be believed.
    pub holds: Counter,
    /// Times the node's time jumped.
    pub jumps: Counter,
}

impl ClockMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "wall_ahead_milliseconds",
            "The machine's wall clock minus the node's time",
            self.ahead_ms.clone(),
        );
        r.register(
            "held",
            "1 while the machine's wall clock is not believed",
            self.held.clone(),
        );
        r.register(
            "holds",
            "Times the machine's wall clock ceased to be believed",
            self.holds.clone(),
        );
        r.register(
            "jumps",
            "Times the node's time jumped to where most clocks are",
            self.jumps.clone(),
        );
    }
}
