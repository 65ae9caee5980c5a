//! Nothing is wrong, and everybody is busy: 36.

use super::{scenario, Scenario, NOTHING};
use crate::processes::nodes::SHARDS;
use crate::processes::stage::Stage;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Threads that do nothing but run, for each processor.
const THREADS: usize = 5;

pub(super) const SCENARIOS: [Scenario; 1] =
    [scenario("36", "busy processors", NOTHING, busy_processors)];

/// Threads of ordinary priority that take what they get; they end with this.
struct Spinners(Arc<AtomicBool>);

impl Spinners {
    fn start() -> Result<Self, String> {
        let spinners = Self(Arc::default());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors * THREADS {
            let end = spinners.0.clone();
            let spin = move || {
                while !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            let thread = std::thread::Builder::new().name("spin".into()).spawn(spin);
            thread.map_err(|e| e.to_string())?;
        }
        Ok(spinners)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All processors are busy for as long as faults would come: every shard keeps its leader.
fn busy_processors(stage: &mut Stage) -> Result<(), String> {
    let leaders = |stage: &Stage| -> Vec<_> {
        let shards = 0..SHARDS.len();
        shards.map(|s| stage.nodes.leader(s)).collect()
    };
    let calm = stage.load.acked();
    stage.sleep(3.0);
    let calm = (stage.load.acked() - calm) as f64 / 3.0;
    let before = leaders(stage);
    let threads = THREADS * std::thread::available_parallelism().map_or(1, usize::from);
    stage.fault(format!("{threads} busy threads"), &[0, 1, 2], None);
    // Clients that get no processor give up on sends that nobody refused.
    stage.sends_may_fail = true;
    let spinners = Spinners::start()?;
    let acked = stage.load.acked();
    let seconds = stage.seconds.max(1);
    stage.sleep(seconds as f64);
    let rate = (stage.load.acked() - acked) as f64 / seconds as f64;
    drop(spinners);
    stage.measured();
    stage.sleep(1.0);
    let after = leaders(stage);
    let term = |l: &Option<(usize, u64)>| l.map_or(0, |(_, term)| term);
    let pairs = before.iter().zip(&after);
    let changes: u64 = pairs.map(|(b, a)| term(a).saturating_sub(term(b))).sum();
    stage.note(&format!(
        "{changes} changes of leaders in {seconds} s; {rate:.0} messages a second, {calm:.0} before"
    ));
    if changes > 0 || before.contains(&None) {
        stage.problem(format!("leaders and terms {before:?} became {after:?}"));
    }
    stage.recovered(Duration::from_secs(30))
}
