//! Clients that outlive nodes.
//!
//! Who consumes is known by heartbeats, which come every 30 s, and a node that was restarted has
//! heard none. When each node of a shard is restarted within that time, nobody has. So nodes tell
//! one that comes back which clients they know, and it believes them for [`KEPT`], or until the
//! client is heard itself. A node that begins to lead takes such clients for members whose
//! connection was lost (decision 16).

use super::super::accept::Service;
use super::super::clients;
use super::super::ctx::Ctx;
use super::super::serve;
use super::super::worker::Worker;
use super::beat::decode;
use super::tunnel::Tunnel;
use super::wire::{Said, Talk};
use super::Forward;
use crate::wire::remoting::body::Heartbeat;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client sends a heartbeat every 30 s.
const KEPT: Duration = Duration::from_secs(40);
/// Most clients that are believed.
const MOST: usize = 20_000;
/// Longest heartbeat that is told.
const LONGEST: usize = 64 * 1024;

/// What a node was told of clients that it has not heard itself.
#[derive(Default)]
pub struct KnownClients {
    by_id: BTreeMap<String, Known>,
    /// The term in which they were taken for members last.
    led: u64,
}

struct Known {
    peer: SocketAddr,
    beat: Bytes,
    until: Instant,
}

impl KnownClients {
    fn add(&mut self, id: String, known: Known, now: Instant) -> bool {
        self.by_id.retain(|_, k| k.until > now);
        let later = |old: &Known| old.until < known.until;
        if self.by_id.len() >= MOST || !self.by_id.get(&id).is_none_or(later) {
            return false;
        }
        self.by_id.insert(id, known);
        true
    }

    /// The client was heard itself, or left.
    pub fn remove(&mut self, client_id: &str) {
        self.by_id.remove(client_id);
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Known> {
        self.by_id.values().filter(move |k| k.until > now)
    }
}

/// The link to a node came up: it is told which clients this thread knows; `all`: and which ones
/// the node does.
pub fn tell(worker: &Worker, forward: &Forward, node: u64, all: bool) {
    let Some(epoch) = forward.epoch(node) else {
        return;
    };
    let say = |conn: u64, peer, left: Duration, beat: Bytes| {
        let left_ms = left.as_millis() as u32;
        let said = Said::Known {
            peer,
            left_ms,
            beat,
        };
        beat_fits(&said) && forward.send(node, epoch, conn, said)
    };
    for conn in worker.connections() {
        if conn.is_tunnel() || conn.service != Service::Broker {
            continue;
        }
        let beat = conn.outward.borrow().beat.frame();
        if let Some(beat) = beat {
            say(conn.id.0, conn.peer, KEPT, beat);
        }
    }
    if all {
        let now = Instant::now();
        for known in forward.known.lock().fresh(now) {
            say(0, known.peer, known.until - now, known.beat.clone());
        }
    }
}

fn beat_fits(said: &Said) -> bool {
    matches!(said, Said::Known { beat, .. } if beat.len() <= LONGEST)
}

/// Another node knows a client.
pub fn told(worker: &Rc<Worker>, forward: &Arc<Forward>, talk: Talk) {
    let Said::Known {
        peer,
        left_ms,
        beat,
    } = talk.said
    else {
        return;
    };
    let Some(id) = consumer(&beat) else { return };
    let now = Instant::now();
    let left = Duration::from_millis(left_ms.into()).min(KEPT);
    let until = now + left;
    let known = Known {
        peer,
        beat: beat.clone(),
        until,
    };
    let news = forward.known.lock().add(id, known, now);
    if news && forward.serving() {
        take(worker, forward, peer, beat);
    }
}

/// The id in a heartbeat that speaks of consumers.
fn consumer(beat: &Bytes) -> Option<String> {
    let beat = Heartbeat::parse(&decode(beat)?.body).ok()?;
    (!beat.consumer_data_set.is_empty()).then_some(beat.client_id)
}

/// This node begins to lead: the first thread that knows takes them all.
pub fn lead(worker: &Rc<Worker>, forward: &Arc<Forward>, term: u64) {
    let mut known = forward.known.lock();
    if std::mem::replace(&mut known.led, term) == term {
        return;
    }
    let all = known.fresh(Instant::now());
    let all: Vec<_> = all.map(|k| (k.peer, k.beat.clone())).collect();
    drop(known);
    for (peer, beat) in all {
        take(worker, forward, peer, beat);
    }
}

/// Makes the client a member by a connection that is lost at once.
fn take(worker: &Rc<Worker>, forward: &Arc<Forward>, peer: SocketAddr, beat: Bytes) {
    let Some(broker) = worker.shared.broker.clone() else {
        return;
    };
    let Some(command) = decode(&beat) else { return };
    // No node has the number 0: what is said to it goes nowhere.
    let nowhere = Tunnel::new(forward.clone(), 0, 0, 0);
    let conn = worker.open_tunnel(peer, peer, nowhere);
    tokio::task::spawn_local(async move {
        let ctx = Ctx { conn: conn.clone() };
        // When it is refused now the client's own heartbeat will tell it.
        let _ = clients::heartbeat(&ctx, &broker, &command).await;
        ctx.shared().heard.notify_waiters();
        conn.lose();
        serve::leave(&conn);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_believed_for_a_while_and_until_they_are_heard() {
        let now = Instant::now();
        let known = |ms: u64| Known {
            peer: "127.0.0.1:1".parse().unwrap(),
            beat: Bytes::from_static(b"beat"),
            until: now + Duration::from_millis(ms),
        };
        let mut all = KnownClients::default();
        assert!(all.add("a".into(), known(100), now));
        assert!(!all.add("a".into(), known(50), now), "it is known longer");
        assert!(all.add("b".into(), known(300), now));
        assert_eq!(all.fresh(now).count(), 2);
        let later = now + Duration::from_millis(200);
        assert_eq!(all.fresh(later).count(), 1);
        all.remove("b");
        assert_eq!(all.fresh(now).count(), 1);
        all.add("c".into(), known(300), later);
        assert_eq!(all.by_id.len(), 1, "the old ones are forgotten");
        for n in 0..2 * MOST {
            all.add(n.to_string(), known(300), now);
        }
        assert_eq!(all.by_id.len(), MOST);
    }
}
