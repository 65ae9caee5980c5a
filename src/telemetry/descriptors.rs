//! File descriptors of the process.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How many it may open, and who gets them.
#[derive(Clone, Debug, Default)]
pub struct DescriptorMetrics {
    /// The process's limit.
    pub limit: Gauge,
    /// Open now; brought up to date when the page is read.
    pub open: Gauge,
    /// Sorted files that the store keeps open at most.
    pub store_files: Gauge,
    /// Connections of clients that are let in.
    pub connections: Gauge,
}

impl DescriptorMetrics {
    /// Counts what is open now. Goes through the list of all.
    pub fn look(&self) {
        if let Ok(all) = std::fs::read_dir("/proc/self/fd") {
            // One is that of the list itself.
            self.open.set(all.count() as i64 - 1);
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            r.register(name, help, gauge.clone());
        };
        gauge(
            "limit",
            "Files and connections the process may open",
            &self.limit,
        );
        gauge(
            "open",
            "Files and connections the process has open",
            &self.open,
        );
        let help = "Sorted files that the store keeps open at most";
        gauge("store_files", help, &self.store_files);
        let help = "Connections of clients that are let in";
        gauge("connections", help, &self.connections);
    }
}
