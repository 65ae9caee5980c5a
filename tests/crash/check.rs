//! What must hold after a restart.

use super::load::{id_of, Id, Ledger, GROUP, LATER, QUEUES, TOPIC};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use troupemq::client::Client;
use troupemq::wire::message::record;
use troupemq::wire::remoting::code::request;
use troupemq::wire::remoting::Val;

use super::common::PATIENCE;

/// One pull of up to 1024 messages.
async fn pull(
    client: &Client,
    broker: &str,
    topic: &str,
    queue: i32,
    offset: i64,
) -> (Vec<(Id, i64, i64)>, i64) {
    let ext = [
        ("consumerGroup", Val::Str("checkers")),
        ("topic", Val::Str(topic)),
        ("queueId", queue.into()),
        ("queueOffset", offset.into()),
        ("maxMsgNums", Val::Int(1024)),
        ("sysFlag", Val::Int(1 << 2)),
        ("commitOffset", Val::Int(0)),
        ("suspendTimeoutMillis", Val::Int(0)),
        ("subscription", Val::Str("*")),
        ("subVersion", Val::Int(0)),
        ("expressionType", Val::Str("TAG")),
    ];
    let answer = client
        .call(broker, request::PULL_MESSAGE, &ext, &[])
        .await
        .expect("pulls");
    let found = record::records(&answer.body)
        .map(|r| {
            let r = r.expect("a record");
            assert_eq!((r.topic(), r.queue_id()), (topic, queue));
            (id_of(r.body()), r.queue_offset(), r.store_ts())
        })
        .collect();
    (found, answer.req_i64("nextBeginOffset").expect("goes on"))
}

/// Everything of a queue, with contiguous offsets from 0.
async fn whole(client: &Client, broker: &str, topic: &str, queue: i32) -> Vec<(Id, i64)> {
    let min = client.min_offset(broker, topic, queue).await.expect("min");
    let max = client.max_offset(broker, topic, queue).await.expect("max");
    assert_eq!(min, 0, "nothing was deleted");
    let mut all = Vec::new();
    let mut at = min;
    while at < max {
        let (found, next) = pull(client, broker, topic, queue, at).await;
        for (id, offset, stored) in found {
            assert_eq!(
                offset,
                all.len() as i64,
                "offsets of {topic} {queue} are contiguous"
            );
            all.push((id, stored));
        }
        assert!(next > at, "pulls go on: {next} after {at}");
        assert_eq!(next, all.len() as i64, "no message is skipped");
        at = next;
    }
    assert!(at >= max, "delayed messages may come meanwhile");
    all
}

/// Acked messages are where they were said to be, once; the others at most once; each
/// producer's messages are in order in each queue.
pub async fn check_queues(client: &Client, broker: &str, ledger: &Ledger) {
    for topic in &ledger.topics {
        let route = client.route(topic).await;
        assert!(route.is_ok(), "topic {topic} was created: {route:?}");
    }
    if ledger.sent.is_empty() {
        return;
    }
    let mut found: BTreeMap<Id, (i32, i64)> = BTreeMap::new();
    for queue in 0..QUEUES {
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for (offset, (id, _)) in (0..).zip(whole(client, broker, TOPIC, queue).await) {
            assert_eq!(
                ledger.sent.get(&id),
                Some(&queue),
                "{id:?} was sent to its queue"
            );
            let before = found.insert(id, (queue, offset));
            assert_eq!(
                before, None,
                "{id:?} is there twice, again at {queue} {offset}"
            );
            let before = last.insert(id.0, id.1);
            assert!(
                before.is_none_or(|b| b < id.1),
                "{id:?} is behind {before:?} in {queue}"
            );
        }
    }
    for (id, place) in &ledger.acked {
        assert_eq!(
            found.get(id),
            Some(place),
            "{id:?} was acknowledged at {place:?}"
        );
    }
}

/// Committed offsets did not go back, and are none that nobody committed.
pub async fn check_offsets(client: &Client, broker: &str, ledger: &Ledger) {
    for (queue, offset) in &ledger.committed {
        let ext = [
            ("consumerGroup", Val::Str(GROUP)),
            ("topic", Val::Str(TOPIC)),
            ("queueId", (*queue).into()),
        ];
        let answer = client
            .call(broker, request::QUERY_CONSUMER_OFFSET, &ext, &[])
            .await;
        let now = answer
            .expect("is known")
            .req_i64("offset")
            .expect("an offset");
        assert!(
            now >= *offset,
            "queue {queue}: {offset} was committed, now it is {now}"
        );
        let sent = ledger.commit_sent.get(queue).copied().unwrap_or(0);
        assert!(
            now <= sent,
            "queue {queue}: at most {sent} was ever sent, now it is {now}"
        );
    }
}

/// Every acknowledged delayed message arrives, once, never early.
pub async fn check_delayed(client: &Client, broker: &str, ledger: &Ledger) {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut found: BTreeMap<Id, i64> = BTreeMap::new();
        for (id, stored) in whole(client, broker, LATER, 0).await {
            let due = *ledger
                .delayed
                .get(&id)
                .unwrap_or_else(|| panic!("{id:?} was not delayed"));
            assert!(stored >= due, "{id:?} is {} ms early", due - stored);
            assert_eq!(found.insert(id, stored), None, "{id:?} came twice");
        }
        let missing = ledger
            .delayed_acked
            .iter()
            .filter(|id| !found.contains_key(id))
            .count();
        if missing == 0 {
            return;
        }
        assert!(
            Instant::now() < until,
            "{missing} delayed messages did not come"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
