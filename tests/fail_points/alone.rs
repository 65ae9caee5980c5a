//! A single node that ends at each point.

use super::check::{check_delayed, check_offsets, check_queues};
use super::common::{run, Server, PATIENCE};
use super::large::{check_large, fill};
use super::load::{body, Ledger, Load, QUEUES, TOPIC};
use super::{armed, ended, points, start, FailPoint, Way};
use std::path::PathBuf;
use std::time::Instant;
use troupemq::client::{Client, Connection, Outgoing};
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::Val;

/// Passing at which a node under load ends: topics were created before.
const NTH: u64 = 40;

/// One data directory through many ends.
struct Node {
    _dir: tempfile::TempDir,
    data: PathBuf,
    sets: Vec<&'static str>,
    ledger: Ledger,
    round: u32,
}

fn client(server: &Server) -> Client {
    Client::new(vec![server.registry.clone()], PATIENCE)
}

async fn verify(server: &Server, ledger: &Ledger) {
    let client = client(server);
    check_queues(&client, &server.broker, ledger).await;
    check_offsets(&client, &server.broker, ledger).await;
}

impl Node {
    fn new(sets: &[&'static str]) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut all = vec![
            "max_transfer_count=1024",
            "disk_min_free_bytes=0",
            "disk_space_warning_level_ratio=99",
        ];
        all.extend(sets);
        Self {
            data: dir.path().join("data"),
            _dir: dir,
            sets: all,
            ledger: Ledger::default(),
            round: 0,
        }
    }

    fn armed(&self, point: FailPoint, nth: u64) -> Server {
        armed(&self.data, &self.sets, point, nth)
    }

    /// The same, with clients.
    fn ready(&self, point: FailPoint, nth: u64) -> Server {
        let server = self.armed(point, nth).ready(&self.sets);
        server.unwrap_or_else(|status| {
            panic!("at {} before it was ready: {status}", point.name());
        })
    }

    async fn load(&mut self, server: &Server) -> Load {
        self.round += 1;
        let ledger = std::mem::take(&mut self.ledger);
        Load::start(&server.broker, self.round, ledger).await
    }

    /// Starts without a fail point, checks everything, takes some load and is killed.
    async fn serves(&mut self) {
        let mut server = start(&self.data, &self.sets);
        verify(&server, &self.ledger).await;
        let load = self.load(&server).await;
        load.wait_for_acks(60).await;
        server.kill();
        self.ledger = load.end().await;
    }

    /// Everything that was ever acknowledged is there.
    async fn whole(&mut self) {
        self.serves().await;
        let server = start(&self.data, &self.sets);
        verify(&server, &self.ledger).await;
        check_delayed(&client(&server), &server.broker, &self.ledger).await;
        assert!(!self.ledger.acked.is_empty());
    }
}

/// [`ended`], while the load goes on.
async fn ends(mut server: Server, point: FailPoint) {
    let waits = tokio::task::spawn_blocking(move || ended(&mut server, point));
    waits.await.expect("it ends");
}

#[test]
fn what_was_acked_survives_each_point_under_load() {
    run(async {
        let mut node = Node::new(&["flushDiskType=SYNC_FLUSH", "memtable_bytes=1048576"]);
        node.serves().await;
        for point in points(Way::Load) {
            let server = node.ready(point, NTH);
            let load = node.load(&server).await;
            ends(server, point).await;
            node.ledger = load.end().await;
            let server = start(&node.data, &node.sets);
            verify(&server, &node.ledger).await;
        }
        node.whole().await;
    });
}

#[test]
fn what_was_acked_survives_each_point_of_a_stop() {
    run(async {
        let mut node = Node::new(&[]);
        node.serves().await;
        for point in points(Way::Stop) {
            // The marks are synced at a start, too.
            let nth = if point == FailPoint::MarksSynced {
                2
            } else {
                1
            };
            let server = node.ready(point, nth);
            let load = node.load(&server).await;
            load.wait_for_acks(60).await;
            server.terminate();
            ends(server, point).await;
            node.ledger = load.end().await;
            let server = start(&node.data, &node.sets);
            verify(&server, &node.ledger).await;
        }
        node.whole().await;
    });
}

#[test]
fn what_was_acked_survives_each_point_of_a_start() {
    run(async {
        let mut node = Node::new(&[]);
        node.serves().await;
        for point in points(Way::Start) {
            ended(&mut node.armed(point, 1), point);
            node.serves().await;
        }
        for point in points(Way::Again) {
            ended(&mut node.armed(FailPoint::Opened, 1), FailPoint::Opened);
            ended(&mut node.armed(point, 1), point);
            node.serves().await;
        }
        node.whole().await;
    });
}

#[test]
fn a_first_start_may_end_anywhere() {
    run(async {
        for point in points(Way::First) {
            let mut node = Node::new(&[]);
            ended(&mut node.armed(point, 1), point);
            node.whole().await;
        }
    });
}

/// One message after the other until the connection ends.
async fn one_by_one(server: &Server, producer: u32, ledger: &mut Ledger) {
    let client = Client::new(Vec::new(), PATIENCE);
    for seq in 1.. {
        let (id, queue) = ((producer, seq), seq as i32 % QUEUES);
        let text = body(id);
        let message = Outgoing {
            topic: TOPIC,
            body: text.as_bytes(),
            properties: &[],
        };
        ledger.sent.insert(id, queue);
        match client.send(&server.broker, queue, message).await {
            Ok(sent) => {
                assert_eq!((sent.code, sent.queue_id), (response::SUCCESS, queue));
                ledger.acked.insert(id, (queue, sent.queue_offset));
            }
            Err(_) => return,
        }
    }
}

/// Ends while one message after the other is sent, at each of these points.
async fn one_client(way: Way, flush: &'static str, nth: u64) {
    let mut node = Node::new(&[flush]);
    node.serves().await;
    for (n, point) in points(way).enumerate() {
        let mut server = node.ready(point, nth);
        one_by_one(&server, 2_000_000 + n as u32, &mut node.ledger).await;
        ended(&mut server, point);
        let server = start(&node.data, &node.sets);
        verify(&server, &node.ledger).await;
    }
    node.whole().await;
}

#[test]
fn what_was_acked_survives_the_points_of_space_ahead_of_the_log() {
    run(one_client(Way::Gentle, "flushDiskType=SYNC_FLUSH", 1));
}

#[test]
fn what_was_acked_survives_each_point_of_the_sync_beside_the_appends() {
    run(one_client(Way::Async, "flushDiskType=ASYNC_FLUSH", 2));
}

const KV: &str = "FAIL_POINTS";

async fn put(connection: &Connection, value: &str) -> Option<i32> {
    let ext = [
        ("namespace", Val::Str(KV)),
        ("key", Val::Str("k")),
        ("value", Val::Str(value)),
    ];
    let code = request::PUT_KV_CONFIG;
    let answer = connection.request(code, &ext, &[], PATIENCE).await;
    answer.ok().map(|a| a.code)
}

async fn get(connection: &Connection) -> Option<String> {
    let ext = [("namespace", Val::Str(KV)), ("key", Val::Str("k"))];
    let code = request::GET_KV_CONFIG;
    let answer = connection.request(code, &ext, &[], PATIENCE).await;
    let answer = answer.expect("an answer");
    (answer.code == response::SUCCESS).then(|| answer.req_str("value").expect("a value").to_owned())
}

#[test]
fn keys_of_the_name_server_are_the_old_or_the_new_ones() {
    run(async {
        let node = Node::new(&[]);
        let connect = |server: &Server| {
            let registry = server.registry.clone();
            async move {
                Connection::connect(&registry, PATIENCE)
                    .await
                    .expect("connects")
            }
        };
        let server = start(&node.data, &node.sets);
        let first = connect(&server).await;
        assert_eq!(put(&first, "0").await, Some(response::SUCCESS));
        drop(server);
        let mut acked = "0".to_owned();
        for (n, point) in (1..).zip(points(Way::Kv)) {
            let mut server = node.ready(point, 1);
            let new = n.to_string();
            assert_eq!(put(&connect(&server).await, &new).await, None, "it ends");
            ended(&mut server, point);
            let server = start(&node.data, &node.sets);
            let connection = connect(&server).await;
            let found = get(&connection).await.expect("there is one");
            assert!(
                [&acked, &new].contains(&&found),
                "{}: {found}",
                point.name()
            );
            assert_eq!(put(&connection, &new).await, Some(response::SUCCESS));
            acked = new;
        }
    });
}

#[test]
fn what_was_acked_and_is_kept_survives_each_point_of_a_trim() {
    run(async {
        let node = Node::new(&[
            "log_segment_bytes=1048576",
            "memtable_bytes=1048576",
            "retention_bytes=4194304",
        ]);
        let server = start(&node.data, &node.sets);
        let client = client(&server);
        let created = client.create_topic(&server.broker, "Large", 2, 6).await;
        created.expect("is created");
        drop(server);
        let (mut ends, mut before) = ([0; 2], [0; 2]);
        for point in points(Way::Trim) {
            let mut server = node.ready(point, 1);
            fill(&server.broker, &mut ends, || true).await;
            ended(&mut server, point);
            let server = start(&node.data, &node.sets);
            let mins = check_large(&server.broker, &mut ends).await;
            assert!(
                mins >= before,
                "{}: {mins:?} after {before:?}",
                point.name()
            );
            before = mins;
        }
        // It goes on trimming.
        let server = start(&node.data, &node.sets);
        let until = Instant::now() + PATIENCE;
        while check_large(&server.broker, &mut ends).await <= before {
            assert!(Instant::now() < until, "nothing is trimmed any more");
            let mut left = 32;
            fill(&server.broker, &mut ends, || {
                left -= 1;
                left >= 0
            })
            .await;
        }
    });
}
