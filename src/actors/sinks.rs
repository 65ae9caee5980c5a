//! Where answers go: receivers registered under a number, and the outbox that collects the
//! answers of one wake so that each receiver gets one delivery.

use crate::model::outcome::{Completion, Outcome, Token};
use parking_lot::RwLock;
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
