//! Reads every queue from its first to its last offset.

use super::check::{Queue, Stored};
use super::history::{id_of, Place, TOPICS};
use super::load::places_of;
use std::future::Future;
use std::time::{Duration, Instant};
use troupemq::client::{Client, ClientError};

/// Tries again for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads all queues; `addrs` gives the replicas to ask for a place, one after the other until one
/// answers. Also tells what the others said.
pub async fn read_all(
    addrs: impl Fn(Place) -> Vec<String>,
) -> Result<(Stored, Option<String>), String> {
    let client = Client::new(Vec::new(), Duration::from_secs(5));
    let mut stored = Stored::new();
    let mut silent = None;
    for topic in 0..TOPICS.len() as u8 {
        for place in places_of(topic) {
            let mut said = None;
            for addr in addrs(place) {
                match read(&client, &addr, place).await {
                    Ok(queue) => {
                        stored.insert(place, queue);
                        break;
                    }
                    Err(why) => said = Some(format!("reading {place:?} at {addr}: {why}")),
                }
            }
            if !stored.contains_key(&place) {
                return Err(said.unwrap_or_else(|| "no replica to read from".into()));
            }
            silent = silent.or(said);
        }
    }
    Ok((stored, silent))
}

async fn read(client: &Client, addr: &str, place: Place) -> Result<Queue, String> {
    let topic = TOPICS[usize::from(place.topic)];
    let id = i32::from(place.queue);
    let min = retry(PATIENCE, || client.min_offset(addr, topic, id)).await?;
    let max = retry(PATIENCE, || client.max_offset(addr, topic, id)).await?;
    let mut queue = Queue {
        min,
        max,
        messages: Vec::new(),
    };
    let mut next = min;
    while next < max {
        let at = (topic, id, next);
        let pull = || client.pull(addr, "checker", at, "*", Duration::ZERO);
        let pulled = retry(PATIENCE, pull).await?;
        for message in &pulled.messages {
            queue
                .messages
                .push((message.queue_offset, id_of(&message.body)));
        }
        if pulled.next <= next {
            // The checker says what is missing.
            break;
        }
        next = pulled.next;
    }
    // What came later is not of interest.
    queue.messages.retain(|(offset, _)| *offset < max);
    Ok(queue)
}

/// Tries until it succeeds or the time is up.
pub async fn retry<T, F>(within: Duration, work: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let until = Instant::now() + within;
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > until => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
