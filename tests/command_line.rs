//! What a new user meets first: a server started with the files they have, and the commands against
//! servers of every kind.

mod common;

use common::Server;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

fn troupe(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
    command.args(args).output().expect("runs")
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Exit code 0, and standard output.
fn good(args: &[&str]) -> String {
    let output = troupe(args);
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {out}{err}");
    out
}

/// Exit code 1 and one line on standard error.
fn bad(args: &[&str]) -> String {
    let output = troupe(args);
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {out}{err}");
    assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    assert!(err.starts_with("troupe: "), "{args:?}: {err}");
    err
}

fn sample(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/config").join(name).display().to_string()
}

/// Where nobody listens.
fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

fn page(addr: &str, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("connects");
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    text
}

#[test]
fn servers_start_with_the_files_of_production() {
    for (name, notes, said) in [
        ("single-4.x.conf", 1, "abortFile"),
        ("single-5.x.conf", 1, "enablePropertyFilter"),
        ("2m-2s-sync-master.properties", 2, "deleteWhen"),
        ("dledger.conf", 2, "runs ALONE"),
        ("controller.conf", 2, "runs ALONE"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = format!("--config={}", sample(name));
        let server = Server::start(&dir.path().join("data"), &[&config, "namesrvAddr="]);
        let log = server.log();
        let told: Vec<&str> = log
            .lines()
            .filter(|l| l.contains(" of RocketMQ not used"))
            .collect();
        assert_eq!(told.len(), 1, "{name}: {log}");
        assert!(log.lines().any(|l| l.contains(said)), "{name}: {log}");
        let warned = log
            .lines()
            .filter(|l| l.contains("WARN") && l.contains("troupemq::cli"));
        assert_eq!(warned.count(), notes, "{name}: {log}");
        good(&["topic", "create", "T", "-n", &server.registry]);
        good(&["message", "send", "T", "x", "-n", &server.registry]);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data").display().to_string();
    let slave = sample("2m-2s-sync-slave.properties");
    let err = bad(&["server", "--data-dir", &data, "--config", &slave]);
    assert!(err.contains("peers"), "{err}");
}

#[test]
fn a_name_server_starts_with_its_own_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!("--config={}", sample("namesrv.conf"));
    // The file's listenPort, over which this one stands, is the name server's.
    let sets = [config.as_str(), "roles=registry", "listenPort=0"];
    let server = Server::start(&dir.path().join("data"), &sets);
    let shown = good(&["cluster", "show", "--http", &server.http()]);
    assert!(shown.contains("a name server without a broker"), "{shown}");
    let err = bad(&["topic", "create", "T", "-n", &server.registry]);
    assert!(err.contains("no broker is registered"), "{err}");
}

#[test]
fn a_single_node_is_shown_and_its_members_are_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let http = server.http();
    let shown = good(&["cluster", "show", "--http", &http]);
    assert!(
        shown.starts_with("single node  broker broker-a of DefaultCluster, port "),
        "{shown}"
    );
    assert!(shown.contains("  serving  committed "), "{shown}");
    let json = good(&["cluster", "show", "--json", "--http", &http]);
    assert!(json.contains("\"single\":true"), "{json}");
    let dead = dead();
    let some = good(&["cluster", "show", "--http", &format!("{dead},{http}")]);
    assert!(
        some.contains("cannot connect") && some.contains("single node"),
        "{some}"
    );
    for command in [
        &["add", "--node", "2"][..],
        &["remove", "--node", "1"],
        &["remove", "--node", "1", "--shards", "broker-a"],
        &["replace", "--node", "1", "--with", "2"],
        &["transfer", "--shard", "broker-a", "--to", "2"],
        &["rebalance"],
    ] {
        let args = [&["cluster"][..], command, &["--http", &http]].concat();
        let err = bad(&args);
        assert!(err.contains("is a single node"), "{err}");
    }
}

#[test]
fn wrong_ports_and_dead_servers_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let (http, dead) = (server.http(), dead());
    for args in [
        &["cluster", "show"][..],
        &["cluster", "show", "--json"],
        &["cluster", "rebalance"],
        &["cluster", "transfer", "--shard", "a", "--to", "1"],
        &["cluster", "add", "--node", "2"],
        &["cluster", "remove", "--node", "2"],
        &["cluster", "replace", "--node", "2", "--with", "3"],
    ] {
        for (addr, said) in [
            (&server.registry, "--http wants"),
            (&server.broker, "--http wants"),
            (&dead, "cannot connect"),
        ] {
            let err = bad(&[args, &["--http", addr]].concat());
            assert!(err.contains(said) && err.contains(addr.as_str()), "{err}");
        }
    }
    for args in [
        &["topic", "list"][..],
        &["topic", "show", "T"],
        &["topic", "create", "T"],
        &["topic", "delete", "T"],
        &["message", "send", "T", "x"],
        &["message", "tail", "T"],
    ] {
        let err = bad(&[args, &["-n", &dead]].concat());
        assert!(
            err.contains("cannot connect") && err.contains("--namesrv"),
            "{err}"
        );
        let err = bad(&[args, &["-n", &http]].concat());
        assert!(err.contains("--namesrv") && err.contains(&http), "{err}");
    }
}

#[test]
fn the_http_port_says_what_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let http = server.http();
    let plain = page(&http, "/", "*/*");
    assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
    assert!(
        plain.contains("TroupeMQ") && plain.contains("broker-a"),
        "{plain}"
    );
    let html = page(&http, "/", "text/html,application/xhtml+xml");
    for path in ["/metrics", "/cluster", "/health/ready", "/health/live"] {
        assert!(plain.contains(path), "{plain}");
        assert!(html.contains(&format!("<a href=\"{path}\">")), "{html}");
        assert!(
            page(&http, path, "*/*").starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
    let none = page(&http, "/metric", "*/*");
    assert!(
        none.starts_with("HTTP/1.1 404") && none.contains("lists the pages"),
        "{none}"
    );
}

/// Two looks, with groups whose retry topics carry nothing.
#[test]
fn the_figures_come_in_order_and_without_idle_retry_topics() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    good(&["topic", "create", "T", "-n", &server.registry]);
    good(&["message", "send", "T", "x", "-n", &server.registry]);
    let names = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|l| l.starts_with("troupe_"));
        lines
            .map(|l| l.rsplit_once(' ').expect("a value").0.to_owned())
            .collect()
    };
    let read = || {
        good(&[
            "message",
            "tail",
            "T",
            "--from-start",
            "--count",
            "1",
            "-n",
            &server.registry,
        ])
    };
    read();
    let first = page(&server.http(), "/metrics", "*/*");
    let second = page(&server.http(), "/metrics", "*/*");
    assert_eq!(names(&first), names(&second));
    assert!(
        first.contains("troupe_messages_in_total{topic=\"T\"} 1"),
        "{first}"
    );
    assert!(!first.contains("%RETRY%"), "{first}");
}
