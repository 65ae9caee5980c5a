//! Reads the whole stored log now and then, so that damage is found while other replicas have good copies:
//! slowly, and at once when an operator asks.

use super::figures;
use super::parts::{replace_file, up};
use crate::actors::shard::damage::DamageFigures;
use crate::actors::shard::scrub::Scrub;
use crate::actors::shard::ShardHandle;
use crate::gateway::LogView;
use crate::storage::points::FailPoint;
use crate::storage::Scrubbed;
use crate::telemetry::ShardMetrics;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether something is to be read.
const LOOK: Duration = Duration::from_millis(500);
/// A scrub at once looks again after this time.
const HURRY: Duration = Duration::from_millis(2);
/// How often the places are kept.
const KEEP: Duration = Duration::from_secs(60);
/// Where the places are kept: `shard id = next index`, so that a restart goes on there.
const FILE: &str = "scrub.toml";

/// The scrubs of a node's shards.
pub struct Scrubs {
    shards: Vec<(String, ShardHandle)>,
    cores: Mutex<Vec<Scrub>>,
    file: PathBuf,
}

impl Scrubs {
    pub fn new(dir: PathBuf, shards: Vec<(String, ShardHandle)>) -> Arc<Self> {
        let file = dir.join(FILE);
        // Without it the scrub begins at the beginning.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let places: toml::Table = text.parse().unwrap_or_default();
        let place = |shard: &ShardHandle| {
            let found = places.get(&shard.shard().0.to_string());
            let next = found.and_then(toml::Value::as_integer).unwrap_or(0);
            Scrub::new(u64::try_from(next).unwrap_or(0))
        };
        let cores = shards.iter().map(|(_, shard)| place(shard)).collect();
        Arc::new(Self {
            shards,
            cores: Mutex::new(cores),
            file,
        })
    }

    /// Reads the whole log of these shards (all when none is named) as fast as it goes. What is found is
    /// seen in the figures.
    pub fn at_once(&self, names: &[String]) -> Result<String, String> {
        if let Some(name) = names
            .iter()
            .find(|name| !self.shards.iter().any(|(n, _)| n == *name))
        {
            return Err(format!("no shard {name} here"));
        }
        let mut begun = Vec::new();
        for ((name, _), core) in self.shards.iter().zip(self.cores.lock().iter_mut()) {
            if names.is_empty() || names.contains(name) {
                core.at_once();
                begun.push(name.as_str());
            }
        }
        Ok(format!("scrubbing {}", begun.join(", ")))
    }

    /// Whether a scrub at once is under way, and the next index, by shard.
    pub fn places(&self) -> Vec<(String, bool, u64)> {
        let cores = self.cores.lock();
        let names = self.shards.iter().zip(cores.iter());
        names
            .map(|((name, _), core)| (name.clone(), core.hurries(), core.next()))
            .collect()
    }

    /// Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let began = Instant::now();
        let mut kept = Instant::now();
        loop {
            let mut hurries = false;
            let mut ended = false;
            for at in 0..self.shards.len() {
                let shard = &self.shards[at].1;
                let now_ms = began.elapsed().as_millis() as u64;
                let bytes = || shard.log_bytes().unwrap_or(0);
                let work = self.cores.lock()[at].next_read(now_ms, bytes);
                if let Some((from, max_bytes)) = work {
                    if let Some(found) = shard.scrub(from, max_bytes).await {
                        ended |= self.done(at, &found, began.elapsed());
                    }
                }
                hurries |= self.cores.lock()[at].hurries();
            }
            if ended || kept.elapsed() >= KEEP {
                kept = Instant::now();
                self.keep().await;
            }
            tokio::time::sleep(if hurries { HURRY } else { LOOK }).await;
        }
    }

    /// Whether a scrub at once has ended.
    fn done(&self, at: usize, found: &Scrubbed, now: Duration) -> bool {
        let core = &mut self.cores.lock()[at];
        let hurried = core.hurries();
        core.read(now.as_millis() as u64, found.next, found.ended);
        let ended = hurried && !core.hurries();
        if ended {
            let (name, shard) = &self.shards[at];
            let damage = shard.damage();
            tracing::info!(
                shard = %name,
                found = damage.found,
                mended = damage.mended,
                lost = damage.lost,
                "the scrub at once has read the whole log"
            );
        }
        ended
    }

    async fn keep(&self) {
        let mut table = toml::Table::new();
        for ((_, shard), core) in self.shards.iter().zip(self.cores.lock().iter()) {
            let next = i64::try_from(core.next()).unwrap_or(0);
            table.insert(shard.shard().0.to_string(), next.into());
        }
        let file = self.file.clone();
        let at = [FailPoint::ScrubWritten, FailPoint::ScrubRenamed];
        let write = move || replace_file(&file, &table.to_string(), at);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "the place of the scrub cannot be kept");
        }
    }
}

/// Of a single node: it has one shard.
impl LogView for Scrubs {
    fn figures(&self) -> (serde_json::Value, serde_json::Value) {
        let Some((name, shard)) = self.shards.first() else {
            return Default::default();
        };
        let damage = figures::damage(&shard.damage());
        (damage, figures::scrub(Some(self), name))
    }
    fn scrub(&self, shards: &[String]) -> Result<String, String> {
        self.at_once(shards)
    }
}

/// Brings counters up to the figures of a shard.
pub fn copy_figures(damage: &DamageFigures, to: &ShardMetrics) {
    up(&to.bad_entries, damage.found);
    up(&to.mended_entries, damage.mended);
    up(&to.lost_entries, damage.lost);
    up(&to.skipped_messages, damage.skipped);
    up(&to.lost_delayed, damage.lost_delayed);
    up(&to.scrubbed, damage.scrubbed);
    up(&to.scrubs, damage.scrubs);
}
