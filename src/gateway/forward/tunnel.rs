//! The half that leads: connections whose bytes come and go by a peer link.

use super::super::connection::Conn;
use super::super::send::Burst;
use super::super::serve;
use super::super::shared::now_ms;
use super::super::worker::Worker;
use super::beat::split;
use super::book::Judge;
use super::outward;
use super::wire::{Said, Talk};
use super::Forward;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the other end says to a connection's task.
pub enum Inbound {
    Frame(u64, Bytes),
    Beat(Bytes),
    GoOn,
}

/// Most bytes that wait for a connection's task. The other end sends no more than a quarter of it
/// before it hears that requests are done.
const MAX_QUEUED: usize = 64 * 1024 * 1024;

/// The far end of a connection.
pub struct Tunnel {
    pub forward: Arc<Forward>,
    pub node: u64,
    /// The number of this opening.
    pub epoch: u64,
    /// The connection's number over there.
    pub conn: u64,
    /// Requests answered, and those not begun, since the last message.
    pub done: RefCell<Vec<u64>>,
    pub refused: RefCell<Vec<u64>>,
    /// Pieces of answers that wait for the link, and their bytes.
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    /// The link took no more; it will say when it does.
    blocked: Cell<bool>,
    /// The other end keeps requests that were refused here.
    refuses: Cell<bool>,
    /// It is to be told that they may come again.
    serves: Cell<bool>,
    judge: RefCell<Judge>,
}

impl Tunnel {
    /// What node `node` calls `conn`, opened by it under the number `epoch`.
    pub fn new(forward: Arc<Forward>, node: u64, epoch: u64, conn: u64) -> Self {
        Self {
            forward,
            node,
            epoch,
            conn,
            done: RefCell::default(),
            refused: RefCell::default(),
            queue: RefCell::default(),
            queued: Cell::new(0),
            blocked: Cell::new(false),
            refuses: Cell::new(false),
            serves: Cell::new(false),
            judge: RefCell::default(),
        }
    }

    /// Whether a request may begin; `able`: this node can do it now.
    pub fn admits(&self, code: i32, able: bool) -> bool {
        self.judge.borrow_mut().admits(code, able)
    }

    /// This request was not begun.
    pub fn refuse(&self, code: i32, number: u64) {
        self.judge.borrow_mut().refused(code);
        self.refused.borrow_mut().push(number);
        self.refuses.set(true);
    }

    /// See [`Said::GoOn`].
    pub fn go_on(&self) {
        self.judge.borrow_mut().go_on();
    }

    /// Bytes of answers that wait for the link.
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// Whole frames that go to the client behind those that wait.
    pub fn queue(&self, frames: Bytes) {
        if !frames.is_empty() {
            self.queued.set(self.queued.get() + frames.len());
            self.queue.borrow_mut().push_back(frames);
        }
    }

    /// Sends what waits, as far as the link takes it; whether it took something. The rest goes when
    /// the link has room: see [`Tunnel::unblock`]. What is done is said with the last frames, so
    /// that no request counts as answered whose answer may be lost with the link.
    pub fn send(&self) -> bool {
        let mut taken = false;
        while !self.blocked.get() {
            let (frames, last) = {
                let mut queue = self.queue.borrow_mut();
                (queue.pop_front().unwrap_or_default(), queue.is_empty())
            };
            let (done, refused) = match last {
                true => (self.done.take(), self.refused.take()),
                false => Default::default(),
            };
            // An answer to nothing says that this node serves; each version understands it.
            let serves = last && self.serves.get();
            if done.is_empty() && refused.is_empty() && frames.is_empty() && !serves {
                break;
            }
            if serves && refused.is_empty() {
                self.serves.set(false);
            }
            let len = frames.len();
            let said = Said::Answer {
                done,
                refused,
                frames,
            };
            if let Err(kept) = self
                .forward
                .try_send(self.node, self.epoch, self.conn, said)
            {
                self.blocked.set(true);
                if let Said::Answer {
                    done,
                    refused,
                    frames,
                } = kept
                {
                    if !frames.is_empty() {
                        self.queue.borrow_mut().push_front(frames);
                    }
                    if last {
                        self.done.replace(done);
                        self.refused.replace(refused);
                        self.serves.set(serves);
                    }
                }
                break;
            }
            self.queued.set(self.queued.get() - len);
            taken = true;
        }
        taken
    }

    /// The link may take more than it did.
    pub fn unblock(&self) {
        self.blocked.set(false);
    }

    /// Requests that this node refused may be begun here now: the other end, which keeps them, is
    /// told behind what waits. True when there are such.
    pub fn serves(&self) -> bool {
        let refused = self.refuses.replace(false);
        self.serves.set(self.serves.get() || refused);
        refused
    }

    /// Says that a request may have been done, or not.
    pub fn unsure(&self, number: u64) {
        let said = Said::Unsure(vec![number]);
        self.forward.tell(self.node, self.epoch, self.conn, said);
    }

    /// Says that the connection is forgotten here.
    pub fn close(&self) {
        self.queue.take();
        self.queued.set(0);
        self.forward
            .tell(self.node, self.epoch, self.conn, Said::Closed);
    }
}

struct Open {
    epoch: u64,
    conn: Rc<Conn>,
    to: mpsc::UnboundedSender<Inbound>,
    /// Bytes that wait for the task.
    queued: Rc<Cell<usize>>,
}

impl Open {
    /// Hands something to the connection's task; false when there is none any more.
    fn put(&self, inbound: Inbound) -> bool {
        if let Inbound::Frame(_, bytes) = &inbound {
            let queued = self.queued.get() + bytes.len();
            self.queued.set(queued);
            if queued > MAX_QUEUED {
                tracing::error!(node = ?self.conn.peer, "a node forwards more than it may");
                return false;
            }
        }
        !self.conn.is_closed() && self.to.send(inbound).is_ok()
    }
}

/// Tunnelled connections of one thread, by node and number over there.
#[derive(Default)]
pub struct Tunnels {
    open: RefCell<FxHashMap<(u64, u64), Open>>,
}

/// The node that holds a client's socket says something.
pub fn said(worker: &Rc<Worker>, from: u64, talk: Talk) {
    let key = (from, talk.conn);
    let (epoch, number) = (talk.epoch, talk.conn);
    let inbound = match talk.said {
        Said::Open { peer, local } => return open(worker, key, epoch, (peer, local)),
        Said::Frame(number, bytes) => Inbound::Frame(number, bytes),
        Said::Beat(bytes) => Inbound::Beat(bytes),
        Said::GoOn => Inbound::GoOn,
        Said::Close => {
            if worker.tunnels.knows(key, epoch) {
                drop_one(worker, key);
            }
            return;
        }
        _ => return,
    };
    if worker.tunnels.knows(key, epoch) {
        let taken = {
            let tunnels = worker.tunnels.open.borrow();
            tunnels.get(&key).is_some_and(|open| open.put(inbound))
        };
        if taken {
            return;
        }
        drop_one(worker, key);
    }
    // Of an opening that is no more: whoever says it would wait for an answer.
    if let Some(forward) = &worker.shared.forward {
        forward.tell(from, epoch, number, Said::Closed);
    }
}

impl Tunnels {
    fn knows(&self, key: (u64, u64), epoch: u64) -> bool {
        let open = self.open.borrow();
        open.get(&key).is_some_and(|o| o.epoch == epoch)
    }
}

fn open(worker: &Rc<Worker>, key: (u64, u64), epoch: u64, at: (SocketAddr, SocketAddr)) {
    drop_one(worker, key);
    let Some(forward) = worker.shared.forward.clone() else {
        return;
    };
    forward.metrics.tunnelled.inc();
    let tunnel = Tunnel::new(forward, key.0, epoch, key.1);
    let conn = worker.open_tunnel(at.0, at.1, tunnel);
    let (to, inbound) = mpsc::unbounded_channel();
    let queued = Rc::<Cell<usize>>::default();
    tokio::task::spawn_local(serve_tunnel(conn.clone(), inbound, queued.clone()));
    let open = Open {
        epoch,
        conn,
        to,
        queued,
    };
    worker.tunnels.open.borrow_mut().insert(key, open);
}

fn drop_one(worker: &Worker, key: (u64, u64)) {
    let open = worker.tunnels.open.borrow_mut().remove(&key);
    if let Some(open) = open {
        open.conn.close("peer");
    }
}

/// The link to a node may take more than it did: what waits for it goes.
pub fn room(worker: &Worker, node: u64) {
    let of_node: Vec<Rc<Conn>> = {
        let open = worker.tunnels.open.borrow();
        let of_node = open.iter().filter(|((at, _), _)| *at == node);
        of_node.map(|(_, open)| open.conn.clone()).collect()
    };
    for conn in of_node {
        conn.unblock_tunnelled();
        conn.flush();
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
async fn serve_tunnel(
    conn: Rc<Conn>,
    mut inbound: mpsc::UnboundedReceiver<Inbound>,
    queued: Rc<Cell<usize>>,
) {
    while !conn.is_closed() {
        outward::drain(&conn).await;
        let first = tokio::select! {
            () = conn.kicked() => continue,
            next = inbound.recv(), if conn.reads() => next,
        };
        let Some(first) = first else { break };
        let mut burst = Burst::new(now_ms(), queued.get());
        let mut next = Some(first);
        // What came together is one burst.
        while let Some(one) = next {
            if let Inbound::Frame(_, bytes) = &one {
                queued.set(queued.get().saturating_sub(bytes.len()));
            }
            handle(&conn, one, &mut burst).await;
            let more = conn.may_read() && !conn.is_closed();
            next = more.then(|| inbound.try_recv().ok()).flatten();
        }
        burst.submit();
    }
    serve::leave(&conn);
}

async fn handle(conn: &Rc<Conn>, inbound: Inbound, burst: &mut Burst) {
    match inbound {
        Inbound::Frame(number, bytes) => {
            let Some(frame) = split(&bytes) else {
                return conn.close("bad_input");
            };
            conn.reads_tunnelled(number);
            let open = serve::handle_frame(conn, frame, false, burst).await;
            conn.reads_tunnelled(0);
            if !open {
                conn.close("bad_input");
            }
        }
        Inbound::Beat(bytes) => {
            outward::remember(conn, bytes);
            outward::became_leader(conn);
        }
        Inbound::GoOn => conn.go_on_tunnelled(),
    }
}
