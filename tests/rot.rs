//! Bits that change in the tables of a single node: what cannot be read is skipped, counted and named, and
//! nothing else is lost with it.

mod common;

use common::{refused, run, wait_for, Server, PATIENCE};
use std::path::Path;
use std::time::Duration;
use troupemq::client::{Client, Outgoing};

const TOPIC: &str = "Rot";
const MESSAGES: i64 = 120;
const BODY: usize = 30_000;
const SETS: &[&str] = &["memtable_bytes=1048576"];

fn body(n: i64) -> Vec<u8> {
    vec![n as u8 + 32; BODY]
}

/// Stops it as an operator does.
fn stop(mut server: Server) {
    server.terminate();
    assert!(server.ended_within(PATIENCE).is_some_and(|s| s.success()));
}

/// Flips a bit in a body, in the one table that holds it.
fn rot(data: &Path, body: &[u8]) {
    damage(data, body, |bytes, at| bytes[at + 40] ^= 2);
}

/// Changes the table that holds this body.
fn damage(data: &Path, body: &[u8], change: impl Fn(&mut [u8], usize)) {
    let mut hits = 0;
    for file in std::fs::read_dir(data.join("db")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|w| w == &body[..64]) {
            assert!(path.extension().is_some_and(|e| e == "sst"), "{path:?}");
            change(&mut bytes, at);
            std::fs::write(&path, bytes).unwrap();
            hits += 1;
        }
    }
    assert_eq!(hits, 1);
}

async fn send(client: &Client, broker: &str, n: i64, properties: &[(&str, &str)]) -> i64 {
    let body = body(n);
    let message = Outgoing {
        topic: TOPIC,
        body: &body,
        properties,
    };
    let sent = client.send(broker, 0, message).await.expect("is stored");
    sent.queue_offset
}

/// All of the queue, and where it ends.
async fn read(client: &Client, broker: &str) -> (Vec<(i64, Vec<u8>)>, i64) {
    let max = client.max_offset(broker, TOPIC, 0).await.expect("max");
    let (mut at, mut found) = (0, Vec::new());
    while at < max {
        let place = (TOPIC, 0, at);
        let pulled = client
            .pull(broker, "readers", place, "*", Duration::ZERO)
            .await
            .expect("a pull is answered");
        assert!(pulled.next > at, "it goes on behind {at}");
        at = pulled.next;
        let messages = pulled.messages.into_iter();
        found.extend(messages.map(|m| (m.queue_offset, m.body.to_vec())));
    }
    (found, max)
}

#[test]
fn what_nobody_can_read_is_skipped_and_named_and_all_else_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, SETS);
    let client = Client::new(vec![server.registry.clone()], PATIENCE);
    run(async {
        for n in 0..MESSAGES {
            assert_eq!(send(&client, &server.broker, n, &[]).await, n);
            if n == 50 {
                // Due in 30 s.
                send(&client, &server.broker, 130, &[("DELAY", "4")]).await;
            }
        }
    });
    stop(server);
    // A start writes what it finds in the log into tables; then no start reads that again.
    stop(Server::start(&data, SETS));
    rot(&data, &body(7));
    rot(&data, &body(130));
    let server = Server::start(&data, SETS);
    let client = Client::new(vec![server.registry.clone()], PATIENCE);
    let log = || std::fs::read_to_string(data.with_extension("err")).unwrap();
    run(async {
        let (found, max) = read(&client, &server.broker).await;
        assert_eq!(max, MESSAGES);
        let want: Vec<i64> = (0..MESSAGES).filter(|n| *n != 7).collect();
        let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, want);
        assert!(found.iter().all(|(offset, bytes)| *bytes == body(*offset)));
    });
    wait_for("the delayed message to be given up", || {
        log().contains("lost_delayed_message").then_some(())
    });
    run(async {
        // It is gone, and what comes later is as ever. (Connections belong to their runtime.)
        let client = Client::new(vec![server.registry.clone()], PATIENCE);
        assert_eq!(send(&client, &server.broker, 1, &[]).await, MESSAGES);
        let (found, _) = read(&client, &server.broker).await;
        assert_eq!(found.len() as i64, MESSAGES);
    });
    for event in ["bad_entry", "lost_entry", "lost_messages"] {
        assert!(log().contains(event), "{event} is not named");
    }
    assert_eq!(
        log().matches("lost_delayed_message").count(),
        1,
        "it is not tried again"
    );
    stop(server);
    let server = Server::start(&data, SETS);
    let http = server.http();
    let (done, said) = troupe(&["cluster", "scrub", "--http"], http.as_ref());
    assert!(
        done && said.contains("2 found") && said.contains("2 LOST"),
        "{said}"
    );
    stop(server);
    // Without what names its tables it does not begin anew.
    std::fs::remove_file(data.join("db/CURRENT")).unwrap();
    for _ in 0..2 {
        let (code, said) = refused(&data, SETS);
        assert_ne!(code, Some(0));
        assert!(said.iter().any(|l| l.contains("CURRENT")), "{said:?}");
    }
}

/// What the command says and how it ends.
fn troupe(args: &[&str], last: &std::ffi::OsStr) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_troupe"));
    let out = command.args(args).arg(last).output();
    let out = out.expect("it runs");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into())
}

#[test]
fn a_single_node_starts_behind_what_it_cannot_replay_and_gives_up_more_by_an_operators_word_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, SETS);
    let client = Client::new(vec![server.registry.clone()], PATIENCE);
    run(async {
        for n in 0..40 {
            assert_eq!(send(&client, &server.broker, n, &[]).await, n);
        }
    });
    // The log is in tables then, and what was applied is in no row yet.
    server.kill();
    Server::start(&data, SETS).kill();
    rot(&data, &body(7));
    rot(&data, &body(39));
    let mut server = Server::start(&data, SETS);
    let log = std::fs::read_to_string(data.with_extension("err")).unwrap();
    assert_eq!(log.matches("bad_entry_at_start").count(), 2, "{log}");
    run(async {
        let client = Client::new(vec![server.registry.clone()], PATIENCE);
        assert_eq!(send(&client, &server.broker, 40, &[]).await, 40);
        assert_eq!(send(&client, &server.broker, 41, &[]).await, 41);
        let (found, max) = read(&client, &server.broker).await;
        assert_eq!(max, 42);
        let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
        let want: Vec<i64> = (0..42).filter(|n| ![7, 39].contains(n)).collect();
        assert_eq!(offsets, want);
        assert!(found.iter().all(|(offset, bytes)| *bytes == body(*offset)));
    });
    server.kill();
    Server::start(&data, SETS).kill();
    // Nothing says any more how many messages the entry held.
    damage(&data, &body(40), |bytes, at| {
        bytes[at - 220..at].iter_mut().for_each(|b| *b ^= 0xff);
    });
    let (code, said) = refused(&data, SETS);
    assert_ne!(code, Some(0));
    let named = |l: &String| l.contains("corrupt") && l.contains("troupe cluster rescue");
    assert!(said.iter().any(named), "{said:?}");
    let (done, said) = troupe(&["cluster", "rescue", "--data-dir"], data.as_os_str());
    assert!(done && said.contains("Nothing was changed"), "{said}");
    assert_ne!(refused(&data, SETS).0, Some(0), "nothing was");
    let (done, said) = troupe(
        &["cluster", "rescue", "--accept-loss", "--data-dir"],
        data.as_os_str(),
    );
    assert!(done && said.contains("DAMAGED"), "{said}");
    let server = Server::start(&data, SETS);
    run(async {
        let client = Client::new(vec![server.registry.clone()], PATIENCE);
        let (found, max) = read(&client, &server.broker).await;
        assert_eq!((max, found.len()), (40, 38));
        assert_eq!(send(&client, &server.broker, 50, &[]).await, 40);
    });
    stop(server);
}
