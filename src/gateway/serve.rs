//! A connection's task: reads bursts of frames, hands each request on, cleans up at the end.

use super::connection::Conn;
use super::dispatch;
use super::forward;
use super::send::Burst;
use super::shared::shard_ms;
use crate::model::outcome::Token;
use crate::model::QueueKey;
use crate::wire::remoting::{split_frame, Command, FrameLimits, RawFrame};
use bytes::BytesMut;
use rustc_hash::FxHashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Bytes asked for by one read.
const READ_CHUNK: usize = 64 * 1024;
/// Reads of one burst: then the burst is handled, so that one connection cannot keep a thread.
const READS_PER_BURST: usize = 4;

/// Serves a connection until it closes, then cleans up after it.
pub async fn serve(conn: Rc<Conn>) {
    let gauge = conn.shared().metrics.connections(conn.service.name());
    gauge.inc();
    if let Some(stream) = conn.socket() {
        run(&conn, stream).await;
    }
    gauge.dec();
    leave(&conn);
}

/// Cleans up after a connection.
pub fn leave(conn: &Rc<Conn>) {
    conn.close("peer");
    forward::closed(conn);
    conn.worker.remove(conn.id);
    conn.forget_calls();
    let shared = conn.shared().clone();
    if let Some(registry) = &shared.registry {
        registry.conn_closed(conn.id);
    }
    let Some(broker) = &shared.broker else { return };
    match conn.is_lost() {
        true => broker.groups.conn_lost(conn.id),
        false => broker.groups.conn_closed(conn.id),
    }
    let mut by_queue: FxHashMap<QueueKey, Vec<Token>> = FxHashMap::default();
    for (token, key) in conn.take_parked() {
        conn.worker.forget(token);
        by_queue.entry(key).or_default().push(token);
    }
    for (key, tokens) in by_queue {
        broker.shard.unpark(key, tokens);
    }
}

async fn run(conn: &Rc<Conn>, stream: &TcpStream) {
    let config = conn.shared().config.clone();
    let idle = Duration::from_secs(config.idle_timeout_secs);
    let frame_deadline = Duration::from_secs(config.frame_deadline_secs);
    // For these two limits only: nothing else waits for a tick.
    let tick = (idle.min(frame_deadline) / 4).max(Duration::from_millis(100));
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buf = BytesMut::new();
    // When the frame at the head of `buf` began, as long as it is not complete.
    let mut frame_since: Option<Instant> = None;
    loop {
        if conn.is_closed() {
            return;
        }
        if conn.shared().forward.is_some() {
            Box::pin(forward::drain(conn)).await;
        }
        let may_read = conn.reads();
        let left = conn.wants_write();
        if may_read && !buf.is_empty() {
            // Frames left over from a time without room for requests.
            let before = buf.len();
            if !Box::pin(handle_frames(conn, &mut buf)).await {
                return;
            }
            if buf.len() != before {
                frame_since = (!buf.is_empty()).then(Instant::now);
                continue;
            }
        }
        tokio::select! {
            () = conn.kicked() => {}
            ready = stream.writable(), if left => {
                if ready.is_err() {
                    return;
                }
                conn.flush();
            }
            ready = stream.readable(), if may_read => {
                if ready.is_err() {
                    return;
                }
                if buf.is_empty() {
                    buf = conn.worker.read_buffer();
                }
                let open = read_burst(conn, stream, &mut buf);
                let before = buf.len();
                // Boxed: an idle connection need not hold room for a request under way.
                if !Box::pin(handle_frames(conn, &mut buf)).await || !open {
                    return;
                }
                if buf.is_empty() {
                    frame_since = None;
                    conn.worker.give_read_buffer(std::mem::take(&mut buf));
                } else if buf.len() != before || frame_since.is_none() {
                    frame_since = Some(Instant::now());
                }
            }
            _ = ticks.tick() => {
                let now = Instant::now();
                if !may_read {
                    // The client is not to blame for a frame we do not read.
                    frame_since = frame_since.map(|_| now);
                }
                if frame_since.is_some_and(|since| now.duration_since(since) >= frame_deadline) {
                    conn.shared().bad_input("frame_deadline", conn.peer, &"frame not complete in time");
                    return conn.close("frame_deadline");
                }
                if now.duration_since(conn.last_used()) >= idle {
                    return conn.close("idle");
                }
                conn.shrink();
            }
        }
    }
}

/// Reads what is there, up to a limit; `false` when the peer closed or the socket failed.
fn read_burst(conn: &Conn, stream: &TcpStream, buf: &mut BytesMut) -> bool {
    for _ in 0..READS_PER_BURST {
        buf.reserve(READ_CHUNK);
        match stream.try_read_buf(buf) {
            Ok(0) => return false,
            Ok(n) => {
                conn.used();
                if n < READ_CHUNK {
                    return true;
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Handles the complete frames in `buf`; `false` closes the connection.
pub async fn handle_frames(conn: &Rc<Conn>, buf: &mut BytesMut) -> bool {
    let limits = FrameLimits {
        max_frame: conn.shared().config.max_frame_bytes as usize,
        ..FrameLimits::default()
    };
    let small = buf.len() < READ_CHUNK / 4;
    let mut burst = Burst::new(shard_ms(conn.shared()), buf.len());
    let mut open = true;
    while open && conn.may_read() {
        match split_frame(buf, &limits) {
            Ok(Some(frame)) => open = handle_frame(conn, frame, small, &mut burst).await,
            Ok(None) => break,
            Err(error) => {
                conn.shared().bad_input("frame", conn.peer, &error);
                open = false;
            }
        }
        if conn.is_closed() {
            break;
        }
    }
    burst.submit();
    if !open {
        conn.flush();
        conn.close("bad_input");
        return false;
    }
    true
}

/// Handles one frame. `small`: what was read with it is little. `false` closes the connection.
pub async fn handle_frame(
    conn: &Rc<Conn>,
    frame: RawFrame,
    small: bool,
    burst: &mut Burst,
) -> bool {
    let forward = conn.shared().forward.as_ref();
    let raw = forward.is_some().then(|| frame.clone());
    let command = match Command::decode(frame) {
        Ok(command) => command,
        Err(error) => {
            conn.shared().bad_input("header", conn.peer, &error);
            return false;
        }
    };
    conn.set_language(command.language);
    if command.is_response() {
        let known = conn.answered(command);
        if let (false, Some(forward), Some(raw)) = (known, forward, &raw) {
            forward::takes_answer(conn, forward, raw);
        }
        conn.tunnelled_done(conn.tunnelled_number());
        return true;
    }
    if let (Some(forward), Some(raw)) = (forward, &raw) {
        if forward::takes(conn, forward, &command, raw) {
            return true;
        }
    }
    let kept = raw.and_then(|raw| forward::keep(conn, command.code, raw, small));
    dispatch::request(conn, &command, burst, kept).await;
    true
}
