//! A process that writes is killed with SIGKILL, again and again on one directory.

use super::cases::{append, entries};
use super::harness::A;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use troupemq::storage::*;

const DIR: &str = "STORE_KILL_DIR";

fn row(n: u64) -> Vec<u8> {
    let mut key = vec![0xee];
    key.extend_from_slice(&n.to_be_bytes());
    key
}

/// The process to be killed. Does nothing when run as an ordinary test.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let options = StoreOptions {
        state_memtable_bytes: 128 << 10,
        ..StoreOptions::default()
    };
    let store = RocksStore::open(Path::new(&dir), options, &[A]).unwrap();
    let next = store.bounds(A).unwrap().last + 1;
    let (tell, told) = crossbeam_channel::unbounded();
    let options = WriterOptions {
        flush_after_bytes: 64 << 10,
        ..WriterOptions::default()
    };
    let writer =
        Writer::spawn(store, options, Box::new(move |done| drop(tell.send(done)))).unwrap();
    let mut out = std::io::stdout().lock();
    for n in next.. {
        let sync = n % 3 == 0;
        writer
            .submit(Job::Append {
                shard: A,
                ticket: n,
                append: append(A, n..n + 1, 1, sync),
            })
            .unwrap();
        loop {
            match told.recv().unwrap() {
                Done::Appended { .. } => break,
                Done::Failed { error } => panic!("{error}"),
                _ => {}
            }
        }
        writeln!(out, "\nappended {n}").unwrap();
        let op = StateOp::Put {
            key: row(n),
            value: vec![n as u8; 200],
        };
        let batch = StateBatch { ops: vec![op] };
        writer
            .submit(Job::State {
                shard: A,
                ticket: n,
                batch,
                applied: n,
            })
            .unwrap();
    }
}

#[test]
fn nothing_reported_is_lost_and_state_is_a_prefix_behind_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = SimRng::new(5);
    let mut reported = 0;
    let mut state_survived = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = reported;
        let wanted = before + rng.between(300, 2000);
        let deadline = Instant::now() + Duration::from_secs(60);
        while reported < wanted {
            assert!(Instant::now() < deadline, "only {reported} of {wanted}");
            let line = lines.next().expect("the child ended").unwrap();
            if let Some(n) = line.strip_prefix("appended ") {
                reported = n.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            // The last line may have been cut by the kill only at its end: it is a whole write.
            if let Some(n) = line.strip_prefix("appended ").and_then(|n| n.parse().ok()) {
                reported = reported.max(n);
            }
        }
        let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[A]).unwrap();
        let last = store.bounds(A).unwrap().last;
        assert!(
            last == reported || last == reported + 1,
            "round {round}: {last}, reported {reported}"
        );
        assert_eq!(
            store.read(A, 1, last + 1, u64::MAX).unwrap(),
            entries(1..last + 1, 1)
        );
        let applied = store.get(&keys::applied::key(A)).unwrap();
        let applied = applied.map_or(0, |v| keys::applied::decode(&v).unwrap());
        assert!(applied <= last);
        state_survived += applied;
        let rows = store.scan(&row(0), &row(u64::MAX), usize::MAX).unwrap();
        let expected: Vec<_> = (1..=applied)
            .map(|n| (row(n), vec![n as u8; 200]))
            .collect();
        assert!(
            rows == expected,
            "round {round}: {} rows, applied {applied}",
            rows.len()
        );
        // Replay, as a node does.
        let ops = |n| {
            vec![StateOp::Put {
                key: row(n),
                value: vec![n as u8; 200],
            }]
        };
        for n in applied + 1..=last {
            let mut ops = ops(n);
            ops.push(StateOp::Put {
                key: keys::applied::key(A),
                value: keys::applied::encode(n),
            });
            store.write(&StateBatch { ops }).unwrap();
        }
        if round % 2 == 0 {
            store.close().unwrap();
        }
        reported = last;
    }
    assert!(state_survived > 0, "flushes happened");
}
