//! What a connection's answers and requests wait for.
//!
//! Each wait has an event that ends it; none is left to a clock. What ends a wait of the reader
//! calls [`Conn::made_room`], which rings the connection's task if that has stopped reading.
//!
//! | what waits | while | until |
//! |---|---|---|
//! | reading requests | many bytes of answers wait ([`PAUSE_AT`]) | the socket or the peer link took them: [`Conn::flush`] |
//! | reading requests | `max_pending_requests` are unanswered | one is answered or goes to another node: [`Conn::end_request`] |
//! | reading requests | many bytes of requests are with the leader (`Book::has_room`) | it answers or refuses some, or is lost: `forward::outward` |
//! | answers for a client | its socket is full | the socket says that it is writable |
//! | answers for another node's client | the link's queue is full | the link says that there is room, or breaks: `Event::Room`, `Event::Lost` |
//! | what a node owes another (`Forward::tell`) | the link's queue is full | the same |
//! | requests at a node that does not lead | nobody leads, or no link is up | `lead_changed` |
//! | … | the leader refused them because it does not serve yet, or not surely | it says that it does: `forward::tunnel::serves` |
//! | … | requests before them are with another node or with this node's cores | those are answered or refused, or a second has passed |
//! | requests at a leader that may have been stopped | nobody confirmed that it still leads | a majority does: `ShardStatus::set_lease` |
//! | pulls of a group that a new leader does not know yet | it hears no heartbeat of the group | `Shared::heard`, or a second has passed |
//! | notices for a client | its heartbeat is under way | the heartbeat is answered |
//! | held pulls | nothing came | the queue's core: a message, the end of the hold, or the end of its lead |
//! | accepting connections | no descriptor is free | a connection closes, or a second has passed |
//! | an HTTP connection | all places are taken | the quietest one is closed for it: `http_places` |
//! | dialling another node again | it could not be reached | it reaches this node, or a second has passed: `peer::dial` |
//!
//! The client (`crate::client`) never stops reading; what it has to write waits for its socket.
//! Everything else that is full refuses instead of waiting: bytes in flight, the read pool, places
//! for connections, calls to a client.

use super::connection::{Conn, Way};
use super::outbuf::{OutBuf, MAX_SLICES};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// No more is read while so many bytes of answers wait, or half of `write_buffer_limit_bytes`.
const PAUSE_AT: usize = 1024 * 1024;
/// Beyond `write_buffer_limit_bytes` a client is closed that takes no byte for so long …
const TAKES_NOTHING: Duration = Duration::from_secs(5);
/// … and one that takes some, at so many times the limit: requests read at once may have large
/// answers.
const AT_MOST: usize = 8;
/// Answers for another node's client leave in pieces of whole frames, each so long before the last
/// frame.
const PIECE: usize = 1024 * 1024;

/// See the module text.
#[derive(Default)]
pub struct Flow {
    out: RefCell<OutBuf>,
    /// Bytes wait and the connection is in the worker's list already.
    listed: Cell<bool>,
    /// Requests not answered yet.
    pending: Cell<u32>,
    /// The connection's task has stopped reading.
    paused: Cell<bool>,
    /// Since when no byte was taken, once more than the limit waits.
    stuck_since: Cell<Option<Instant>>,
}

impl Flow {
    /// Drops what waits to be written.
    pub fn clear(&self) {
        self.out.borrow_mut().clear();
    }
}

impl Conn {
    /// Whether the next requests are read. When not, the task is rung once they may be.
    pub fn reads(&self) -> bool {
        let may_read = self.may_read();
        self.flow.paused.set(!may_read);
        may_read
    }

    /// The next request may be read.
    pub fn may_read(&self) -> bool {
        let pause_at = PAUSE_AT.min(self.write_limit() / 2);
        self.has_room() && self.unsent() < pause_at
    }

    fn has_room(&self) -> bool {
        self.open_requests() < self.shared().config.max_pending_requests
            && self.outward.borrow().has_room()
    }

    /// Something that reading waits for has become less.
    pub fn made_room(&self) {
        if self.flow.paused.get() && self.may_read() {
            self.flow.paused.set(false);
            self.kick();
        }
    }

    /// A request was read, and is not answered before [`Conn::end_request`].
    pub fn begin_request(&self) {
        self.flow.pending.set(self.open_requests() + 1);
    }

    /// A request begun by [`Conn::begin_request`] was answered.
    pub fn end_request(&self) {
        self.flow
            .pending
            .set(self.open_requests().saturating_sub(1));
        self.made_room();
    }

    /// Requests that are not answered.
    pub fn open_requests(&self) -> u32 {
        self.flow.pending.get()
    }

    /// Bytes that wait for the socket or the link.
    pub fn unsent(&self) -> usize {
        let queued = match &self.way {
            Way::Socket(_) => 0,
            Way::Tunnel(tunnel) => tunnel.queued(),
        };
        self.flow.out.borrow().len() + queued
    }

    /// Bytes wait for the socket, and nobody else will write them.
    pub fn wants_write(&self) -> bool {
        !self.flow.out.borrow().is_empty() && !self.flow.listed.get()
    }

    /// Gives back room that written bytes took.
    pub fn shrink(&self) {
        self.flow.out.borrow_mut().shrink();
    }

    fn write_limit(&self) -> usize {
        self.shared().config.write_buffer_limit_bytes as usize
    }

    /// Too much waits for a client that does not take it.
    fn is_stuck(&self) -> bool {
        let (unsent, limit) = (self.unsent(), self.write_limit());
        if unsent <= limit {
            return false;
        }
        let now = Instant::now();
        let since = self.flow.stuck_since.get().unwrap_or(now);
        self.flow.stuck_since.set(Some(since));
        unsent > limit.saturating_mul(AT_MOST) || now.duration_since(since) >= TAKES_NOTHING
    }

    /// Appends whole frames to what is waiting to be written.
    pub fn write(&self, append: impl FnOnce(&mut OutBuf)) {
        if self.is_closed() {
            return;
        }
        if self.is_stuck() {
            return self.close("write_buffer");
        }
        let mut out = self.flow.out.borrow_mut();
        append(&mut out);
        if let (Way::Tunnel(tunnel), true) = (&self.way, out.len() >= PIECE) {
            tunnel.queue(out.take());
        }
    }

    /// [`Conn::write`], and the bytes go out at the end of this wake.
    pub fn write_soon(self: &Rc<Self>, append: impl FnOnce(&mut OutBuf)) {
        self.write(append);
        if !self.flow.listed.replace(true) {
            self.worker.mark_dirty(self.clone());
        }
    }

    /// Writes what waits, as much as the socket or the link takes.
    pub fn flush(&self) {
        self.flow.listed.set(false);
        if self.is_closed() {
            return;
        }
        let taken = match &self.way {
            Way::Socket(stream) => {
                let Ok(taken) = self.write_to(stream) else {
                    return self.close("peer");
                };
                // The task waits until the socket takes the rest.
                if !self.flow.out.borrow().is_empty() {
                    self.kick();
                }
                taken
            }
            Way::Tunnel(tunnel) => {
                tunnel.queue(self.flow.out.borrow_mut().take());
                tunnel.send()
            }
        };
        if taken {
            self.flow.stuck_since.set(None);
            self.made_room();
        }
    }

    /// Whether the socket took something; an error ends the connection.
    fn write_to(&self, stream: &tokio::net::TcpStream) -> std::io::Result<bool> {
        let mut out = self.flow.out.borrow_mut();
        let mut taken = false;
        while !out.is_empty() {
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(4);
            out.slices(&mut slices);
            let full = slices.len() == MAX_SLICES;
            let asked: usize = slices.iter().map(|s| s.len()).sum();
            match stream.try_write_vectored(&slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    out.written(n);
                    self.used();
                    taken = true;
                    if n < asked || !full {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
        }
        Ok(taken)
    }
}
