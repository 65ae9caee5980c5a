//! Sends: codes 10, 310 and 320, and what a consumer sends back.

pub mod back;
mod burst;
mod check;
mod failed;
mod message;
mod props;
pub mod reply_message;

pub use burst::Burst;
pub use check::NO_TRANSACTIONS;
pub use message::send;
pub use props::BrokerProps;

use super::reply::Reply;
use super::ticket::Ticket;
use super::worker::Worker;
use crate::model::outcome::{Late, Outcome, Refusal};
use crate::model::Position;
use crate::telemetry::TopicMetrics;
use crate::wire::message::ids::write_offset_msg_id;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::{encode_send_response, SendReply};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A text that is kept where it is when it is as short as message ids are.
pub struct ShortText(SmallVec<[u8; 40]>);

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        Self(SmallVec::from_slice(text.as_bytes()))
    }
}

impl ShortText {
    /// The text.
    pub fn as_str(&self) -> &str {
        // Made from a str and never changed.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A send that was handed to a core.
pub struct SendWaiting {
    pub ticket: Ticket,
    /// Messages of the request.
    pub count: u32,
    /// Queue named in the answer.
    pub queue: u32,
    /// Bytes taken from the permits.
    pub permit: u64,
    pub body_bytes: u64,
    pub uniq_key: Option<ShortText>,
    pub store_host: SocketAddr,
    pub topic: Arc<TopicMetrics>,
}

/// The core answered a send.
pub fn complete(worker: &Rc<Worker>, waiting: Box<SendWaiting>, outcome: Outcome) {
    let metrics = &worker.shared.metrics;
    worker.shared.permits.give(waiting.permit);
    let took = worker
        .mail_at
        .get()
        .saturating_duration_since(waiting.ticket.started());
    metrics.send_latency.observe(took);
    let (code, offset, position) = match outcome {
        Outcome::Appended {
            base_offset,
            position,
            ..
        } => (rc::SUCCESS, base_offset, position),
        Outcome::Scheduled { position } => (rc::SUCCESS, 0, position),
        Outcome::Late {
            why,
            base_offset,
            position,
        } => (late(why), base_offset, position),
        Outcome::Refused(refusal) => {
            worker.shared.rates.put_failed();
            return waiting.ticket.answer(refused(refusal));
        }
        other => {
            tracing::error!(?other, "a core answered a send with something else");
            return waiting
                .ticket
                .answer(Reply::err(rc::SYSTEM_ERROR, "internal error"));
        }
    };
    worker
        .shared
        .rates
        .put(waiting.count.into(), waiting.body_bytes);
    waiting.topic.messages_in.inc_by(waiting.count.into());
    waiting.topic.bytes_in.inc_by(waiting.body_bytes);
    let (queue, count, store_host) = (waiting.queue, waiting.count, waiting.store_host);
    let SendWaiting {
        ticket, uniq_key, ..
    } = *waiting;
    if ticket.is_oneway() {
        return ticket.answer(Reply::ok());
    }
    let msg_id = message_ids(store_host, position, count);
    let reply = SendReply {
        msg_id: &msg_id,
        queue_id: queue as i32,
        queue_offset: offset as i64,
        transaction_id: uniq_key.as_ref().map(ShortText::as_str),
        recall_handle: None,
        region: props::REGION,
        trace_on: props::TRACE_ON,
    };
    ticket.answer_with(code, |out, opaque| {
        out.append(|buf| encode_send_response(buf, code, opaque, None, &reply));
    });
}

/// The code by which clients know a message that is stored, but not as safely as asked for
/// (`SendStatus` of the Java client).
fn late(why: Late) -> i32 {
    match why {
        Late::Flush => rc::FLUSH_DISK_TIMEOUT,
        Late::NoReplica => rc::SLAVE_NOT_AVAILABLE,
        Late::Replica => rc::FLUSH_SLAVE_TIMEOUT,
    }
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Invalid(why) => Reply::err(rc::MESSAGE_ILLEGAL, why),
        other => other.into(),
    }
}

/// The offset message ids of `count` records from `position` on, joined by commas.
fn message_ids(store_host: SocketAddr, position: Position, count: u32) -> String {
    let mut out = String::with_capacity(33 * count.max(1) as usize);
    for i in 0..count.max(1) {
        if i > 0 {
            out.push(',');
        }
        let at = Position {
            ordinal: position.ordinal.saturating_add(i),
            ..position
        };
        write_offset_msg_id(&mut out, store_host, at.to_physical());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_batch_follow_each_other() {
        let host: SocketAddr = "127.0.0.1:10911".parse().unwrap();
        let position = Position {
            index: 1,
            ordinal: 0,
        };
        assert_eq!(
            message_ids(host, position, 2),
            "7F00000100002A9F0000000000100000,7F00000100002A9F0000000000100001"
        );
        assert_eq!(message_ids(host, position, 1).len(), 32);
    }
}
