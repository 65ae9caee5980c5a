//! Producers: single messages, batches, messages ordered by key, delayed messages.

use super::super::history::{body, Id, Place, DELAYED, QUEUES, TOPICS};
use super::super::nodes::SHARDS;
use super::super::rng::{mix, Rng};
use super::route::Routes;
use super::{outgoing, Shared};
use bytes::BytesMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use troupemq::client::{Client, ClientError};
use troupemq::wire::message::batch::{put_entry, BatchEntry};
use troupemq::wire::message::properties::{self, names};
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::Val;

/// Attempts of one send, as Java clients make by default: one and two retries.
const ATTEMPTS: usize = 3;
/// Messages of a batch.
const BATCH: u32 = 8;
/// Keys of an ordered producer.
const KEYS: usize = 8;
/// An ordered message is tried for so long, on its own queue.
const ORDERED_FOR: Duration = Duration::from_secs(20);

/// What a producer sends, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Single { pause: Duration },
    Batch { pause: Duration },
    Ordered { pause: Duration },
    Delayed { pause: Duration },
}

/// The producers that make `rate` messages a second together.
pub fn kinds(rate: u32) -> Vec<Kind> {
    let pause = |share: f64| Duration::from_secs_f64(1.0 / (f64::from(rate.max(10)) * share));
    vec![
        Kind::Single { pause: pause(0.15) },
        Kind::Single { pause: pause(0.15) },
        Kind::Single { pause: pause(0.15) },
        Kind::Ordered { pause: pause(0.12) },
        Kind::Ordered { pause: pause(0.12) },
        Kind::Batch {
            pause: pause(0.28 / f64::from(BATCH)),
        },
        Kind::Delayed { pause: pause(0.03) },
    ]
}

/// Sends once; the queue and the offset of the first message.
pub async fn send(
    client: &Client,
    addr: &str,
    place: Place,
    ids: &[Id],
    delay_level: Option<usize>,
) -> Result<(u8, i64), ClientError> {
    let key = |id: &Id| format!("{:08X}{:08X}{:016X}", id.0, id.1, mix(u64::from(id.0)));
    if let [id] = ids {
        let (text, key) = (body(*id), key(id));
        let level = (delay_level.unwrap_or(0) + 1).to_string();
        let all = [
            (names::UNIQ_KEY, key.as_str()),
            (names::WAIT, "true"),
            (names::DELAY, level.as_str()),
        ];
        let of = if delay_level.is_some() { 3 } else { 2 };
        let queue = place.queue.into();
        let sent = client
            .send(addr, queue, outgoing(place, &text, &all[..of]))
            .await?;
        if sent.code != response::SUCCESS {
            return Err(ClientError::Refused {
                addr: addr.to_owned(),
                request: request::SEND_MESSAGE_V2,
                code: sent.code,
                remark: String::new(),
            });
        }
        return Ok((sent.queue_id as u8, sent.queue_offset));
    }
    let strange = |what: String| ClientError::Strange {
        addr: addr.to_owned(),
        request: request::SEND_BATCH_MESSAGE,
        what,
    };
    let mut batch = BytesMut::new();
    for id in ids {
        let key = key(id);
        let text = properties::encode([(names::UNIQ_KEY, key.as_str()), (names::WAIT, "true")]);
        let entry = BatchEntry {
            flag: 0,
            body: &body(*id),
            properties: &text,
        };
        put_entry(&mut batch, &entry).map_err(|e| strange(e.to_string()))?;
    }
    let ext = [
        ("a", Val::Str("cluster-tests")),
        ("b", Val::Str(TOPICS[usize::from(place.topic)])),
        ("c", Val::Str("TBW102")),
        ("d", Val::Int(4)),
        ("e", Val::Int(place.queue.into())),
        ("f", Val::Int(0)),
        ("g", Val::Int(0)),
        ("h", Val::Int(0)),
        ("i", Val::Str("WAIT\u{1}true\u{2}")),
        ("j", Val::Int(0)),
        ("k", Val::Bool(false)),
        ("m", Val::Bool(true)),
    ];
    let answer = client
        .call(addr, request::SEND_BATCH_MESSAGE, &ext, &batch)
        .await?;
    let number = |key| answer.req_i64(key).map_err(|e| strange(e.to_string()));
    Ok((number("queueId")? as u8, number("queueOffset")?))
}

/// Runs one producer until sending ends.
pub async fn produce(n: u32, kind: Kind, routes: Rc<Routes>, shared: Arc<Shared>, mut rng: Rng) {
    let (count, pause) = match kind {
        Kind::Batch { pause } => (BATCH, pause),
        Kind::Single { pause } | Kind::Ordered { pause } | Kind::Delayed { pause } => (1, pause),
    };
    routes.known().await;
    let mut number = 0;
    let mut shard = n as usize;
    let mut next = tokio::time::Instant::now();
    while !shared.sending_ends() {
        shared.held().await;
        let ids: Vec<Id> = (0..count).map(|i| (n, number + i)).collect();
        number += count;
        let place = Place {
            topic: rng.below(DELAYED.into()) as u8,
            shard: 0,
            queue: rng.below(usize::from(QUEUES)) as u8,
        };
        match kind {
            Kind::Ordered { .. } => {
                let key = mix(rng.below(KEYS) as u64 + 1_000 * u64::from(n));
                let place = Place {
                    topic: (key % u64::from(DELAYED)) as u8,
                    shard: ((key >> 8) % SHARDS.len() as u64) as u8,
                    queue: ((key >> 16) % u64::from(QUEUES)) as u8,
                };
                in_order(&shared, &routes, place, &ids).await;
            }
            Kind::Delayed { .. } => {
                let place = Place {
                    topic: DELAYED,
                    ..place
                };
                let level = Some(rng.below(2));
                anywhere(&shared, &routes, &mut shard, place, &ids, level).await;
            }
            _ => anywhere(&shared, &routes, &mut shard, place, &ids, None).await,
        }
        // Lost time is not made up for: a burst after a fault would be another fault.
        next = (next + pause).max(tokio::time::Instant::now());
        tokio::time::sleep_until(next).await;
    }
}

/// To each shard in turn; a failed attempt goes to the next shard, as in RocketMQ's clients.
async fn anywhere(
    shared: &Shared,
    routes: &Routes,
    shard: &mut usize,
    place: Place,
    ids: &[Id],
    delay_level: Option<usize>,
) {
    let mut why = Vec::new();
    for _ in 0..ATTEMPTS {
        *shard = (*shard + 1) % SHARDS.len();
        let place = Place {
            shard: *shard as u8,
            ..place
        };
        let Some(addr) = routes.master(*shard) else {
            why.push(format!("{} has no address", SHARDS[*shard]));
            routes.hurry();
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let client = &routes.client;
        match shared.attempt(client, &addr, place, ids, delay_level).await {
            Ok(_) => break,
            Err(error) => {
                why.push(error);
                routes.hurry();
            }
        }
    }
    shared.history().retried += why.len() as u64;
    if why.len() == ATTEMPTS {
        shared.failed(why.join("; "));
    }
}

/// To its own queue only, until it is acknowledged.
async fn in_order(shared: &Shared, routes: &Routes, place: Place, ids: &[Id]) {
    let until = Instant::now() + ORDERED_FOR;
    let mut last = String::new();
    while Instant::now() < until {
        if let Some(addr) = routes.master(place.shard.into()) {
            let client = &routes.client;
            match shared.attempt(client, &addr, place, ids, None).await {
                Ok(_) => return,
                Err(error) => last = error,
            }
        }
        if shared.sending_ends() {
            return;
        }
        shared.history().retried += 1;
        routes.hurry();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shared.failed(format!("ordered, for {ORDERED_FOR:?}: {last}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_make_the_rate() {
        let of = |kind: &Kind| match kind {
            Kind::Batch { pause } => f64::from(BATCH) / pause.as_secs_f64(),
            Kind::Single { pause } | Kind::Ordered { pause } | Kind::Delayed { pause } => {
                1.0 / pause.as_secs_f64()
            }
        };
        let sum: f64 = kinds(1_000).iter().map(of).sum();
        assert!((sum - 1_000.0).abs() < 1.0, "{sum}");
    }
}
