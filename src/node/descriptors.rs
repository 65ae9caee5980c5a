//! File descriptors: how many this process may open, and who gets them.
//!
//! A store that can open no file fails for good, and the process ends. So clients get only what is
//! left when the store, the other nodes and the HTTP pages have theirs.

use crate::config::Config;
use crate::telemetry::DescriptorMetrics;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// What the process has open anyway: standard streams, libraries, name look-ups, locks.
const BASE: u64 = 64;
/// A runtime of a thread: epoll, its waker, timers, signals.
const RUNTIME: u64 = 4;
/// Both directions of a link to another node, and one of each that is about to take its place.
const PEER: u64 = 4;
/// Peers that have not proved themselves yet, and what accepting takes.
const STRANGERS: u64 = 64;
/// The HTTP pages' connections.
const HTTP: u64 = 64;
/// Files of the store besides those that [`Descriptors::max_open_files`] bounds: WALs, manifest,
/// marks, logs, files being written.
const STORE_BASE: u64 = 48;
/// Least and most for the store's sorted files. With less it opens and closes files all the time;
/// more would be as many GB of log as nobody reads at once.
const FILES: (u64, u64) = (64, 16_384);
/// What of the files' share clients do not take, if they want more than there is.
const FILES_FIRST: u64 = 4_096;
/// Fewer connections than this are no service.
const LEAST_CONNECTIONS: u64 = 32;
/// Where the hard limit is said to be unlimited.
const UNLIMITED: u64 = 1 << 20;

/// Who gets how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit of this process (`ulimit -Sn`), and how far it may be raised (`ulimit -Hn`).
    pub soft: u64,
    pub hard: u64,
    /// For everything but the store's files and clients.
    pub own: u64,
    /// Sorted files that the store keeps open.
    pub max_open_files: u64,
    /// Connections of clients.
    pub connections: u32,
    /// The limit that `max_connections` would need.
    pub wanted: u64,
}

/// The limits of this process.
fn limits() -> (u64, u64) {
    let now = getrlimit(Resource::Nofile);
    let value = |limit: Option<u64>| limit.unwrap_or(UNLIMITED);
    (value(now.current), value(now.maximum))
}

/// Raises the soft limit as far as it goes. Of the whole process: not for a node inside another
/// program.
pub fn raise() {
    let now = getrlimit(Resource::Nofile);
    let to = now.maximum.unwrap_or(UNLIMITED);
    if now.current.is_some_and(|current| current < to) {
        let raised = Rlimit {
            current: Some(to),
            maximum: now.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, to, "the limit of open files stays as it is");
        }
    }
}

impl Descriptors {
    /// Shares out what this process may open.
    ///
    /// # Errors
    /// A text when that is too little to run with.
    pub fn of_process(config: &Config) -> Result<Self, String> {
        Self::share(config, limits())
    }

    fn share(config: &Config, (soft, hard): (u64, u64)) -> Result<Self, String> {
        let cluster = config.cluster();
        let nodes = cluster.as_ref().map_or(0, |c| c.nodes.len() as u64);
        let shards = cluster.as_ref().map_or(1, |c| c.shards.len() as u64);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let threads = match config.gateway_threads {
            0 => (cores / 2).max(1),
            n => u64::from(n),
        };
        // Each shard: its actors, its gateway's threads and front, three ports, and a connection to
        // each name server.
        let name_servers = config.namesrv_addr.split(';').count() as u64;
        let shard = RUNTIME * (2 + threads) + 3 + name_servers;
        let mut own = BASE + shard * (shards + 1);
        if nodes > 0 {
            own += RUNTIME + STRANGERS + PEER * nodes;
        }
        if config.http_enable {
            own += HTTP;
        }
        if config.roles.broker {
            own += STORE_BASE;
        }
        let (least, most) = match config.roles.broker {
            true => FILES,
            false => (0, 0),
        };
        let asked = u64::from(config.max_connections);
        let left = soft.saturating_sub(own);
        let first = (left / 4).clamp(least, FILES_FIRST.clamp(least, most.max(least)));
        let connections = asked.min(left.saturating_sub(first));
        if connections < LEAST_CONNECTIONS.min(asked) {
            let needs = own + (least * 4).max(least + LEAST_CONNECTIONS.min(asked));
            return Err(format!(
                "this process may open {soft} files and connections, and needs {needs} at least: \
                 raise the limit (ulimit -n, LimitNOFILE= of systemd)"
            ));
        }
        Ok(Self {
            soft,
            hard,
            own,
            max_open_files: (left - connections).min(most),
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            wanted: own + FILES_FIRST.clamp(least, most.max(least)) + asked,
        })
    }

    /// As metrics.
    pub fn show(&self, metrics: &DescriptorMetrics) {
        metrics.limit.set(self.soft as i64);
        metrics.store_files.set(self.max_open_files as i64);
        metrics.connections.set(i64::from(self.connections));
    }

    /// Says what came out of it.
    pub fn log(&self, config: &Config) {
        tracing::info!(
            soft = self.soft,
            hard = self.hard,
            own = self.own,
            store = self.max_open_files,
            connections = self.connections,
            "open files and connections"
        );
        if self.connections < config.max_connections {
            tracing::warn!(
                limit = self.soft,
                hard = self.hard,
                connections = self.connections,
                max_connections = config.max_connections,
                needed = self.wanted,
                "the limit of open files leaves no room for max_connections: fewer are let in \
                 (ulimit -n, LimitNOFILE= of systemd)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(config: &Config, soft: u64) -> Result<Descriptors, String> {
        let shared = Descriptors::share(config, (soft, soft));
        if let Ok(d) = &shared {
            let sum = d.own + d.max_open_files + u64::from(d.connections);
            assert!(sum <= soft, "{d:?}");
            assert!(d.connections <= config.max_connections);
        }
        shared
    }

    #[test]
    fn clients_get_what_is_left() {
        let config = Config {
            gateway_threads: 2,
            ..Config::default()
        };
        let usual = share(&config, 1_024).unwrap();
        assert!(
            usual.max_open_files >= 150 && usual.connections >= 500,
            "{usual:?}"
        );
        let all = share(&config, 1 << 20).unwrap();
        assert_eq!((all.connections, all.max_open_files), (20_000, FILES.1));
        assert_eq!(share(&config, all.wanted).unwrap().connections, 20_000);
        assert!(share(&config, all.wanted - 1).unwrap().connections < 20_000);
        let mut before = 0;
        for soft in 0..3_000 {
            match share(&config, soft) {
                Ok(d) => {
                    assert!(d.max_open_files >= FILES.0 && d.connections >= before);
                    before = d.connections;
                }
                Err(why) => assert!(before == 0 && why.contains("ulimit"), "{soft}: {why}"),
            }
        }
        let few = Config {
            max_connections: 1,
            ..config.clone()
        };
        assert_eq!(share(&few, 1_024).unwrap().connections, 1);
        let registry = Config {
            roles: crate::config::Roles {
                broker: false,
                registry: true,
            },
            ..config
        };
        assert_eq!(share(&registry, 1_024).unwrap().max_open_files, 0);
    }
}
