//! What other threads send to a gateway thread: answers of cores, new connections, notices to
//! clients. One wake per delivery; the thread takes everything at once.

use super::relay::ClientCall;
use crate::actors::link::{ClientLink, ConnId, Notice};
use crate::actors::sinks::ReplySink;
use crate::gateway::accept::Accepted;
use crate::model::outcome::Completion;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Everything a gateway thread has to look at.
#[derive(Default)]
pub struct Mail {
    pub completions: Vec<Completion>,
    pub accepted: Vec<Accepted>,
    pub notices: Vec<(ConnId, Notice)>,
    pub calls: Vec<ClientCall>,
    /// The gateway stops: answer what can be answered until then, and leave.
    pub stop_by: Option<Instant>,
}

/// The inbox of one gateway thread.
#[derive(Default)]
pub struct Inbox {
    mail: Mutex<Mail>,
    /// Rung when there is something to do.
    pub bell: Notify,
}

impl Inbox {
    /// Adds to the mail and rings.
    pub fn put(&self, add: impl FnOnce(&mut Mail)) {
        add(&mut self.mail.lock());
        self.bell.notify_one();
    }

    /// Takes everything.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail.lock())
    }
}

impl ReplySink for Inbox {
    fn deliver(&self, mut batch: Vec<Completion>) {
        self.put(|mail| {
            if mail.completions.is_empty() {
                mail.completions = batch;
            } else {
                mail.completions.append(&mut batch);
            }
        });
    }
}

/// Bits of a [`ConnId`] below the number of its gateway thread.
const SEQUENCE_BITS: u32 = 48;

/// The id of a connection: the thread that serves it and a number that is never used again.
pub fn conn_id(thread: usize, sequence: u64) -> ConnId {
    ConnId((thread as u64) << SEQUENCE_BITS | sequence)
}

/// Reaches connections from any thread. Made before the gateway, because groups need it first.
#[derive(Default)]
pub struct GatewayLink {
    inboxes: RwLock<Vec<Arc<Inbox>>>,
}

impl GatewayLink {
    /// A link without threads: notices go nowhere until a gateway starts with it.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn set(&self, inboxes: Vec<Arc<Inbox>>) {
        *self.inboxes.write() = inboxes;
    }

    pub(super) fn inbox(&self, conn: ConnId) -> Option<Arc<Inbox>> {
        let thread = usize::try_from(conn.0 >> SEQUENCE_BITS).ok()?;
        self.inboxes.read().get(thread).cloned()
    }
}

impl ClientLink for GatewayLink {
    fn notify(&self, conn: ConnId, notice: &Notice) {
        if let Some(inbox) = self.inbox(conn) {
            inbox.put(|mail| mail.notices.push((conn, notice.clone())));
        }
    }
}
