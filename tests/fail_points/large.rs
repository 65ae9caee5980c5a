//! Two queues of large messages, whose bodies follow from their places.

use super::common::PATIENCE;
use troupemq::client::{Client, Outgoing};
use troupemq::wire::remoting::code::response;

/// Bytes of the bodies of messages that are sent until a log is trimmed.
pub const LARGE: usize = 16 << 10;

pub fn large(queue: i32, offset: i64) -> Vec<u8> {
    let mut body = format!("{queue}:{offset}:").into_bytes();
    body.resize(LARGE, b'a' + (offset % 26) as u8);
    body
}

/// Sends until the connection ends; the next offset of each queue that may have been given.
pub async fn fill(broker: &str, ends: &mut [i64; 2], mut more: impl FnMut() -> bool) {
    let client = Client::new(Vec::new(), PATIENCE);
    while more() {
        for queue in 0..2 {
            let end = &mut ends[queue as usize];
            let body = large(queue, *end);
            let message = Outgoing {
                topic: "Large",
                body: &body,
                properties: &[],
            };
            match client.send(broker, queue, message).await {
                Ok(sent) => {
                    assert_eq!((sent.code, sent.queue_offset), (response::SUCCESS, *end));
                    *end += 1;
                }
                Err(_) => return,
            }
        }
    }
}

/// All acked ones from the minimum on are there; what was not acked may be.
pub async fn check_large(broker: &str, ends: &mut [i64; 2]) -> [i64; 2] {
    let client = Client::new(Vec::new(), PATIENCE);
    let mut mins = [0; 2];
    for queue in 0..2 {
        let end = &mut ends[queue as usize];
        let min = client.min_offset(broker, "Large", queue).await;
        let max = client.max_offset(broker, "Large", queue).await;
        let (min, max) = (min.expect("min"), max.expect("max"));
        assert!(max == *end || max == *end + 1, "{max}: {end} were acked");
        let mut at = min;
        while at < max {
            let place = ("Large", queue, at);
            let pulled = client
                .pull(broker, "readers", place, "*", std::time::Duration::ZERO)
                .await
                .expect("a pull is answered");
            for message in pulled.messages {
                assert_eq!(message.queue_offset, at, "offsets are contiguous");
                assert_eq!(&message.body[..], large(queue, at));
                at += 1;
            }
            if pulled.next != at {
                // It may be trimmed meanwhile.
                let min = client.min_offset(broker, "Large", queue).await;
                assert_eq!(pulled.next, min.expect("min"), "nothing is skipped");
                at = pulled.next;
            }
        }
        (*end, mins[queue as usize]) = (max, min);
    }
    mins
}
