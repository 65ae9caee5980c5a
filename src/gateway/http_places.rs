//! Connections to the HTTP pages: few, and none for long. When all places are taken and another
//! connection comes, the quietest one has to go, so that nobody who only holds places keeps
//! operators out.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, Notify};
use tokio::time::Sleep;

/// Connections to these pages at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest one connection may live.
const LIFETIME: Duration = Duration::from_secs(60);
/// Longest wait after an accept that failed: for a descriptor that somebody else closes.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Places {
    open: Mutex<Open>,
    /// Rung when a connection ended.
    freed: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    taken: BTreeMap<u64, Place>,
}

struct Place {
    /// When bytes came or went last.
    used: Instant,
    /// Dropped: the connection ends.
    end: Option<oneshot::Sender<()>>,
}

impl Places {
    /// A place, if there is one; else the quietest connection is told to end.
    fn take(&self) -> Option<(u64, oneshot::Receiver<()>)> {
        let mut open = self.open.lock();
        if open.taken.len() >= MAX_CONNECTIONS {
            let stay = open.taken.values_mut().filter(|p| p.end.is_some());
            if let Some(quietest) = stay.min_by_key(|p| p.used) {
                quietest.end = None;
            }
            return None;
        }
        let (end, ended) = oneshot::channel();
        let place = Place {
            used: Instant::now(),
            end: Some(end),
        };
        open.next += 1;
        let id = open.next;
        open.taken.insert(id, place);
        Some((id, ended))
    }

    fn used(&self, id: u64) {
        if let Some(place) = self.open.lock().taken.get_mut(&id) {
            place.used = Instant::now();
        }
    }
}

/// A listener that lets in at most [`MAX_CONNECTIONS`] at once.
pub struct Limited {
    listener: TcpListener,
    places: Arc<Places>,
}

impl Limited {
    /// Takes over a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            places: Arc::default(),
        }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    let _ = tokio::time::timeout(AGAIN, self.places.freed.notified()).await;
                    continue;
                }
            };
            let (id, ended) = loop {
                let freed = self.places.freed.notified();
                match self.places.take() {
                    Some(place) => break place,
                    None => freed.await,
                }
            };
            let timed = Timed {
                stream,
                end: Box::pin(tokio::time::sleep(LIFETIME)),
                ended,
                id,
                places: self.places.clone(),
            };
            return (timed, peer);
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after [`LIFETIME`], whatever its peer does, or when its place is needed.
pub struct Timed {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    ended: oneshot::Receiver<()>,
    id: u64,
    places: Arc<Places>,
}

impl Timed {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(cx).is_ready() || Pin::new(&mut self.ended).poll(cx).is_ready()
    }

    fn over<T>() -> Poll<std::io::Result<T>> {
        Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.places.open.lock().taken.remove(&self.id);
        self.places.freed.notify_one();
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.is_over(cx) {
            return Self::over();
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.places.used(self.id);
        }
        read
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.is_over(cx) {
            return Self::over();
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.places.used(self.id);
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
