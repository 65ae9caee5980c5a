//! Producers that hear nothing send the very same message again, to any node: it is stored once for each
//! time it was sent at most, and none of the answers is another message's.

use crate::clients::Waiting;
use crate::seen::Seen;
use crate::sim::Sim;
use crate::view::make_record;
use troupemq::actors::queue::core::QueueInput;
use troupemq::model::append::{AppendBatch, AppendRequest, RecordMeta};

impl Sim {
    /// Nobody knows what became of this request.
    pub(crate) fn note_again(&mut self, waiting: &Waiting) {
        let may = self.plan.extra.again && !self.is_calm();
        let sent = matches!(waiting, Waiting::Send { bodies, .. } if !bodies.is_empty());
        if may && sent && self.extra.rng.chance(2, 3) {
            self.clients.again.push(waiting.clone());
        }
    }

    /// Sends such a request to the node here; `false` when there is none.
    pub(crate) fn send_again(&mut self) -> bool {
        let Some(Waiting::Send {
            uids,
            key,
            producer,
            policy,
            bodies,
        }) = self.clients.again.pop()
        else {
            return false;
        };
        if !self.view.topic_names.contains_key(&key.topic.0) {
            return false;
        }
        self.counters.sent_again += 1;
        let here = self.here();
        let mut batch = AppendBatch::default();
        for (uid, (tag, padding)) in uids.iter().zip(&bodies) {
            self.see(Seen::SentAgain { uid: *uid });
            let record = make_record(*uid, *padding);
            let size = record.len() as u32;
            batch.metas.push(RecordMeta { size, tag: *tag });
            batch.records.extend_from_slice(&record);
        }
        let count = uids.len() as u32;
        let waiting = Waiting::Send {
            uids,
            key,
            producer,
            policy,
            bodies,
        };
        let token = self.clients.slot(here, waiting);
        self.timeout(token);
        batch.requests.push(AppendRequest {
            token,
            count,
            policy,
        });
        let fired = Vec::new();
        self.post_queue(key, QueueInput::Append { batch, fired });
        true
    }
}
