//! `kill -9` in the middle of load, again and again on one directory: what was acknowledged is
//! there, once, in its place. Also the ends that are not crashes, and starts that are refused.

#[path = "crash/check.rs"]
mod check;
mod common;
#[path = "crash/load.rs"]
mod load;

use check::{check_delayed, check_offsets, check_queues};
use common::{refused, run, Server, PATIENCE};
use load::{Ledger, Load};
use std::time::Duration;
use troupemq::client::Client;

const ROUNDS: u32 = 4;
/// Acknowledged messages before a round's kill.
const ACKS: usize = 1_500;
/// What the product promises for an orderly stop.
const STOP: Duration = Duration::from_secs(5);

fn client(server: &Server) -> Client {
    Client::new(vec![server.registry.clone()], PATIENCE)
}

async fn verify(server: &Server, ledger: &Ledger) {
    let client = client(server);
    check_queues(&client, &server.broker, ledger).await;
    check_offsets(&client, &server.broker, ledger).await;
}

async fn kill_rounds(flush: &str) {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let sets = [
        flush,
        "max_transfer_count=1024",
        "log_segment_bytes=1048576",
        "memtable_bytes=1048576",
    ];
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        let mut server = Server::start(&data, &sets);
        verify(&server, &ledger).await;
        let load = Load::start(&server.broker, round, ledger).await;
        load.wait_for_acks(ACKS).await;
        server.kill();
        ledger = load.end().await;
        // A crash at the start must do no harm either, wherever it hits the recovery.
        let mut early = Server::spawn(&data, &sets);
        std::thread::sleep(Duration::from_millis(u64::from(round) * 40));
        early.kill();
    }
    let server = Server::start(&data, &sets);
    verify(&server, &ledger).await;
    check_delayed(&client(&server), &server.broker, &ledger).await;
    assert!(ledger.acked.len() >= ACKS * ROUNDS as usize);
}

#[test]
fn kill_9_loses_nothing_acknowledged_with_sync_flush() {
    run(kill_rounds("flushDiskType=SYNC_FLUSH"));
}

#[test]
fn kill_9_loses_nothing_acknowledged_with_async_flush() {
    run(kill_rounds("flushDiskType=ASYNC_FLUSH"));
}

#[test]
fn sigterm_under_load_ends_well_and_keeps_everything() {
    run(async {
        let dir = tempfile::tempdir().expect("tempdir");
        let data = dir.path().join("data");
        let mut ledger = Ledger::default();
        for (round, flush) in ["flushDiskType=SYNC_FLUSH", "flushDiskType=ASYNC_FLUSH"]
            .iter()
            .enumerate()
        {
            let sets = [flush, "max_transfer_count=1024"];
            let mut server = Server::start(&data, &sets);
            let load = Load::start(&server.broker, round as u32, ledger).await;
            load.wait_for_acks(ACKS).await;
            server.terminate();
            // The load goes on meanwhile.
            let (mut server, status) = tokio::task::spawn_blocking(move || {
                let status = server.ended_within(STOP);
                (server, status)
            })
            .await
            .expect("waits");
            let status = status.unwrap_or_else(|| {
                server.kill();
                panic!("no end within {STOP:?} of SIGTERM");
            });
            assert_eq!(status.code(), Some(0), "after SIGTERM");
            ledger = load.end().await;
            let server = Server::start(&data, &sets);
            verify(&server, &ledger).await;
            check_delayed(&client(&server), &server.broker, &ledger).await;
        }
    });
}

/// A start that fails says why in one line.
fn one_line(data: &std::path::Path, sets: &[&str], words: &[&str]) {
    let (code, said) = refused(data, sets);
    assert!(code.is_some_and(|c| c != 0), "exit code {code:?}: {said:?}");
    assert_eq!(said.len(), 1, "one line: {said:?}");
    for word in words {
        assert!(said[0].contains(word), "{word:?} is not in {:?}", said[0]);
    }
}

#[test]
fn starts_that_cannot_work_are_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    one_line(&data, &[], &["data directory", &server.pid().to_string()]);

    let other = dir.path().join("other");
    let port = |addr: &str| addr.rsplit(':').next().expect("a port").to_owned();
    let broker = format!("listen_port={}", port(&server.broker));
    one_line(
        &other,
        &[&broker],
        &[&server.broker, "another process uses the port"],
    );
    let registry = format!("namesrv_listen_port={}", port(&server.registry));
    one_line(
        &other,
        &[&registry],
        &[&server.registry, "another process uses the port"],
    );

    for (set, word) in [
        ("flushDiskType=SOMETIMES", "SYNC_FLUSH"),
        ("listen_port=70000", "listen_port"),
        ("no_such_key=1", "no_such_key"),
        ("bind_host=0.0.0.0", "allow_insecure_non_loopback"),
        ("log_segment_bytes=1", "log_segment_bytes"),
        ("roles=broker", "namesrv_addr"),
    ] {
        one_line(&other, &[set], &[word]);
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").expect("writes");
    one_line(&file, &[], &["data directory"]);

    // All the while the first one served, and what was refused holds nothing.
    run(async {
        let client = client(&server);
        client
            .create_topic(&server.broker, "still-here", 1, 6)
            .await
            .expect("serves");
    });
    Server::start(&other, &[]);
}
