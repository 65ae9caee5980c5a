//! What other threads send to a gateway thread: answers of cores, new connections, notices to
//! clients. One wake per delivery; the thread takes everything at once.

use super::forward::Event;
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
    /// Groups whose held pulls have to be looked at again.
    pub recheck: Vec<String>,
    pub calls: Vec<ClientCall>,
    /// What other nodes say to this shard's gateway, and what becomes of the links to them.
    pub forwarding: Vec<Event>,
    /// Another leader, or a way to it.
    pub lead_changed: bool,
    /// Time to look at requests that wait for a leader.
    pub sweep: bool,
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

/// The gateway thread in a connection's id.
pub fn thread_of(conn: u64) -> usize {
    usize::try_from(conn >> SEQUENCE_BITS).unwrap_or(usize::MAX)
}

/// Reaches connections from any thread. Made before the gateway, because groups need it first.
#[derive(Default)]
pub struct GatewayLink {
    /// Number of the first thread, and the threads' inboxes.
    inboxes: RwLock<(usize, Vec<Arc<Inbox>>)>,
}

impl GatewayLink {
    /// A link without threads: notices go nowhere until a gateway starts with it.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn set(&self, thread_base: usize, inboxes: Vec<Arc<Inbox>>) {
        *self.inboxes.write() = (thread_base, inboxes);
    }

    pub(super) fn inbox(&self, conn: ConnId) -> Option<Arc<Inbox>> {
        let inboxes = self.inboxes.read();
        let thread = thread_of(conn.0).checked_sub(inboxes.0)?;
        inboxes.1.get(thread).cloned()
    }
}

impl ClientLink for GatewayLink {
    fn notify(&self, conn: ConnId, notice: &Notice) {
        if let Some(inbox) = self.inbox(conn) {
            inbox.put(|mail| mail.notices.push((conn, notice.clone())));
        }
    }

    fn recheck_pulls(&self, group: &str) {
        for inbox in &self.inboxes.read().1 {
            inbox.put(|mail| {
                if !mail.recheck.iter().any(|g| g == group) {
                    mail.recheck.push(group.to_owned());
                }
            });
        }
    }
}
