//! The sending half of a link: dial, prove, send what waits, ping; again after a break.

use super::frame::{self, Beat, FrameBuilder, Item};
use super::hello::{self, End, Hello, Refusal, MAC};
use super::outbox::Outbox;
use super::silence::Silence;
use super::stream::{self, Frames, LinkError, Stream};
use super::{wall_ms, PeerAddr, Shared};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// After a refusal by configuration, nothing changes soon.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

/// Keeps the link to one peer, until dropped.
pub async fn run(shared: Arc<Shared>, peer: PeerAddr, outbox: Arc<Outbox>) {
    let _down = Down {
        shared: shared.clone(),
        outbox: outbox.clone(),
        peer: peer.id,
    };
    let (first, last) = shared.options.backoff;
    let mut wait = first;
    let mut told = String::new();
    loop {
        let opened = tokio::time::timeout(shared.options.handshake_within, open(&shared, &peer));
        let error = match opened.await.unwrap_or(Err(LinkError::Timeout)) {
            Ok((stream, frames, version)) => {
                outbox.set_version(version);
                wait = first;
                told.clear();
                tracing::info!(peer = peer.id, addr = %peer.addr, "link to peer is up");
                outbox.set_outgoing(true);
                shared.events.link(peer.id, true, true);
                let error = send(&shared, peer.id, &outbox, stream, frames).await;
                outbox.set_outgoing(false);
                shared.events.link(peer.id, true, false);
                error
            }
            Err(error) => error,
        };
        let text = error.to_string();
        // A peer that is down must not fill the log.
        if text != told {
            tracing::warn!(peer = peer.id, addr = %peer.addr, %error, "no link to peer");
            told = text;
        }
        let refused = matches!(error, LinkError::Refused(_) | LinkError::RefusedUs(_));
        // Spread over half of the wait, so that nodes do not dial in step.
        let now = if refused { REFUSED_WAIT } else { wait };
        let spread = shared.incarnation.wrapping_mul(peer.id | 1) % 512;
        let wait_now = now / 2 + now.mul_f64(spread as f64 / 1024.0);
        // A peer that reaches this node is up: it need not be waited for.
        let _ = tokio::time::timeout(wait_now, outbox.reached.notified()).await;
        wait = (wait * 2).min(last);
    }
}

/// The link ends with its task too.
struct Down {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    peer: u64,
}

impl Drop for Down {
    fn drop(&mut self) {
        if self.outbox.state().outgoing {
            self.outbox.set_outgoing(false);
            self.shared.events.link(self.peer, true, false);
        }
    }
}

async fn open(shared: &Shared, peer: &PeerAddr) -> Result<(Stream, Frames, u16), LinkError> {
    let options = &shared.options;
    let tcp = TcpStream::connect(peer.addr.as_str()).await?;
    tcp.set_nodelay(true)?;
    let mut stream = stream::dialled(tcp, options.tls.as_ref(), &peer.addr).await?;
    let mut frames = Frames::default();
    let mine = Hello::new(
        &options.cluster_id,
        options.node_id,
        peer.id,
        shared.incarnation,
    )?;
    let mine = mine.agreeing(options.agreed, None).encode();
    stream::say(&mut stream, &mine).await?;
    let body = frames.hello(&mut stream).await?;
    if let Some(refusal) = hello::read_refusal(&body) {
        return Err(LinkError::RefusedUs(refusal));
    }
    let (theirs, len) = Hello::decode(body.clone()).map_err(LinkError::Refused)?;
    theirs
        .check(&options.cluster_id, options.node_id, options.agreed, |id| {
            id == peer.id
        })
        .map_err(LinkError::Refused)?;
    let (said, proof) = body.split_at(len);
    if proof.len() != MAC || !hello::proven(&options.secret, End::Acceptor, &mine, said, proof) {
        return Err(LinkError::Refused(Refusal::Secret));
    }
    let proof = hello::prove(&options.secret, End::Dialer, &mine, said);
    stream::say(&mut stream, &proof).await?;
    let last = frames.hello(&mut stream).await?;
    hello::read_welcome(&last).map_err(LinkError::RefusedUs)?;
    Ok((stream, frames, theirs.versions.1))
}

/// Sends until the connection breaks; why it did.
async fn send(
    shared: &Shared,
    peer: u64,
    outbox: &Outbox,
    stream: Stream,
    mut frames: Frames,
) -> LinkError {
    let options = &shared.options;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pings = tokio::time::interval(options.ping_every);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silence = Silence::new(Instant::now(), options.ping_every, options.silent_after);
    let (mut number, mut pongs, mut asked) = (0u64, 0u64, 0u64);
    let mut more = false;
    loop {
        let mut frame = FrameBuilder::default();
        if !more {
            tokio::select! {
                biased;
                _ = pings.tick() => {
                    if silence.too_long(Instant::now()) {
                        return LinkError::Silent;
                    }
                    asked += 1;
                    let (value, wall_ms) = (asked, wall_ms());
                    frame.ping(Beat { value, wall_ms });
                }
                () = outbox.bell.notified() => {}
                read = frames.read(&mut reader) => {
                    if let Err(error) = read {
                        return error;
                    }
                    match answers(&mut frames, options.max_frame, &mut pongs) {
                        Ok(Some(wall_ms)) => {
                            silence.heard(Instant::now());
                            shared.events.clock(peer, wall_ms);
                        }
                        Ok(None) => {}
                        Err(error) => return error,
                    }
                    continue;
                }
            }
        }
        let filled = outbox.fill(&mut frame, options.max_frame);
        more = filled.left;
        if filled.room {
            shared.events.room(peer);
        }
        if frame.is_empty() {
            continue;
        }
        let mut bytes = frame.finish(number);
        number += 1;
        // A peer that takes nothing is gone too; it is also not heard meanwhile.
        let write = async {
            writer.write_all_buf(&mut bytes).await?;
            writer.flush().await
        };
        match tokio::time::timeout(options.silent_after.max(options.handshake_within), write).await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return LinkError::Silent,
        }
    }
}

/// Reads what the acceptor answered: its clock, if it did.
fn answers(frames: &mut Frames, max: usize, number: &mut u64) -> Result<Option<i64>, LinkError> {
    let mut heard = None;
    while let Some(body) = frames.next(max)? {
        let items = frame::items(body, *number)?;
        *number += 1;
        heard = items.iter().fold(heard, |heard, item| match item {
            Item::Pong(beat) => Some(beat.wall_ms),
            _ => heard,
        });
    }
    Ok(heard)
}
