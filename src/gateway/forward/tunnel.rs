//! The half that leads: connections whose bytes come and go by a peer link.

use super::super::connection::Conn;
use super::super::serve;
use super::super::worker::Worker;
use super::outward;
use super::wire::{Said, Talk};
use super::Forward;
use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the other end says to a connection's task.
pub enum Inbound {
    Frame(Bytes),
    Beat(Bytes),
}

/// The far end of a connection.
pub struct Tunnel {
    pub forward: Arc<Forward>,
    pub node: u64,
    pub epoch: u64,
    /// The connection's number over there.
    pub conn: u64,
    /// Requests answered, and those not begun, since the last message.
    pub done: RefCell<Vec<i32>>,
    pub refused: RefCell<Vec<i32>>,
}

impl Tunnel {
    /// What node `node` calls `conn`, by the link numbered `epoch`.
    pub fn new(forward: Arc<Forward>, node: u64, epoch: u64, conn: u64) -> Self {
        Self {
            forward,
            node,
            epoch,
            conn,
            done: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Sends answers; `false` when the link does not take them.
    pub fn send(&self, frames: Bytes) -> bool {
        let (done, refused) = (self.done.take(), self.refused.take());
        if done.is_empty() && refused.is_empty() && frames.is_empty() {
            return true;
        }
        let said = Said::Answer {
            done,
            refused,
            frames,
        };
        self.forward.send(self.node, self.epoch, self.conn, said)
    }

    /// Says that a request may have been done, or not.
    pub fn unsure(&self, opaque: i32) {
        let said = Said::Unsure(vec![opaque]);
        self.forward.send(self.node, self.epoch, self.conn, said);
    }

    /// Says that the connection is forgotten here.
    pub fn close(&self) {
        self.forward
            .send(self.node, self.epoch, self.conn, Said::Closed);
    }
}

struct Open {
    epoch: u64,
    conn: Rc<Conn>,
    to: mpsc::UnboundedSender<Inbound>,
}

/// Tunnelled connections of one thread, by node and number over there.
#[derive(Default)]
pub struct Tunnels {
    open: RefCell<FxHashMap<(u64, u64), Open>>,
}

/// The node that holds a client's socket says something.
pub fn said(worker: &Rc<Worker>, from: u64, talk: Talk) {
    let key = (from, talk.conn);
    let known = worker
        .tunnels
        .open
        .borrow()
        .get(&key)
        .map(|o| (o.epoch, o.to.clone()));
    match (talk.said, known) {
        (Said::Open { peer, local }, _) => {
            drop_one(worker, key);
            let Some(forward) = worker.shared.forward.clone() else {
                return;
            };
            forward.metrics.tunnelled.inc();
            let tunnel = Tunnel::new(forward, from, talk.epoch, talk.conn);
            let conn = worker.open_tunnel(peer, local, tunnel);
            let (to, inbound) = mpsc::unbounded_channel();
            tokio::task::spawn_local(serve_tunnel(conn.clone(), inbound));
            let epoch = talk.epoch;
            let open = Open { epoch, conn, to };
            worker.tunnels.open.borrow_mut().insert(key, open);
        }
        (Said::Frame(bytes), Some((epoch, to))) if epoch == talk.epoch => {
            // Bounded by what a client may have unanswered.
            let _ = to.send(Inbound::Frame(bytes));
        }
        (Said::Beat(bytes), Some((epoch, to))) if epoch == talk.epoch => {
            let _ = to.send(Inbound::Beat(bytes));
        }
        (Said::Close, Some((epoch, _))) if epoch == talk.epoch => drop_one(worker, key),
        // Of a link or connection that is no more.
        _ => {}
    }
}

fn drop_one(worker: &Worker, key: (u64, u64)) {
    let open = worker.tunnels.open.borrow_mut().remove(&key);
    if let Some(open) = open {
        open.conn.close("peer");
    }
}

/// Nothing more comes by this link: its connections are closed, though their clients may be there.
pub fn link_lost(worker: &Worker, node: u64) {
    let of_node: Vec<(u64, u64)> = worker
        .tunnels
        .open
        .borrow()
        .keys()
        .filter(|(at, _)| *at == node)
        .copied()
        .collect();
    for key in of_node {
        if let Some(open) = worker.tunnels.open.borrow().get(&key) {
            open.conn.lose();
        }
        drop_one(worker, key);
    }
}

/// Serves a tunnelled connection until it closes, then cleans up after it.
pub async fn serve_tunnel(conn: Rc<Conn>, mut inbound: mpsc::UnboundedReceiver<Inbound>) {
    let mut buf = BytesMut::new();
    while !conn.is_closed() {
        outward::drain(&conn).await;
        if !buf.is_empty() && conn.may_read() {
            let before = buf.len();
            if !serve::handle_frames(&conn, &mut buf).await {
                break;
            }
            if buf.len() != before {
                continue;
            }
        }
        tokio::select! {
            () = conn.kicked() => {}
            next = inbound.recv(), if conn.may_read() => match next {
                Some(Inbound::Frame(bytes)) => buf.extend_from_slice(&bytes),
                Some(Inbound::Beat(bytes)) => {
                    outward::remember(&conn, bytes);
                    outward::became_leader(&conn);
                }
                None => break,
            }
        }
    }
    serve::leave(&conn);
}
