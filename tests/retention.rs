//! Retention by size: whole files go, consumers below the minimum are sent to it, what is above
//! stays right, also after a restart.

mod common;

use common::{run, wait_for, Server, PATIENCE};
use std::path::Path;
use std::time::{Duration, Instant};
use troupemq::client::{Client, Connection};
use troupemq::wire::message::record;
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::Val;

const TOPIC: &str = "events";
const QUEUES: i32 = 2;
const BODY: usize = 16 << 10;
/// Messages a queue; together far more than is kept.
const MESSAGES: i64 = 768;
const SEGMENT: u64 = 1 << 20;
const KEPT: u64 = 4 << 20;
const SETS: [&str; 3] = [
    "log_segment_bytes=1048576",
    "memtable_bytes=1048576",
    "retention_bytes=4194304",
];

/// Sorted files of the data directory, by name with their sizes.
fn files(data: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            // A file may go while we look.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                dirs.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "sst") {
                found.push((entry.path().display().to_string(), meta.len()));
            }
        }
    }
    found
}

fn body(queue: i32, offset: i64) -> Vec<u8> {
    let mut body = format!("{queue}:{offset}:").into_bytes();
    body.resize(BODY, b'a' + (offset % 26) as u8);
    body
}

async fn fill(broker: &str) {
    let connection = Connection::connect(broker, PATIENCE)
        .await
        .expect("connects");
    for offset in (0..MESSAGES).step_by(32) {
        let mut answers = Vec::new();
        for at in offset..offset + 32 {
            for queue in 0..QUEUES {
                let ext = [
                    ("a", Val::Str("p")),
                    ("b", Val::Str(TOPIC)),
                    ("c", Val::Str("TBW102")),
                    ("d", Val::Int(4)),
                    ("e", queue.into()),
                    ("f", Val::Int(0)),
                    ("g", Val::Int(0)),
                    ("h", Val::Int(0)),
                    ("i", Val::Str("")),
                    ("j", Val::Int(0)),
                ];
                let sent = connection.begin(request::SEND_MESSAGE_V2, &ext, &body(queue, at));
                answers.push((at, sent.expect("is sent")));
            }
        }
        for (at, answer) in answers {
            let answer = answer.answer(PATIENCE).await.expect("an answer");
            assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
            assert_eq!(answer.req_i64("queueOffset").expect("an offset"), at);
        }
    }
}

/// Code and `nextBeginOffset` of one pull, and the offsets it brought, with their bodies checked.
async fn pull(connection: &Connection, queue: i32, offset: i64) -> (i32, i64, Vec<i64>) {
    let ext = [
        ("consumerGroup", Val::Str("readers")),
        ("topic", Val::Str(TOPIC)),
        ("queueId", queue.into()),
        ("queueOffset", offset.into()),
        ("maxMsgNums", Val::Int(32)),
        ("sysFlag", Val::Int(1 << 2)),
        ("commitOffset", Val::Int(0)),
        ("suspendTimeoutMillis", Val::Int(0)),
        ("subscription", Val::Str("*")),
        ("subVersion", Val::Int(0)),
        ("expressionType", Val::Str("TAG")),
    ];
    let answer = connection
        .request(request::PULL_MESSAGE, &ext, &[], PATIENCE)
        .await
        .expect("an answer");
    let next = answer.req_i64("nextBeginOffset").expect("where to go on");
    let offsets = match answer.code {
        response::SUCCESS => record::records(&answer.body)
            .map(|r| {
                let r = r.expect("a record");
                assert_eq!(r.body(), body(queue, r.queue_offset()));
                r.queue_offset()
            })
            .collect(),
        _ => Vec::new(),
    };
    (answer.code, next, offsets)
}

/// Minimum of each queue. Below: code 21 to the minimum; from there on everything, in order.
async fn check(server: &Server) -> Vec<i64> {
    let client = Client::new(vec![server.registry.clone()], PATIENCE);
    let connection = Connection::connect(&server.broker, PATIENCE)
        .await
        .expect("connects");
    let mut mins = Vec::new();
    for queue in 0..QUEUES {
        // Retention may go on meanwhile: ask until the minimum stood still around the checks.
        let until = Instant::now() + PATIENCE;
        let min = loop {
            assert!(Instant::now() < until, "the minimum does not come to rest");
            let min = client
                .min_offset(&server.broker, TOPIC, queue)
                .await
                .expect("min");
            let below = [
                pull(&connection, queue, 0).await,
                pull(&connection, queue, min - 1).await,
            ];
            let mut all = Vec::new();
            let mut at = min;
            let mut moved = false;
            while at < MESSAGES && !moved {
                let (code, next, offsets) = pull(&connection, queue, at).await;
                moved = code != response::SUCCESS;
                all.extend(offsets);
                assert!(moved || next > at, "pulls go on");
                at = next;
            }
            if client
                .min_offset(&server.broker, TOPIC, queue)
                .await
                .expect("min")
                != min
            {
                continue;
            }
            for (code, next, _) in below {
                assert_eq!(
                    (code, next),
                    (response::PULL_OFFSET_MOVED, min),
                    "below the minimum"
                );
            }
            let wanted: Vec<i64> = (min..MESSAGES).collect();
            assert_eq!(all, wanted, "everything above the minimum");
            break min;
        };
        assert_eq!(
            client
                .max_offset(&server.broker, TOPIC, queue)
                .await
                .expect("max"),
            MESSAGES
        );
        mins.push(min);
    }
    mins
}

#[test]
fn the_oldest_files_go_and_the_rest_stays() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let server = Server::start(&data, &SETS);
    let client = Client::new(vec![server.registry.clone()], PATIENCE);
    run(async {
        let created = client
            .create_topic(&server.broker, TOPIC, QUEUES as u32, 6)
            .await;
        created.expect("is created");
    });
    drop(client);
    run(fill(&server.broker));
    // The server looks every ten seconds; nothing says how often it must look until it is done.
    let written = MESSAGES as u64 * QUEUES as u64 * BODY as u64;
    let bytes = wait_for("the files to go", || {
        std::thread::sleep(Duration::from_millis(20));
        let bytes: u64 = files(&data).iter().map(|(_, size)| size).sum();
        let trimmed = run(async {
            let client = Client::new(Vec::new(), PATIENCE);
            client
                .min_offset(&server.broker, TOPIC, 0)
                .await
                .expect("min")
                > 0
        });
        // Kept: the limit, the open segment, a file that holds both sides of the border, and a
        // little for everything else.
        (trimmed && bytes <= KEPT + 6 * SEGMENT).then_some(bytes)
    });
    assert!(bytes < written / 2, "{bytes} bytes are left of {written}");
    // Three memtables at most are not in files yet: the rest was in files that are gone.
    let unwritten = 3 * SEGMENT;
    assert!(
        bytes + unwritten < written,
        "{bytes} bytes are left of {written}"
    );

    let mins = run(check(&server));
    for min in &mins {
        assert!(*min > 0 && *min < MESSAGES, "{mins:?}");
        let kept = (MESSAGES - min) as u64 * QUEUES as u64 * BODY as u64;
        assert!(
            kept >= KEPT - 2 * SEGMENT,
            "no more than needed goes: {kept} bytes are kept"
        );
    }

    // Once more after a crash, and after that an orderly stop.
    let mut server = server;
    server.kill();
    let mut server = Server::start(&data, &SETS);
    let again = run(check(&server));
    assert!(
        again.iter().zip(&mins).all(|(now, before)| now >= before),
        "{mins:?} to {again:?}"
    );
    server.terminate();
    let status = server.ended_within(PATIENCE).expect("ends");
    assert_eq!(status.code(), Some(0));
    let server = Server::start(&data, &SETS);
    let last = run(check(&server));
    assert!(
        last.iter().zip(&again).all(|(now, before)| now >= before),
        "{again:?} to {last:?}"
    );
}
