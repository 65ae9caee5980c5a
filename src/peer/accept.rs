//! The receiving half of a link: accept, check, deliver what comes, answer pings.

use super::frame::{self, Beat, FrameBuilder, Item};
use super::hello::{self, End, Hello, Refusal, MAC};
use super::silence::Silence;
use super::stream::{self, Frames, LinkError, Stream};
use super::{wall_ms, Shared};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, Semaphore};

/// Connections that have not proved themselves yet.
const MAX_STRANGERS: usize = 64;
/// Refused connections in the log: one a second.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The connection that is in use for a peer.
struct Current {
    incarnation: u64,
    generation: u64,
    heard: Instant,
    /// Dropped: the connection ends.
    _end: oneshot::Sender<()>,
}

#[derive(Default)]
struct Incoming {
    current: RefCell<BTreeMap<u64, Current>>,
    generation: RefCell<u64>,
    logged: RefCell<Option<Instant>>,
}

/// Opens the peer port. The address in use is an error of its own.
pub fn bind(host: &str, port: u16) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let ip: std::net::IpAddr = match host {
        h if h.eq_ignore_ascii_case("localhost") => std::net::IpAddr::from([127, 0, 0, 1]),
        h => h
            .parse()
            .map_err(|_| std::io::Error::other("not an IP address"))?,
    };
    let addr = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Accepts until dropped.
pub async fn run(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept peers");
            return;
        }
    };
    let incoming = Rc::new(Incoming::default());
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                incoming.log(|| tracing::warn!(%error, "cannot accept a peer"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = strangers.clone().try_acquire_owned() else {
            incoming.log(|| tracing::warn!(%addr, "too many connections to the peer port"));
            continue; // Dropping the stream closes it.
        };
        let (shared, incoming) = (shared.clone(), incoming.clone());
        tasks.spawn_local(async move {
            let opened = tokio::time::timeout(
                shared.options.handshake_within,
                open(&shared, &incoming, stream),
            );
            let opened = opened.await.unwrap_or(Err(LinkError::Timeout));
            drop(place);
            match opened {
                Ok((peer, stream, frames)) => {
                    serve(&shared, &incoming, peer, stream, frames, addr).await;
                }
                Err(error) => {
                    incoming.log(|| tracing::warn!(%addr, %error, "refused a peer connection"));
                }
            }
        });
    }
}

impl Incoming {
    fn log(&self, line: impl FnOnce()) {
        let mut logged = self.logged.borrow_mut();
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            line();
        }
    }

    /// Another process uses this id: its connection is in use and was heard lately.
    fn taken(&self, peer: &Hello, lately: Duration) -> bool {
        self.current
            .borrow()
            .get(&peer.from)
            .is_some_and(|c| c.incarnation != peer.incarnation && c.heard.elapsed() < lately)
    }
}

async fn open(
    shared: &Shared,
    incoming: &Incoming,
    tcp: TcpStream,
) -> Result<(Hello, Stream, Frames), LinkError> {
    let options = &shared.options;
    tcp.set_nodelay(true)?;
    let mut stream = stream::accepted(tcp, options.tls.as_ref()).await?;
    let mut frames = Frames::default();
    let said = frames.hello(&mut stream).await?;
    let checked = Hello::decode(said.clone()).and_then(|(hello, _)| {
        let known = |id| shared.outbox(id).is_some();
        hello.check(&options.cluster_id, options.node_id, options.agreed, known)?;
        Ok(hello)
    });
    let peer = match checked {
        Ok(peer) => peer,
        Err(refusal) => return refuse(stream, refusal).await,
    };
    let mine = Hello::new(
        &options.cluster_id,
        options.node_id,
        peer.from,
        shared.incarnation,
    )?;
    let mine = mine.agreeing(options.agreed, Some(&peer)).encode();
    let proof = hello::prove(&options.secret, End::Acceptor, &said, &mine);
    stream::say(&mut stream, &[&mine[..], &proof].concat()).await?;
    let proof = frames.hello(&mut stream).await?;
    if proof.len() != MAC || !hello::proven(&options.secret, End::Dialer, &said, &mine, &proof) {
        return refuse(stream, Refusal::Secret).await;
    }
    // Only now: who does not know the secret must not learn who is connected.
    if incoming.taken(&peer, options.silent_after) {
        return refuse(stream, Refusal::Duplicate).await;
    }
    stream::say(&mut stream, &hello::welcome()).await?;
    Ok((peer, stream, frames))
}

async fn refuse<T>(mut stream: Stream, refusal: Refusal) -> Result<T, LinkError> {
    let _ = stream::say(&mut stream, &refusal.encode()).await;
    let _ = stream.shutdown().await;
    Err(LinkError::Refused(refusal))
}

async fn serve(
    shared: &Shared,
    incoming: &Incoming,
    peer: Hello,
    stream: Stream,
    frames: Frames,
    addr: SocketAddr,
) {
    let id = peer.from;
    let generation = {
        let mut generation = incoming.generation.borrow_mut();
        *generation += 1;
        *generation
    };
    let (end, ended) = oneshot::channel();
    let before = incoming.current.borrow_mut().insert(
        id,
        Current {
            incarnation: peer.incarnation,
            generation,
            heard: Instant::now(),
            _end: end,
        },
    );
    if before.is_some() {
        shared.events.link(id, false, false);
    }
    drop(before);
    tracing::info!(peer = id, %addr, "link from peer is up");
    let Some(inbox) = shared.outbox(id) else {
        return;
    };
    inbox.set_version(peer.versions.1);
    inbox.set_incoming(true);
    shared.events.link(id, false, true);
    let _gone = Gone {
        shared,
        incoming,
        peer: id,
        generation,
    };
    let error = tokio::select! {
        error = receive(shared, incoming, id, stream, frames) => error,
        _ = ended => LinkError::Closed,
    };
    tracing::warn!(peer = id, %addr, %error, "link from peer ended");
}

/// Says that the connection ended, unless another took its place.
struct Gone<'a> {
    shared: &'a Shared,
    incoming: &'a Incoming,
    peer: u64,
    generation: u64,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut current = self.incoming.current.borrow_mut();
        if current
            .get(&self.peer)
            .is_some_and(|c| c.generation == self.generation)
        {
            current.remove(&self.peer);
            drop(current);
            if let Some(inbox) = self.shared.outbox(self.peer) {
                inbox.set_incoming(false);
            }
            self.shared.events.link(self.peer, false, false);
        }
    }
}

async fn receive(
    shared: &Shared,
    incoming: &Incoming,
    peer: u64,
    stream: Stream,
    mut frames: Frames,
) -> LinkError {
    let options = &shared.options;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut checks = tokio::time::interval(options.ping_every);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silence = Silence::new(Instant::now(), options.ping_every, options.silent_after);
    let (mut number, mut answers) = (0u64, 0u64);
    loop {
        let mut batch = Vec::new();
        let mut pong = None;
        loop {
            let items = match frames.next(options.max_frame) {
                Ok(Some(body)) => frame::items(body, number),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            let items = match items {
                Ok(items) => items,
                Err(error) => return error.into(),
            };
            number += 1;
            for item in items {
                match item {
                    Item::Message(message) => batch.push(message),
                    Item::Ping(beat) => pong = Some(beat),
                    Item::Pong(_) => {}
                }
            }
        }
        if !batch.is_empty() {
            shared.events.deliver(peer, batch);
        }
        if let Some(ping) = pong {
            shared.events.clock(peer, ping.wall_ms);
            let mut frame = FrameBuilder::default();
            frame.pong(Beat {
                wall_ms: wall_ms(),
                ..ping
            });
            let mut bytes = frame.finish(answers);
            answers += 1;
            let write = async {
                writer.write_all_buf(&mut bytes).await?;
                writer.flush().await
            };
            match tokio::time::timeout(options.silent_after, write).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return LinkError::Silent,
            }
        }
        tokio::select! {
            biased;
            read = frames.read(&mut reader) => {
                if let Err(error) = read {
                    return error;
                }
                let now = Instant::now();
                silence.heard(now);
                if let Some(current) = incoming.current.borrow_mut().get_mut(&peer) {
                    current.heard = now;
                }
            }
            _ = checks.tick() => if silence.too_long(Instant::now()) {
                return LinkError::Silent;
            }
        }
    }
}
