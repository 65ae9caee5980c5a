//! Seeded random sequences against a model, crashes included.
//!
//! The model keeps every content the log and the state had since they were last durable. After a
//! crash the store must show one of these, and the state's must not be newer than the log's.

use super::cases::entry;
use super::harness::{Harness, Rocks, Sim, A, B};
use std::collections::BTreeMap;
use troupemq::model::ShardId;
use troupemq::storage::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
struct Log {
    first: u64,
    trimmed_term: u64,
    hard: HardState,
    entries: Vec<LogEntry>,
}

impl Log {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}

type Logs = BTreeMap<u32, Log>;

struct Model {
    /// Contents since the last durable one, which is the first; number of writes before it.
    logs: Vec<Logs>,
    log_base: u64,
    /// The same of the state, each with the number of log writes before it.
    rows: Vec<(Rows, u64)>,
}

impl Model {
    fn new() -> Self {
        let log = Log {
            first: 1,
            trimmed_term: 0,
            hard: HardState::default(),
            entries: vec![],
        };
        let logs = [A, B].iter().map(|s| (s.0, log.clone())).collect();
        Self {
            logs: vec![logs],
            log_base: 0,
            rows: vec![(Rows::new(), 0)],
        }
    }

    fn log_now(&self) -> &Logs {
        self.logs.last().unwrap()
    }

    fn written(&self) -> u64 {
        self.log_base + self.logs.len() as u64 - 1
    }

    fn write_log(&mut self, logs: Logs) {
        self.logs.push(logs);
    }

    fn log_durable(&mut self) {
        self.log_base = self.written();
        self.logs.drain(..self.logs.len() - 1);
    }

    fn state_durable(&mut self) {
        self.rows.drain(..self.rows.len() - 1);
    }
}

fn shown<H: Harness>(h: &mut H) -> (Logs, Rows) {
    let mut logs = Logs::new();
    for shard in [A, B] {
        let b = h.store().bounds(shard).unwrap();
        let entries = h
            .store()
            .read(shard, b.first, b.last + 1, u64::MAX)
            .unwrap();
        let log = Log {
            first: b.first,
            trimmed_term: b.trimmed_term,
            hard: b.hard_state,
            entries,
        };
        assert_eq!(log.last(), b.last);
        assert!(b.synced <= b.last);
        logs.insert(shard.0, log);
    }
    let rows = h
        .store()
        .scan(&[], &[0xff; 9], usize::MAX)
        .unwrap()
        .into_iter()
        .collect();
    (logs, rows)
}

fn random_append(rng: &mut SimRng, logs: &mut Logs, shard: ShardId, term: u64) -> LogAppend {
    let log = logs.get_mut(&shard.0).unwrap();
    let next = log.last() + 1;
    // Committed entries are never overwritten.
    let lowest = (log.hard.commit + 1).max(log.first);
    let from = if rng.chance(1, 4) {
        rng.between(lowest, next)
    } else {
        next
    };
    let count = rng.between(0, 4);
    let entries: Vec<_> = (from..from + count)
        .map(|i| entry(i, term, rng.between(0, 900) as usize))
        .collect();
    if count > 0 {
        log.entries.truncate((from - log.first) as usize);
        log.entries.extend(entries.iter().cloned());
    }
    let hard_state = rng.chance(1, 2).then(|| HardState {
        term,
        vote: rng.below(3),
        commit: rng.between(log.hard.commit.max(log.first - 1), log.last()),
    });
    log.hard = hard_state.unwrap_or(log.hard);
    LogAppend {
        shard,
        entries,
        hard_state,
        sync: rng.chance(1, 3),
    }
}

fn random_ops(rng: &mut SimRng) -> Vec<StateOp> {
    let key = |rng: &mut SimRng| vec![rng.below(6) as u8; rng.between(1, 3) as usize];
    (0..rng.between(0, 5))
        .map(|_| match rng.below(8) {
            0 | 1 => StateOp::Delete { key: key(rng) },
            2 => StateOp::DeleteRange {
                from: key(rng),
                to: key(rng),
            },
            _ => StateOp::Put {
                key: key(rng),
                value: rng.next_u64().to_be_bytes().to_vec(),
            },
        })
        .collect()
}

fn apply(rows: &mut Rows, ops: &[StateOp]) {
    for op in ops {
        match op {
            StateOp::Put { key, value } => drop(rows.insert(key.clone(), value.clone())),
            StateOp::Delete { key } => drop(rows.remove(key)),
            StateOp::DeleteRange { from, to } => rows.retain(|k, _| k < from || k >= to),
        }
    }
}

/// Finds what survived among the contents that may, and goes on from there.
fn settle<H: Harness>(h: &mut H, m: &mut Model, whole_log: bool) {
    let (logs, rows) = shown(h);
    let skip = if whole_log { m.logs.len() - 1 } else { 0 };
    let log_at = m
        .logs
        .iter()
        .enumerate()
        .skip(skip)
        .rev()
        .find(|(_, l)| **l == logs)
        .map(|(i, _)| i);
    let Some(log_at) = log_at else {
        panic!("the log shows what it never was: {logs:?}")
    };
    let reached = m.log_base + log_at as u64;
    let state = m
        .rows
        .iter()
        .find(|(r, needs)| *r == rows && *needs <= reached);
    assert!(
        state.is_some(),
        "the state shows what it never was, or is ahead of the log: {rows:?}"
    );
    m.logs = vec![logs];
    m.log_base = reached;
    m.rows = vec![(rows, reached)];
}

fn run<H: Harness>(h: &mut H, seed: u64, steps: u32, crash_part: u64) {
    let mut rng = SimRng::new(seed);
    let mut m = Model::new();
    for step in 0..steps {
        let term = u64::from(step / 8 + 1);
        match rng.below(100) {
            n if n < crash_part => {
                h.crash(&mut rng);
                settle(h, &mut m, false);
            }
            n if n < crash_part * 3 / 2 => {
                h.kill(&mut rng);
                settle(h, &mut m, true);
            }
            n if n < crash_part * 2 => {
                h.restart();
                m.log_durable();
                m.state_durable();
            }
            n if n < 70 => {
                let mut logs = m.log_now().clone();
                let shards: &[ShardId] = if rng.chance(1, 3) { &[B, A] } else { &[A] };
                let mut replaces = false;
                let appends: Vec<_> = shards
                    .iter()
                    .map(|s| {
                        let end = h.store().bounds(*s).unwrap().last;
                        let made = random_append(&mut rng, &mut logs, *s, term);
                        replaces |= made.entries.first().is_some_and(|e| e.index <= end);
                        made
                    })
                    .collect();
                h.store().append(&appends).unwrap();
                m.write_log(logs);
                if replaces || appends.iter().any(|a| a.sync) {
                    m.log_durable();
                    h.synced();
                }
            }
            n if n < 88 => {
                let mut rows = m.rows.last().unwrap().0.clone();
                let batches: Vec<_> = (0..rng.between(1, 2))
                    .map(|_| StateBatch {
                        ops: random_ops(&mut rng),
                    })
                    .collect();
                batches.iter().for_each(|b| apply(&mut rows, &b.ops));
                // Together or one by one: both are allowed, but only the end is a known content.
                match &batches[..] {
                    [one] => h.store().write(one).unwrap(),
                    many => {
                        let ops = many.iter().flat_map(|b| b.ops.clone()).collect();
                        h.store().write_all(&[StateBatch { ops }]).unwrap();
                    }
                }
                m.rows.push((rows, m.written()));
            }
            n if n < 92 => {
                h.store().flush().unwrap();
                h.synced();
                m.log_durable();
                m.state_durable();
            }
            n if n < 95 => {
                h.store().sync().unwrap();
                h.synced();
                m.log_durable();
            }
            _ => {
                let mut logs = m.log_now().clone();
                let log = logs.get_mut(&A.0).unwrap();
                let to = if rng.chance(1, 10) {
                    log.last() + 5
                } else {
                    rng.between(0, log.hard.commit + 1)
                };
                h.store().trim(A, to, term).unwrap();
                if to > log.first {
                    log.entries.retain(|e| e.index >= to);
                    (log.first, log.trimmed_term) = (to, term);
                    m.write_log(logs);
                    m.log_durable();
                    m.state_durable();
                    h.synced();
                }
            }
        }
        let (logs, rows) = shown(h);
        assert_eq!(&logs, m.log_now(), "seed {seed} step {step}");
        assert_eq!(&rows, &m.rows.last().unwrap().0, "seed {seed} step {step}");
    }
}

#[test]
fn sim() {
    for seed in 0..300 {
        run(&mut Sim::new(), seed, 150, 6);
    }
}

#[test]
fn rocks() {
    for seed in 0..6 {
        run(&mut Rocks::new(), seed, 80, 6);
    }
}

/// A store that only says it syncs is found out by the same sequences.
#[test]
fn a_lie_about_syncing_is_found() {
    struct Liar(Sim);
    impl Harness for Liar {
        type Store = SimStore;
        fn store(&mut self) -> &mut SimStore {
            self.0.store()
        }
        fn crash(&mut self, rng: &mut SimRng) {
            self.0.crash(rng);
        }
        fn kill(&mut self, rng: &mut SimRng) {
            self.0.kill(rng);
        }
        fn restart(&mut self) {
            self.0.restart();
        }
        fn corrupt(&mut self, shard: ShardId, index: u64, needle: &[u8]) {
            self.0.corrupt(shard, index, needle);
        }
    }
    let found = (0..20).filter(|seed| {
        let result = std::panic::catch_unwind(|| {
            let mut liar = Liar(Sim::new());
            liar.store().lie_about_sync(true);
            run(&mut liar, *seed, 150, 6);
        });
        result.is_err()
    });
    assert!(found.count() >= 15);
}

/// Planted errors are final and lose nothing that was reported before them.
#[test]
fn after_a_planted_error_nothing_is_written_until_a_restart() {
    for (seed, fault) in [Fault::WriteError, Fault::SyncError, Fault::NoSpace]
        .into_iter()
        .cycle()
        .take(60)
        .enumerate()
    {
        let mut rng = SimRng::new(seed as u64);
        let mut sim = Sim::new();
        let append = |range, sync| super::cases::append(A, range, 1, sync);
        sim.store().append(&[append(1..5, true)]).unwrap();
        sim.store().inject(fault);
        let error = sim.store().append(&[append(5..8, true)]).unwrap_err();
        assert_eq!(error == StoreError::NoSpace, fault == Fault::NoSpace);
        assert_eq!(
            sim.store().append(&[append(5..6, true)]),
            Err(error.clone())
        );
        assert_eq!(sim.store().sync(), Err(error.clone()));
        assert_eq!(
            sim.store().write(&StateBatch::default()),
            Err(error.clone())
        );
        assert_eq!(sim.store().flush(), Err(error.clone()));
        assert_eq!(sim.store().trim(A, 3, 1), Err(error.clone()));
        assert_eq!(sim.store().health(), Err(error));
        sim.crash(&mut rng);
        let last = sim.store().bounds(A).unwrap().last;
        assert!(
            last == 4 || (last == 7 && fault != Fault::NoSpace),
            "{last} after {fault:?}"
        );
        sim.store()
            .append(&[append(last + 1..last + 2, true)])
            .unwrap();
    }
}
