//! Where answers go: receivers registered under a number, and the outbox that collects the
//! answers of one wake so that each receiver gets one delivery.

use crate::model::outcome::{Completion, Outcome, Token};
use parking_lot::RwLock;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// A receiver of answers: a gateway thread, or an embedder's futures. Must not block.
pub trait ReplySink: Send + Sync {
    /// Takes the answers of one wake, in the order they were given.
    fn deliver(&self, batch: Vec<Completion>);
}

/// The receivers of one node.
#[derive(Clone, Default)]
pub struct Sinks {
    table: Arc<RwLock<Vec<Arc<dyn ReplySink>>>>,
}

impl Sinks {
    /// Registers a receiver; its number goes into [`Token::sink`].
    pub fn register(&self, sink: Arc<dyn ReplySink>) -> u32 {
        let mut table = self.table.write();
        table.push(sink);
        (table.len() - 1) as u32
    }

    /// Delivers one batch to one receiver.
    pub fn deliver(&self, sink: u32, batch: Vec<Completion>) {
        let found = self.table.read().get(sink as usize).cloned();
        if let Some(found) = found {
            found.deliver(batch);
        }
    }
}

/// Answers collected during one wake of an actor.
#[derive(Default)]
pub struct Outbox {
    batches: Vec<(u32, Vec<Completion>)>,
}

impl Outbox {
    /// Adds an answer; [`Token::NONE`] is dropped.
    pub fn push(&mut self, token: Token, outcome: Outcome) {
        if !token.is_some() {
            return;
        }
        let completion = Completion { token, outcome };
        match self
            .batches
            .iter_mut()
            .find(|(sink, _)| *sink == token.sink)
        {
            Some((_, batch)) => batch.push(completion),
            None => self.batches.push((token.sink, vec![completion])),
        }
    }

    /// Hands everything over, one delivery per receiver.
    pub fn flush(&mut self, sinks: &Sinks) {
        for (sink, batch) in self.batches.drain(..) {
            sinks.deliver(sink, batch);
        }
    }
}

/// The outbox of all actors of a shard, which share a thread: what they answer in one go of that
/// thread reaches each receiver as one delivery, and so as one write to each client.
pub struct SharedOutbox {
    answers: RefCell<Outbox>,
    /// A flush stands at the end of the thread's queue of tasks.
    due: Cell<bool>,
    sinks: Sinks,
}

impl SharedOutbox {
    /// An empty outbox of the calling thread.
    pub fn new(sinks: Sinks) -> Rc<Self> {
        Rc::new(Self {
            answers: RefCell::default(),
            due: Cell::new(false),
            sinks,
        })
    }

    /// Adds an answer. It goes out after the actors that are to run now have run. Must be called
    /// on a thread that runs actors.
    pub fn push(self: &Rc<Self>, token: Token, outcome: Outcome) {
        self.answers.borrow_mut().push(token, outcome);
        if !self.due.replace(true) {
            let outbox = self.clone();
            actix::spawn(async move { outbox.flush() });
        }
    }

    fn flush(&self) {
        self.due.set(false);
        self.answers.borrow_mut().flush(&self.sinks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Deliveries(Mutex<Vec<Vec<u64>>>);

    impl ReplySink for Deliveries {
        fn deliver(&self, batch: Vec<Completion>) {
            let slots = batch.iter().map(|c| c.token.slot).collect();
            self.0.lock().push(slots);
        }
    }

    #[test]
    fn answers_of_one_go_are_one_delivery_in_order() {
        let sinks = Sinks::default();
        let got = Arc::new(Deliveries::default());
        let sink = sinks.register(got.clone());
        let wake = || Outcome::Wake { data: true };
        actix::System::new().block_on(async move {
            let outbox = SharedOutbox::new(sinks);
            for round in 0..2 {
                for slot in 0..3 {
                    let token = Token {
                        sink,
                        slot: round * 10 + slot,
                    };
                    outbox.push(token, wake());
                }
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(*got.0.lock(), [[0, 1, 2], [10, 11, 12]]);
    }
}
