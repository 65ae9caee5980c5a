//! A pipelined connection for load: one buffer out, one buffer in, one write and one read a wake,
//! no task and no allocation per request. The caller keeps the requests under way.

use super::answer::{self, Answer};
use super::error::ClientError;
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{pin, Pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{lookup_host, TcpSocket, TcpStream};
use tokio::time::timeout;

/// One connection whose frames the caller writes and reads himself.
#[derive(Debug)]
pub struct Pipe {
    stream: TcpStream,
    addr: String,
    out: BytesMut,
    input: BytesMut,
    chunk: usize,
    /// The socket took no more bytes when it was last asked.
    blocked: bool,
}

impl Pipe {
    /// Connects to `host:port`, from the address `from` when given, within `wait`. At least
    /// `chunk` bytes of room are offered to every read.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(
        addr: &str,
        from: Option<IpAddr>,
        wait: Duration,
        chunk: usize,
    ) -> Result<Self, ClientError> {
        let failed = |why: String| ClientError::Connect {
            addr: addr.to_owned(),
            why,
        };
        let stream = match timeout(wait, open(addr, from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed(format!("no connection in {} ms", wait.as_millis()))),
        };
        Ok(Self {
            stream,
            addr: addr.to_owned(),
            out: BytesMut::new(),
            input: BytesMut::new(),
            chunk,
            blocked: false,
        })
    }

    /// The address this connection was made to.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Where requests are written; [`Pipe::poll`] sends them.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Sends what is to be sent, as far as the socket takes it, and reads once. Ready when bytes
    /// came ([`Pipe::drain`] has them), or when everything is sent after the socket was full.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(n)) if n > 0 => self.out.advance(n),
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(self.closed("it takes no bytes"))),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(self.closed(&e.to_string()))),
                Poll::Pending => {
                    self.blocked = true;
                    break;
                }
            }
        }
        let unblocked = self.blocked && self.out.is_empty();
        self.blocked &= !unblocked;
        self.input.reserve(self.chunk);
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(self.closed("by the server"))),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(self.closed(&e.to_string()))),
            Poll::Pending if unblocked => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes a request at once, without a wake of the task that polls. What an almost idle socket
    /// does not take is an error.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub fn send_now(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self.stream.try_write(bytes) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(self.closed("it takes no bytes")),
            Err(e) => Err(self.closed(&e.to_string())),
        }
    }

    /// Hands every whole frame that was read to `take`, with the buffer for further requests.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the bytes are no frames; the connection is of no more use.
    pub fn drain(
        &mut self,
        mut take: impl FnMut(Answer<'_>, &mut BytesMut),
    ) -> Result<(), ClientError> {
        loop {
            match answer::first(&self.input) {
                Ok(Some((found, len))) => {
                    take(found, &mut self.out);
                    self.input.advance(len);
                }
                Ok(None) => break,
                Err(why) => return Err(self.closed(&why)),
            }
        }
        if self.input.is_empty() {
            self.input.clear();
        }
        Ok(())
    }

    fn closed(&self, why: &str) -> ClientError {
        ClientError::Closed {
            addr: self.addr.clone(),
            why: why.to_owned(),
        }
    }
}

async fn open(addr: &str, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for to in lookup_host(addr).await? {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(ip) = from {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        match socket.connect(to).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
