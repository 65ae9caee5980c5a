//! `troupe bench` against a real server: what it counts is so, and what is wrong is found.

mod common;

use common::{run, Server};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use troupemq::client::{Client, Outgoing};

fn bench(server: &Server, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_troupe"))
        .arg("bench")
        .args(args)
        .args(["--namesrv", &server.registry, "--json"])
        .args(["--timeout", "30000", "--pid", &server.pid().to_string()])
        .output()
        .expect("runs")
}

/// The one JSON object on standard output.
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| {
        let err = String::from_utf8_lossy(&output.stderr);
        panic!("{e}: {text} {err}")
    })
}

fn good(server: &Server, args: &[&str]) -> Value {
    let output = bench(server, args);
    let result = json(&output);
    assert!(output.status.success(), "{args:?}: {result}");
    assert_eq!(result["ok"], true, "{result}");
    let process = &result["processes"][0];
    assert!(process["rss_kb"].as_u64().unwrap() > 1_000, "{result}");
    assert!(process["cpu_s"].as_f64().is_some(), "{result}");
    result
}

fn path(p: &Path) -> &str {
    p.to_str().expect("a plain path")
}

#[test]
fn what_is_sent_is_counted_recorded_and_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let record = dir.path().join("record");
    let sent = good(
        &server,
        &[
            "send",
            "--topic",
            "a",
            "--queues",
            "4",
            "--messages",
            "3000",
            "-c",
            "3",
            "-w",
            "16",
            "--size",
            "200",
            "--record",
            path(&record),
        ],
    );
    assert_eq!(
        (&sent["acked"], &sent["acked_total"]),
        (&3_000.into(), &3_000.into())
    );
    assert_eq!(
        (&sent["failed"], &sent["recorded"]),
        (&0.into(), &3_000.into())
    );
    assert_eq!(sent["latency_us"]["samples"], 3_000);
    assert!(sent["latency_us"]["p50"].as_f64() <= sent["latency_us"]["max"].as_f64());

    let consume = ["consume", "--verify", path(&record), "-c", "2"];
    let read = good(&server, &consume);
    assert_eq!(
        (&read["messages"], &read["queues"]),
        (&3_000.into(), &4.into())
    );
    assert_eq!(read["body_bytes"], 600_000);
    assert_eq!(
        (&read["verify"]["found"], &read["verify"]["missing"]),
        (&3_000.into(), &0.into())
    );

    // Batches with binary headers at a fixed rate, after a warm-up, behind the others.
    let batches = dir.path().join("batches");
    let sent = good(
        &server,
        &[
            "send",
            "--topic",
            "a",
            "--rate",
            "4000",
            "--duration",
            "0.5",
            "--warmup",
            "0.1",
            "--batch",
            "7",
            "--headers",
            "binary",
            "--size",
            "40",
            "--record",
            path(&batches),
        ],
    );
    let total = sent["acked_total"].as_u64().unwrap();
    assert!(total > 1_000, "{sent}");
    assert_eq!(
        (&sent["recorded"], &sent["failed"]),
        (&total.into(), &0.into())
    );
    let read = good(&server, &["consume", "--verify", path(&batches)]);
    assert_eq!(read["messages"], 3_000 + total);
    assert_eq!(read["verify"]["found"], total);
    // Code 10, and the first record still holds.
    let sent = good(
        &server,
        &["send", "--topic", "a", "--code", "10", "--messages", "10"],
    );
    assert_eq!(sent["acked"], 10);
    assert_eq!(good(&server, &consume)["verify"]["found"], 3_000);
}

#[test]
fn what_is_missing_or_changed_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let record = dir.path().join("record");
    let send = [
        "send",
        "--topic",
        "t",
        "--queues",
        "1",
        "--messages",
        "50",
        "-c",
        "1",
        "-w",
        "1",
        "--record",
        path(&record),
    ];
    good(&server, &send);
    let verify = ["consume", "--verify", path(&record)];
    assert_eq!(good(&server, &verify)["verify"]["found"], 50);

    // A changed record is refused.
    let bytes = std::fs::read(&record).expect("the record");
    let tampered = dir.path().join("tampered");
    let mut bad = bytes.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    for bad in [bad, bytes[..bytes.len() - 3].to_vec()] {
        std::fs::write(&tampered, bad).expect("written");
        let refused = bench(&server, &["consume", "--verify", path(&tampered)]);
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("cut off or damaged"));
    }

    // The same acknowledgements at another server, which never got these messages.
    let other = Server::start(&dir.path().join("other"), &[]);
    let elsewhere = dir.path().join("elsewhere");
    let mut send = send;
    send[send.len() - 1] = path(&elsewhere);
    good(&other, &send);
    let missing = bench(&other, &verify);
    assert!(!missing.status.success());
    let result = json(&missing);
    assert_eq!(
        (&result["ok"], &result["verify"]["found"]),
        (&false.into(), &0.into())
    );
    assert_eq!(result["verify"]["mismatched"], 50);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("is not at offset 0"));

    // Foreign messages are counted and no fault.
    run(async {
        let client = Client::new(vec![server.registry.clone()], Duration::from_secs(30));
        let message = Outgoing {
            topic: "t",
            body: b"not ours",
            properties: &[],
        };
        client.send(&server.broker, 0, message).await.expect("sent");
    });
    let read = good(&server, &verify);
    assert_eq!(
        (&read["messages"], &read["foreign"]),
        (&51.into(), &1.into())
    );
}

#[test]
fn a_waiting_consumer_topics_and_connections() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let e2e = good(
        &server,
        &[
            "e2e",
            "--topic",
            "e",
            "--rate",
            "500",
            "--messages",
            "300",
            "-c",
            "2",
        ],
    );
    assert_eq!((&e2e["received"], &e2e["lost"]), (&300.into(), &0.into()));
    assert_eq!(
        (&e2e["send"]["acked"], &e2e["e2e_latency_us"]["samples"]),
        (&300.into(), &300.into())
    );
    assert_eq!(e2e["checks"]["messages"], 300);

    let topics = good(
        &server,
        &[
            "topics",
            "--topic",
            "many",
            "--topics",
            "40",
            "--queues",
            "5",
            "--active",
            "10",
            "--messages",
            "100",
            "-c",
            "2",
        ],
    );
    assert_eq!(
        (&topics["created"], &topics["queues"]),
        (&40.into(), &200.into())
    );
    assert_eq!(
        (&topics["active_queues"], &topics["send"]["acked"]),
        (&20.into(), &100.into())
    );
    // Every tenth queue, so two topics in four have none: the messages are where they should be.
    let read = good(&server, &["consume", "--topic", "many", "--topics", "40"]);
    assert_eq!(
        (&read["messages"], &read["queues"]),
        (&100.into(), &200.into())
    );

    for role in ["producer", "consumer"] {
        let connections = good(
            &server,
            &[
                "connections",
                "-c",
                "50",
                "--role",
                role,
                "--groups",
                "5",
                "--bursts",
                "2",
                "--burst-seconds",
                "0.2",
                "--pause",
                "0.05",
                "--topic",
                "e",
            ],
        );
        assert_eq!(
            (&connections["connected"], &connections["alive"]),
            (&50.into(), &50.into())
        );
        assert_eq!(connections["heartbeats"], 100);
        assert_eq!(connections["heartbeats_answered"], 100);
        assert_eq!(connections["heartbeat_latency_us"]["samples"], 100);
    }
}

#[test]
fn a_broker_that_comes_back_is_found_again_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = Server::start(&data, &["flushDiskType=SYNC_FLUSH"]);
    let (registry, broker) = (server.registry.clone(), server.broker.clone());
    let record = dir.path().join("record");
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
    command
        .args([
            "bench",
            "send",
            "--topic",
            "r",
            "-c",
            "2",
            "-w",
            "8",
            "--messages",
            "20000",
        ])
        .args([
            "--retries",
            "1000",
            "--size",
            "100",
            "--json",
            "--timeout",
            "30000",
        ])
        .args(["--record", path(&record), "--namesrv", &registry])
        .stdout(std::process::Stdio::piped());
    let child = command.spawn().expect("runs");
    let progress = |server: &Server| {
        run(async {
            let client = Client::new(vec![server.registry.clone()], Duration::from_secs(30));
            client.max_offset(&server.broker, "r", 0).await.unwrap_or(0)
        })
    };
    common::wait_for("some messages", || (progress(&server) > 50).then_some(()));
    drop(server);
    let port = |addr: &str| addr.rsplit(':').next().unwrap_or_default().to_owned();
    let sets = [
        format!("listen_port={}", port(&broker)),
        format!("namesrv_listen_port={}", port(&registry)),
        "flushDiskType=SYNC_FLUSH".to_owned(),
    ];
    let server = Server::start(&data, &sets.each_ref().map(String::as_str));
    let output = child.wait_with_output().expect("ends");
    let sent = json(&output);
    assert!(output.status.success(), "{sent}");
    assert_eq!(
        (&sent["acked_total"], &sent["failed"]),
        (&20_000.into(), &0.into())
    );
    assert!(sent["connects"].as_u64() > Some(2), "{sent}");
    assert!(
        sent["retries"]["connection lost"].as_u64() > Some(0),
        "{sent}"
    );
    let read = good(&server, &["consume", "--verify", path(&record)]);
    assert_eq!(read["verify"]["found"], 20_000);
}

#[test]
fn without_a_server_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_troupe"))
        .args(["bench", "send", "--namesrv", "127.0.0.1:1", "--json"])
        .output()
        .expect("runs");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect to 127.0.0.1:1"));
}
