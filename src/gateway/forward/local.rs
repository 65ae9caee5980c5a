//! Requests that this node's own cores are asked to do, as long as it leads.

use super::super::accept::Service;
use super::super::connection::Conn;
use super::super::namesrv;
use super::super::reply::Again;
use super::outward::{is_pull, only_once, pump, whole, Pending};
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

/// The answer comes from this node's memory, without the log: it is worth something only from a
/// leader that still leads. Sends, offset commits and locks go through the log, a pull gets only
/// what is committed, heartbeats change nothing that lasts.
fn needs_current(code: i32) -> bool {
    let free = matches!(
        code,
        code::UPDATE_CONSUMER_OFFSET
            | code::HEART_BEAT
            | code::UNREGISTER_CLIENT
            | code::LOCK_BATCH_MQ
            | code::UNLOCK_BATCH_MQ
            | code::CHECK_CLIENT_CONFIG
            | code::VIEW_MESSAGE_BY_ID
    );
    !(free || only_once(code) || is_pull(code) || namesrv::handles(code))
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
        number: conn.outward.borrow_mut().number(),
        since: Instant::now(),
    })
}

/// A core refused a request (its code, number and whether nobody waits) because this node does
/// not lead, or leads no longer: it goes to whoever does. `false` when it must be answered.
pub fn again(
    conn: &Rc<Conn>,
    why: Again,
    (code, opaque, oneway): (i32, i32, bool),
    kept: Option<Kept>,
) -> bool {
    let Some(forward) = conn.shared().forward.clone() else {
        return false;
    };
    if why == Again::Unsure && only_once(code) {
        match (conn.is_tunnel(), conn.language() == Language::JAVA) {
            (true, _) => conn.unsure_tunnelled(opaque),
            (false, true) if !conn.outward.borrow().sends_wait() => conn.abort("leader_lost"),
            (false, _) => return false,
        }
        conn.end_request();
        return true;
    }
    if conn.is_tunnel() {
        conn.refuse_tunnelled(opaque, oneway);
        conn.end_request();
        return true;
    }
    let Some(kept) = kept else { return false };
    let frame = whole(&kept.raw);
    let Some(held) = forward.hold(frame.len() as u64) else {
        return false;
    };
    if oneway {
        // It does not count as under way while it waits.
        conn.end_request();
    }
    let request = Pending {
        frame,
        code,
        opaque,
        oneway,
        since: kept.since,
        number: kept.number,
        _held: held,
    };
    forward.metrics.moved_on.inc();
    let mut out = conn.outward.borrow_mut();
    // Before later ones of the same client, which may wait already.
    let at = out.waiting.partition_point(|r| r.number < request.number);
    out.waiting.insert(at, request);
    forward.waiting.fetch_add(1, Ordering::Relaxed);
    drop(out);
    if !forward.serving() {
        pump(conn, &forward);
    }
    true
}
