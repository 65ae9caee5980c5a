//! Requests that this node's own cores are asked to do, as long as it leads.

use super::super::accept::Service;
use super::super::connection::Conn;
use super::super::namesrv;
use super::super::reply::Again;
use super::beat::whole;
use super::book::{is_pull, Pending};
use super::outward::pump;
use super::Forward;
use crate::wire::remoting::code::request as code;
use crate::wire::remoting::{Language, RawFrame};
use bytes::Bytes;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The frame of a request that this node's own cores are asked to do.
pub struct Kept {
    pub(super) raw: RawFrame,
    pub(super) number: u64,
    pub(super) since: Instant,
}

/// Doing it twice is not doing it once.
pub fn only_once(code: i32) -> bool {
    matches!(
        code,
        code::SEND_MESSAGE
            | code::SEND_MESSAGE_V2
            | code::SEND_BATCH_MESSAGE
            | code::CONSUMER_SEND_MSG_BACK
            | code::SEND_REPLY_MESSAGE
            | code::SEND_REPLY_MESSAGE_V2
            | code::END_TRANSACTION
    )
}

/// It may not be overtaken by what its connection sent later, nor overtake what it sent before:
/// what goes through the log, and what says who a client is.
pub fn in_order(code: i32) -> bool {
    let others = matches!(
        code,
        code::UPDATE_CONSUMER_OFFSET
            | code::HEART_BEAT
            | code::UNREGISTER_CLIENT
            | code::LOCK_BATCH_MQ
            | code::UNLOCK_BATCH_MQ
            | code::CHECK_CLIENT_CONFIG
            | code::VIEW_MESSAGE_BY_ID
    );
    others || only_once(code)
}

/// It asks about the very node that the client is connected to.
pub(super) fn is_own(code: i32) -> bool {
    code == code::GET_BROKER_RUNTIME_INFO
}

/// The answer comes from this node's memory, without the log: it is worth something only from a
/// leader that still leads. Sends, offset commits and locks go through the log, a pull gets only
/// what is committed, heartbeats change nothing that lasts.
fn needs_current(code: i32) -> bool {
    !(in_order(code) || is_own(code) || is_pull(code) || namesrv::handles(code))
}

/// What this node would answer is current; always, where nobody else can lead.
pub fn is_current(conn: &Conn, code: i32) -> bool {
    match &conn.shared().forward {
        Some(forward) if needs_current(code) => forward.current(),
        _ => true,
    }
}

/// Keeps the frame of a request that this node's cores are about to get. `small`: what was read
/// with it is little, so that a copy costs less than to hold on to the read buffer.
pub fn keep(conn: &Conn, code: i32, raw: RawFrame, small: bool) -> Option<Kept> {
    if is_pull(code)
        || conn.service != Service::Broker
        || conn.is_tunnel()
        || namesrv::handles(code)
    {
        return None;
    }
    let raw = match small {
        true => {
            let both = [&raw.header[..], &raw.body[..]].concat();
            let mut header = Bytes::from(both);
            let body = header.split_off(raw.header.len());
            RawFrame {
                header,
                body,
                ..raw
            }
        }
        false => raw,
    };
    Some(Kept {
        raw,
        number: conn.outward.borrow_mut().book.number(),
        since: Instant::now(),
    })
}

/// A request of a client goes to this node's own cores; true when its order means something, and
/// [`ended`] has to follow.
pub fn begins(conn: &Conn, code: i32) -> bool {
    let Some(forward) = &conn.shared().forward else {
        return false;
    };
    if conn.service != Service::Broker || !in_order(code) {
        return false;
    }
    let since = forward.serving_since();
    conn.outward.borrow_mut().book.begins_here(since);
    true
}

/// It was answered or refused.
pub fn ended(conn: &Rc<Conn>) {
    let Some(forward) = &conn.shared().forward else {
        return;
    };
    let since = forward.serving_since();
    let (others, was_last_stale) = conn.outward.borrow_mut().book.ends_here(since);
    if was_last_stale && forward.serving() {
        conn.serves_tunnelled();
    }
    if others {
        pump(conn, forward);
    }
}

/// A request as its ticket knows it.
#[derive(Clone, Copy)]
pub struct Refused {
    pub code: i32,
    pub opaque: i32,
    pub oneway: bool,
    /// Its number at the node with the client's socket, when that is another.
    pub tunnelled: u64,
}

/// A core refused a request because this node does not lead, or leads no longer: it goes to
/// whoever does. `false` when it must be answered.
pub fn again(conn: &Rc<Conn>, why: Again, what: Refused, kept: Option<Kept>) -> bool {
    let Some(forward) = conn.shared().forward.clone() else {
        return false;
    };
    let Refused { code, oneway, .. } = what;
    if why == Again::Unsure && only_once(code) {
        let java = conn.language() == Language::JAVA && !oneway;
        match (conn.is_tunnel(), java) {
            (true, _) => conn.unsure_tunnelled(what.tunnelled),
            (false, true) if !conn.outward.borrow().book.sends_wait() => conn.abort("leader_lost"),
            (false, _) => return false,
        }
        conn.end_request();
        return true;
    }
    if conn.is_tunnel() {
        conn.refuse_tunnelled(code, what.tunnelled);
        conn.end_request();
        return true;
    }
    let Some(kept) = kept else { return false };
    wait_again(conn, &forward, what, kept)
}

fn wait_again(conn: &Rc<Conn>, forward: &Forward, what: Refused, kept: Kept) -> bool {
    let frame = whole(&kept.raw);
    let Some(held) = forward.hold(frame.len() as u64) else {
        return false;
    };
    forward.metrics.moved_on.inc();
    let mut out = conn.outward.borrow_mut();
    out.book.wait(Pending {
        frame,
        code: what.code,
        opaque: what.opaque,
        oneway: what.oneway,
        is_answer: false,
        since: kept.since,
        waits_since: Instant::now(),
        number: kept.number,
        _held: Some(held),
    });
    forward.waiting.fetch_add(1, Ordering::Relaxed);
    drop(out);
    if !forward.serving() {
        pump(conn, forward);
    }
    true
}
