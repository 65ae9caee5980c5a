//! Three nodes with one shard, of which one ends at each point.

use super::common::{run, wait_for, Server, PATIENCE};
use super::large::{check_large, fill, large, LARGE};
use super::{armed, ended, own, start, FailPoint};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use troupemq::client::{Client, Outgoing};
use troupemq::wire::remoting::code::response;

const SHARD: &str = "broker-a";

struct Three {
    dir: tempfile::TempDir,
    sets: Vec<Vec<String>>,
    /// Ports of peers, name servers, pages and clients.
    ports: Vec<[u16; 4]>,
    servers: Vec<Option<Server>>,
    ends: [i64; 2],
    runtime: tokio::runtime::Runtime,
}

fn free_ports() -> [u16; 4] {
    let all: [TcpListener; 4] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    all.map(|l| l.local_addr().expect("an address").port())
}

/// One request to a page; the body, when the answer is good.
fn ask(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

impl Three {
    /// Nobody runs yet.
    fn new(more: &[&str]) -> Self {
        let ports: Vec<[u16; 4]> = (0..3).map(|_| free_ports()).collect();
        let list = |of: &dyn Fn(usize) -> String| {
            let all: Vec<String> = (0..3).map(of).collect();
            all.join(";")
        };
        let peers = list(&|n| format!("{}=127.0.0.1:{}", n + 1, ports[n][0]));
        let registries = list(&|n| format!("127.0.0.1:{}", ports[n][1]));
        let sets = (0..3).map(|n| {
            let [peer, registry, http, broker] = ports[n];
            let mut sets = vec![
                "cluster_id=fail-points".to_owned(),
                format!("node_id={}", n + 1),
                format!("peers={peers}"),
                format!("namesrv_addr={registries}"),
                format!("shards={SHARD}"),
                format!("peer_listen_port={peer}"),
                format!("namesrv_listen_port={registry}"),
                format!("http_listen_port={http}"),
                format!("listen_port={broker}"),
                "vip_enable=false".to_owned(),
                "disk_min_free_bytes=0".to_owned(),
                "disk_space_warning_level_ratio=99".to_owned(),
                "memtable_bytes=1048576".to_owned(),
                "flushDiskType=SYNC_FLUSH".to_owned(),
            ];
            sets.extend(more.iter().map(|s| (*s).to_owned()));
            sets
        });
        Self {
            sets: sets.collect(),
            dir: tempfile::tempdir().expect("tempdir"),
            ports,
            servers: vec![None, None, None],
            ends: [0; 2],
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime"),
        }
    }

    /// Three that run, with the topic.
    fn running(more: &[&str]) -> Self {
        let mut three = Self::new(more);
        three.start_all();
        three.create();
        three
    }

    fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node-{}", node + 1))
    }

    fn sets(&self, node: usize) -> Vec<&str> {
        self.sets[node].iter().map(String::as_str).collect()
    }

    fn broker(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node][3])
    }

    fn http(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node][2])
    }

    fn page(&self, node: usize, path: &str) -> Option<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        ask(self.ports[node][2], &request)
    }

    /// A figure of the shard, as a node sees it.
    fn figure(&self, node: usize, name: &str) -> Option<u64> {
        let page = self.page(node, "/cluster")?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        page["shards"][0][name].as_u64()
    }

    fn ready(&self, node: usize) {
        wait_for("a node to be ready", || self.page(node, "/health/ready"));
    }

    fn begin(&mut self, node: usize) {
        let (data, sets) = (self.data(node), self.sets(node));
        let server = Server::spawn_with(&data, &sets, |command| own(command, &data, None));
        self.servers[node] = Some(server);
    }

    fn start_all(&mut self) {
        (0..3).for_each(|node| self.begin(node));
        (0..3).for_each(|node| self.ready(node));
    }

    fn start(&mut self, node: usize) {
        self.servers[node] = Some(start(&self.data(node), &self.sets(node)));
        self.ready(node);
    }

    fn kill(&mut self, node: usize) {
        self.servers[node] = None;
    }

    fn stop(&mut self, node: usize) {
        let mut server = self.servers[node].take().expect("it runs");
        server.terminate();
        let status = server.ended_within(PATIENCE).expect("it ends");
        assert!(status.success(), "{status}: {}", server.log());
    }

    /// Starts a node that ends at a point while it starts.
    fn ends_at_start(&mut self, node: usize, point: FailPoint) {
        self.kill(node);
        ended(&mut self.armed(node, point), point);
    }

    fn armed(&self, node: usize, point: FailPoint) -> Server {
        armed(&self.data(node), &self.sets(node), point, 1)
    }

    fn create(&mut self) {
        let broker = self.broker(0);
        self.runtime.block_on(async {
            let client = Client::new(Vec::new(), PATIENCE);
            let created = client.create_topic(&broker, "Large", 2, 6).await;
            created.expect("is created");
        });
    }

    /// Sends so many bytes through a node, all of which are acknowledged.
    fn fill(&mut self, node: usize, bytes: usize) {
        let (broker, mut left) = (self.broker(node), bytes / LARGE / 2);
        let goal = self.ends[0] + left as i64;
        let more = || {
            left = left.wrapping_sub(1);
            left != usize::MAX
        };
        self.runtime.block_on(fill(&broker, &mut self.ends, more));
        assert_eq!(self.ends, [goal; 2], "all were acknowledged");
    }

    fn check(&mut self, node: usize) -> [i64; 2] {
        let broker = self.broker(node);
        self.runtime.block_on(check_large(&broker, &mut self.ends))
    }

    fn lead(&self, node: usize) {
        let to = (node + 1).to_string();
        let all = (0..3).map(|n| self.http(n)).collect::<Vec<_>>().join(",");
        wait_for("the transfer of the lead", || {
            let args = ["troupe", "cluster", "transfer", "--http", &all];
            let args = args.into_iter().chain(["--shard", SHARD, "--to", &to]);
            troupemq::cli::run(args);
            (self.figure(node, "leader") == Some(node as u64 + 1)).then_some(())
        });
    }

    /// Everything is in the log of this node, which leads and takes more.
    fn whole(&mut self, node: usize) {
        self.ready(node);
        self.lead(node);
        self.check(node);
        self.fill(node, 4 * LARGE);
        self.check(node);
        self.lead((node + 1) % 3);
    }

    /// What is applied here is what is stored at the leader.
    fn level(&self, node: usize, leader: usize) {
        wait_for("a replica that is level", || {
            let (last, applied) = (self.figure(leader, "last")?, self.figure(node, "applied")?);
            (last == applied).then_some(())
        });
    }

    /// An operator asks node 3, again and again.
    fn asks_until_it_ends(&self, server: &mut Server, body: &str) {
        let length = body.len();
        let request = format!(
            "POST /operate HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-troupe-operator: 0\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        wait_for("its end", || {
            ask(self.ports[2][2], &request);
            server.ended_within(Duration::from_millis(50))
        });
    }
}

/// Tables with these bytes in them, and where.
fn tables_with(data: &Path, bytes: &[u8]) -> Vec<(PathBuf, usize)> {
    let files = std::fs::read_dir(data.join("db")).expect("a directory");
    let paths = files.flatten().map(|f| f.path());
    let tables = paths.filter(|p| p.extension().is_some_and(|e| e == "sst"));
    let at = |path: PathBuf| {
        let content = std::fs::read(&path).expect("a table");
        let at = memchr::memmem::find(&content, bytes)?;
        Some((path, at))
    };
    tables.filter_map(at).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 2;
    std::fs::write(path, bytes).expect("is written");
}

/// A bit flips in the body of a message, which is in a table.
fn rot(data: &Path, (queue, offset): (i32, i64)) {
    let found = tables_with(data, &large(queue, offset)[..64]);
    assert_eq!(found.len(), 1, "{found:?}");
    flip(&found[0].0, found[0].1 + 40);
}

#[test]
fn a_node_of_three_ends_at_its_first_start_and_when_another_is_let_in() {
    let mut three = Three::new(&[]);
    for point in [FailPoint::IdentityWritten, FailPoint::IdentityRenamed] {
        three.ends_at_start(2, point);
    }
    three.start_all();
    three.create();
    three.fill(0, 8 * LARGE);
    for (id, point) in [(4, FailPoint::NodesWritten), (5, FailPoint::NodesRenamed)] {
        let body = format!(r#"{{"op":"node","id":{id},"addr":"127.0.0.1:{id}"}}"#);
        three.kill(2);
        let mut server = three.armed(2, point);
        // It may hear of the one before from the others first.
        three.asks_until_it_ends(&mut server, &body);
        ended(&mut server, point);
        three.start(2);
        // The others were told, or are asked again; the node reads its list either way.
        let known = format!("\"id\":{id}");
        wait_for("the new node to be known", || {
            let page = three.page(2, "/cluster")?;
            let other = three.page(0, "/cluster")?;
            (page.contains(&known) == other.contains(&known)).then_some(())
        });
    }
    three.whole(2);
}

#[test]
fn a_scrub_and_the_repair_of_an_entry_end_anywhere() {
    let mut three = Three::running(&[]);
    three.fill(0, 3 << 20);
    three.stop(2);
    three.start(2);
    three.stop(2);
    rot(&three.data(2), (0, 20));
    for point in [
        FailPoint::Mend,
        FailPoint::MendWritten,
        FailPoint::ScrubWritten,
        FailPoint::ScrubRenamed,
    ] {
        three.kill(2);
        let mut server = three.armed(2, point);
        // It may find what is bad by itself.
        three.asks_until_it_ends(&mut server, r#"{"op":"scrub"}"#);
        ended(&mut server, point);
    }
    three.start(2);
    three.whole(2);
}

#[test]
fn an_overwrite_of_what_was_never_committed_ends_at_its_point() {
    let mut three = Three::running(&[]);
    three.lead(0);
    three.fill(0, 8 * LARGE);
    [1, 2].iter().for_each(|node| three.level(*node, 0));
    let before = three.figure(0, "last").expect("a page");
    // Stopped ones would find it in their sockets later.
    (1..3).for_each(|node| three.kill(node));
    // Nobody acknowledges it.
    let (broker, body) = (three.broker(0), large(0, three.ends[0]));
    let sends = std::thread::spawn(move || {
        run(async {
            let message = Outgoing {
                topic: "Large",
                body: &body,
                properties: &[],
            };
            let client = Client::new(Vec::new(), PATIENCE);
            let sent = client.send(&broker, 0, message).await;
            let acked = sent.is_ok_and(|sent| sent.code == response::SUCCESS);
            assert!(!acked, "by one of three");
        });
    });
    wait_for("an entry that only the leader has", || {
        (three.figure(0, "last")? > before).then_some(())
    });
    three.kill(0);
    sends.join().expect("no panic");
    (1..3).for_each(|node| three.begin(node));
    (1..3).for_each(|node| three.ready(node));
    wait_for("another leader", || {
        let leader = three.figure(1, "leader")?;
        [2, 3].contains(&leader).then_some(())
    });
    three.fill(1, 8 * LARGE);
    three.ends_at_start(0, FailPoint::OverwriteWritten);
    three.start(0);
    three.whole(0);
}

#[test]
fn a_snapshot_is_installed_wholly_or_not_at_all() {
    let mut three = Three::running(&["log_segment_bytes=1048576", "retention_bytes=4194304"]);
    for point in [
        FailPoint::Install,
        FailPoint::InstallWritten,
        FailPoint::InstallMarked,
        FailPoint::InstallDeleted,
    ] {
        three.kill(2);
        let end = three.ends;
        three.fill(0, 2 << 20);
        wait_for("retention", || {
            three.fill(0, 2 << 20);
            let mins = three.check(0);
            (mins > end).then_some(())
        });
        three.ends_at_start(2, point);
        three.start(2);
    }
    three.whole(2);
}

/// A bit flips in what the next start of node 3 replays: behind the state that its last stop has written out.
fn rot_what_is_replayed(three: &mut Three) {
    three.stop(2);
    three.start(2);
    let from = three.ends[0];
    three.fill(0, 4 << 20);
    three.level(2, 0);
    three.kill(2);
    let in_table = |offset: &i64| {
        let body = large(0, *offset);
        !tables_with(&three.data(2), &body[..64]).is_empty()
    };
    let last = (from..three.ends[0]).rev().find(in_table);
    rot(
        &three.data(2),
        (0, last.expect("tables are written under load")),
    );
}

#[test]
fn a_repair_ends_anywhere() {
    let mut three = Three::running(&[]);
    three.fill(0, 2 << 20);
    for point in [FailPoint::RepairDeleted, FailPoint::RepairWritten] {
        rot_what_is_replayed(&mut three);
        three.ends_at_start(2, point);
        three.start(2);
        three.whole(2);
    }
}

#[test]
fn a_damaged_log_is_emptied_wholly_or_not_at_all() {
    let mut three = Three::running(&[]);
    three.fill(0, 2 << 20);
    three.level(2, 0);
    three.stop(2);
    // A start writes what it finds in the log into tables.
    three.start(2);
    three.level(2, 0);
    three.stop(2);
    rot(&three.data(2), (1, three.ends[1] - 1));
    three.ends_at_start(2, FailPoint::RepairEmptied);
    three.start(2);
    three.whole(2);
}

#[test]
fn a_database_is_put_aside_wholly_or_not_at_all() {
    let mut three = Three::running(&[]);
    three.fill(0, 2 << 20);
    three.stop(2);
    let db = three.data(2).join("db");
    let names = std::fs::read_dir(db).expect("a directory").flatten();
    let manifest = names
        .map(|f| f.path())
        .find(|p| p.to_string_lossy().contains("MANIFEST"))
        .expect("a manifest");
    let len = manifest.metadata().expect("its size").len() as usize;
    flip(&manifest, len / 2);
    three.ends_at_start(2, FailPoint::AsideMoved);
    three.ends_at_start(2, FailPoint::AsideDone);
    three.start(2);
    three.whole(2);
}

#[test]
fn a_database_is_condemned_at_any_point() {
    let mut three = Three::running(&[]);
    for point in [FailPoint::CondemnWritten, FailPoint::CondemnSynced] {
        // Rows enough that what a start reads first lies in another block than what it reads last.
        three.fill(0, 8 << 20);
        three.level(2, 0);
        three.stop(2);
        // Their properties name the column family.
        let log = tables_with(&three.data(2), b"log-1");
        let mut found = tables_with(&three.data(2), b"TBW102");
        found.retain(|(path, _)| !log.iter().any(|(log, _)| log == path));
        assert!(!found.is_empty(), "a table of the state");
        found.iter().for_each(|(table, at)| flip(table, *at));
        three.ends_at_start(2, point);
        three.start(2);
        three.whole(2);
    }
}
