//! A process that may open few files serves whom it can, and lives.

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code)] // each test uses its part
#[path = "gateway/harness.rs"]
mod harness;

use common::{wait_for, Server};
use harness::{request, send_ext, topic_ext, Client};
use rustix::process::{getrlimit, prlimit, setrlimit, Pid, Resource, Rlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// Small files, so that the store opens many.
const SMALL: [&str; 3] = [
    "memtable_bytes=1048576",
    "log_segment_bytes=1048576",
    "disk_min_free_bytes=0",
];

fn limits(soft: u64, hard: u64) -> Rlimit {
    Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    }
}

/// This process opens more than its server.
fn raise_own() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, limits(hard, hard)).expect("raised");
    hard
}

/// A server with these limits, and its HTTP port.
fn start(dir: &std::path::Path, soft: u64, hard: u64) -> (Server, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = free.local_addr().expect("address");
    drop(free);
    let port = format!("http_listen_port={}", http.port());
    let sets = [&SMALL[..], &[port.as_str()]].concat();
    let server = Server::start_with(dir, &sets, |command| {
        // SAFETY: one system call, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                setrlimit(Resource::Nofile, limits(soft, hard)).map_err(Into::into)
            });
        }
    });
    (server, http)
}

fn page(http: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(http).expect("HTTP");
    let wait = Some(Duration::from_secs(60));
    stream.set_read_timeout(wait).expect("timeout");
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a page");
    text
}

fn metric(http: SocketAddr, name: &str) -> u64 {
    let page = page(http, "/metrics");
    let line = page.lines().find(|l| l.starts_with(name)).expect(name);
    let value = line.rsplit(' ').next().and_then(|v| v.parse().ok());
    value.expect("a number")
}

/// Idle connections; most of them may be closed by the server at once.
fn crowd(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let one = |_| TcpStream::connect(addr).expect("the queue of the port takes it");
    (0..count).map(one).collect()
}

/// Connections of them that the server still has.
fn still_open(crowd: &[TcpStream]) -> usize {
    let open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).expect("set");
        let looked = stream.peek(&mut [0]);
        matches!(looked, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    };
    crowd.iter().filter(open).count()
}

/// So much that the store writes dozens of files.
fn send_much(client: &mut Client) {
    let body = vec![b'x'; 256 * 1024];
    for _ in 0..30 {
        let frames = (0..8).map(|n| request(310, n, 0, &send_ext("T", 0, ""), &body));
        client.write(&frames.collect::<Vec<_>>().concat());
        for _ in 0..8 {
            let (head, _) = client.read().expect("the node answers");
            assert_eq!(head["code"], 0, "{head}");
        }
    }
}

#[test]
fn with_a_low_hard_limit_clients_are_refused_and_the_node_lives() {
    raise_own();
    let dir = tempfile::tempdir().expect("directory");
    let (mut server, http) = start(&dir.path().join("data"), 1_024, 1_024);
    let broker: SocketAddr = server.broker.parse().expect("address");
    let registry: SocketAddr = server.registry.parse().expect("address");
    let mut client = Client::open(broker);
    assert_eq!(client.code(17, &topic_ext("T", 1, 6), b""), 0);
    let most = metric(http, "troupe_descriptors_connections ") as usize;
    assert!((400..900).contains(&most), "{most}");
    assert_eq!(metric(http, "troupe_descriptors_limit "), 1_024);
    // More than all limits together, to each port, and some that only hold HTTP places.
    let pages = crowd(http, 200);
    let (brokers, registries) = (crowd(broker, 1_100), crowd(registry, 300));
    wait_for("refusals", || {
        let open = still_open(&brokers) + still_open(&registries);
        (open < most).then_some(())
    });
    send_much(&mut client);
    assert!(page(http, "/health/live").contains("200 OK"));
    let open = metric(http, "troupe_descriptors_open ");
    assert!(open < 1_024 - 32, "{open} of 1024");
    assert!(page(http, "/metrics").contains("connections_closed_total{name=\"limit\"}"));
    assert!(server.ended_within(Duration::ZERO).is_none(), "it lives");
    // Who leaves makes place.
    drop((brokers, registries, pages));
    let mut late = wait_for("a place", || {
        let mut late = Client::open(broker);
        late.write(&request(310, 1, 0, &send_ext("T", 0, ""), b"late"));
        late.read().map(|(head, _)| {
            assert_eq!(head["code"], 0, "{head}");
            late
        })
    });
    send_much(&mut late);
}

#[test]
fn a_low_soft_limit_is_raised() {
    let hard = raise_own();
    if hard < 4_096 {
        return eprintln!("the hard limit of this process is {hard}: nothing to raise");
    }
    let dir = tempfile::tempdir().expect("directory");
    let (mut server, http) = start(&dir.path().join("data"), 1_024, hard);
    assert_eq!(metric(http, "troupe_descriptors_limit "), hard);
    let broker: SocketAddr = server.broker.parse().expect("address");
    let mut client = Client::open(broker);
    assert_eq!(client.code(17, &topic_ext("T", 1, 6), b""), 0);
    let crowd = crowd(broker, 1_300);
    wait_for("all connections", || {
        (metric(http, "troupe_connections{name=\"broker\"}") >= 1_301).then_some(())
    });
    assert_eq!(still_open(&crowd), 1_300);
    send_much(&mut client);
    assert!(server.ended_within(Duration::ZERO).is_none(), "it lives");
}

#[test]
fn a_node_that_can_accept_nothing_goes_on_once_it_can() {
    raise_own();
    let dir = tempfile::tempdir().expect("directory");
    let (mut server, http) = start(&dir.path().join("data"), 1_024, 1_024);
    let broker: SocketAddr = server.broker.parse().expect("address");
    let mut client = Client::open(broker);
    assert_eq!(client.code(17, &topic_ext("T", 1, 6), b""), 0);
    let open = metric(http, "troupe_descriptors_open ");
    let pid = Pid::from_raw(server.pid() as i32);
    // Something else in the process, as it were, has taken all that is left.
    prlimit(pid, Resource::Nofile, limits(open - 8, 1_024)).expect("lowered");
    let mut waiting: Vec<Client> = (0..20).map(|_| Client::open(broker)).collect();
    for n in 0..20 {
        assert_eq!(client.code(310, &send_ext("T", 0, ""), b"m"), 0, "send {n}");
    }
    prlimit(pid, Resource::Nofile, limits(1_024, 1_024)).expect("raised");
    for late in &mut waiting {
        assert_eq!(late.code(310, &send_ext("T", 0, ""), b"m"), 0);
    }
    assert!(page(http, "/health/live").contains("200 OK"));
    assert!(server.ended_within(Duration::ZERO).is_none(), "it lives");
}

#[test]
fn too_low_a_limit_is_said_at_the_start() {
    let dir = tempfile::tempdir().expect("directory");
    let data = dir.path().join("data");
    let (status, said) = common::refused_with(&data, &[], |command| {
        // SAFETY: one system call, between fork and exec.
        unsafe {
            command.pre_exec(|| setrlimit(Resource::Nofile, limits(96, 96)).map_err(Into::into));
        }
    });
    assert_ne!(status, Some(0));
    let said = said.join("\n");
    assert!(
        said.contains("may open 96") && said.contains("ulimit -n"),
        "{said}"
    );
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let taken: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let ports = taken
        .iter()
        .map(|l| l.local_addr().expect("address").port());
    ports.collect()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What node 1 says of node 3: both directions of the link are up, and its replica is level.
fn level(http: SocketAddr) -> bool {
    let page = page(http, "/cluster");
    let body = page.split("\r\n\r\n").nth(1).unwrap_or_default();
    let view: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let link = &view["nodes"][2]["link"];
    let shard = &view["shards"][0];
    let replicas = shard["replicas"].as_array().cloned().unwrap_or_default();
    let third = replicas.iter().find(|r| r["node"] == 3);
    let level = third.is_some_and(|r| r["active"] == true && r["lag_entries"] == 0);
    link["outgoing"] == true && link["incoming"] == true && shard["serving"] == true && level
}

#[test]
fn other_nodes_get_in_whoever_holds_connections() {
    raise_own();
    let dir = tempfile::tempdir().expect("directory");
    let ports = free_ports(9);
    let (peers, https, shards) = (&ports[..3], &ports[3..6], &ports[6..]);
    let list: Vec<String> = (0..3)
        .map(|n| format!("{}=127.0.0.1:{}", n + 1, peers[n]))
        .collect();
    let list = list.join(";");
    let start = |n: usize| {
        let sets = [
            "cluster_id=test".to_owned(),
            format!("node_id={}", n + 1),
            format!("peers={list}"),
            format!("peer_listen_port={}", peers[n]),
            "shards=broker-a".to_owned(),
            format!("shard_ports={}", shards[n]),
            format!("http_listen_port={}", https[n]),
            "namesrv_addr=127.0.0.1:1".to_owned(),
            "heartbeat_interval_ms=200".to_owned(),
            "election_timeout_ms=3000".to_owned(),
        ];
        let sets: Vec<&str> = SMALL
            .iter()
            .copied()
            .chain(sets.iter().map(String::as_str))
            .collect();
        Server::start_with(&dir.path().join(format!("node-{n}")), &sets, |command| {
            // SAFETY: one system call, between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    setrlimit(Resource::Nofile, limits(1_024, 1_024)).map_err(Into::into)
                });
            }
        })
    };
    let mut servers: Vec<Server> = (0..3).map(start).collect();
    let (http, broker) = (local(https[0]), local(shards[0]));
    wait_for("a level cluster", || level(http).then_some(()));
    let mut client = Client::open(broker);
    assert_eq!(client.code(17, &topic_ext("T", 1, 6), b""), 0);
    servers[2].kill();
    // To each port of node 1; the clients' and the peers' in turn.
    let _crowds = [
        crowd(broker, 1_100),
        crowd(local(peers[0]), 200),
        crowd(http, 200),
    ];
    send_much(&mut client);
    servers[2] = start(2);
    wait_for("node 3", || level(http).then_some(()));
    send_much(&mut client);
    for server in &mut servers {
        assert!(server.ended_within(Duration::ZERO).is_none(), "it lives");
    }
}
