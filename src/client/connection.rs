//! One connection: frames out, frames in, answers matched to requests.

use super::error::ClientError;
use crate::wire::remoting::header::Command;
use crate::wire::remoting::{
    encode_request, encode_response, split_frame, FrameLimits, HeaderFormat, RequestHeader,
    ResponseHeader, Val,
};
use bytes::BytesMut;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, Notify};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Most requests that may wait for their answers on one connection.
const MAX_PENDING: usize = 4_096;
/// Most requests from the server that wait for [`Connection::server_request`]; more are dropped.
const MAX_SERVER_REQUESTS: usize = 1_024;
/// Bytes that may wait to be written; more would mean that the server does not read.
const MAX_UNSENT: usize = 64 << 20;

/// One connection to a broker or name server. Requests may be begun without waiting for earlier
/// answers; they are written in the order in which they were begun.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    server_requests: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    addr: String,
    state: Mutex<State>,
    wake_writer: Notify,
}

#[derive(Debug, Default)]
struct State {
    unsent: BytesMut,
    next_opaque: i32,
    pending: FxHashMap<i32, oneshot::Sender<Command>>,
    closed: Option<String>,
}

impl Shared {
    fn close(&self, why: &str) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(why.to_owned());
        }
        // Dropping the senders wakes everybody who waits.
        state.pending.clear();
        state.unsent.clear();
        drop(state);
        self.wake_writer.notify_one();
    }

    fn closed_error(&self) -> ClientError {
        let why = self.state.lock().closed.clone();
        ClientError::Closed {
            addr: self.addr.clone(),
            why: why.unwrap_or_else(|| "it was lost".to_owned()),
        }
    }
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when that fails or takes longer than `wait`.
    pub async fn connect(addr: &str, wait: Duration) -> Result<Self, ClientError> {
        let failed = |why: String| ClientError::Connect {
            addr: addr.to_owned(),
            why,
        };
        let stream = match timeout(wait, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed(format!("no connection in {} ms", wait.as_millis()))),
        };
        stream
            .set_nodelay(true)
            .map_err(|e| failed(e.to_string()))?;
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared {
            addr: addr.to_owned(),
            state: Mutex::default(),
            wake_writer: Notify::new(),
        });
        let (to_user, server_requests) = mpsc::channel(MAX_SERVER_REQUESTS);
        let tasks = [
            tokio::spawn(run_reader(read, shared.clone(), to_user)),
            tokio::spawn(run_writer(write, shared.clone())),
        ];
        Ok(Self {
            shared,
            server_requests: tokio::sync::Mutex::new(server_requests),
            tasks,
        })
    }

    /// The address this connection was made to.
    pub fn addr(&self) -> &str {
        &self.shared.addr
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().closed.is_some()
    }

    /// Queues a request and returns the answer to come, without waiting for anything.
    ///
    /// # Errors
    /// When the connection has ended or too much is under way.
    pub fn begin(
        &self,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let (tx, rx) = oneshot::channel();
        let mut state = self.shared.state.lock();
        if state.closed.is_some() {
            drop(state);
            return Err(self.shared.closed_error());
        }
        if state.pending.len() >= MAX_PENDING || state.unsent.len() > MAX_UNSENT {
            return Err(ClientError::TooManyPending {
                addr: self.shared.addr.clone(),
            });
        }
        let mut opaque = state.next_opaque;
        while state.pending.contains_key(&opaque) {
            opaque = opaque.wrapping_add(1) & i32::MAX;
        }
        state.next_opaque = opaque.wrapping_add(1) & i32::MAX;
        state.pending.insert(opaque, tx);
        let header = RequestHeader {
            code,
            opaque,
            oneway: false,
            remark: None,
            ext,
        };
        encode_request(&mut state.unsent, HeaderFormat::Json, &header, &[body]);
        drop(state);
        self.shared.wake_writer.notify_one();
        Ok(Reply {
            shared: self.shared.clone(),
            request: code,
            opaque,
            rx,
        })
    }

    /// Sends a request and waits for its answer, whatever its code.
    ///
    /// # Errors
    /// When the connection ends or `wait` passes.
    pub async fn request(
        &self,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
        wait: Duration,
    ) -> Result<Command, ClientError> {
        self.begin(code, ext, body)?.answer(wait).await
    }

    /// Sends a request that wants no answer.
    ///
    /// # Errors
    /// When the connection has ended or too much is under way.
    pub fn oneway(
        &self,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<(), ClientError> {
        let mut state = self.shared.state.lock();
        let opaque = state.next_opaque;
        state.next_opaque = opaque.wrapping_add(1) & i32::MAX;
        let header = RequestHeader {
            code,
            opaque,
            oneway: true,
            remark: None,
            ext,
        };
        self.push(state, |out| {
            encode_request(out, HeaderFormat::Json, &header, &[body])
        })
    }

    /// Answers a request that came from the server.
    ///
    /// # Errors
    /// When the connection has ended or too much is under way.
    pub fn respond(
        &self,
        opaque: i32,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<(), ClientError> {
        let header = ResponseHeader {
            code,
            opaque,
            remark: None,
            ext,
        };
        self.push(self.shared.state.lock(), |out| {
            encode_response(out, &header, &[body])
        })
    }

    fn push(
        &self,
        mut state: parking_lot::MutexGuard<'_, State>,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<(), ClientError> {
        if state.closed.is_some() {
            drop(state);
            return Err(self.shared.closed_error());
        }
        if state.unsent.len() > MAX_UNSENT {
            return Err(ClientError::TooManyPending {
                addr: self.shared.addr.clone(),
            });
        }
        write(&mut state.unsent);
        drop(state);
        self.shared.wake_writer.notify_one();
        Ok(())
    }

    /// The next request from the server; `None` when the connection has ended.
    pub async fn server_request(&self) -> Option<Command> {
        self.server_requests.lock().await.recv().await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("by this client");
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An answer to come. Dropping it forgets the request.
#[derive(Debug)]
pub struct Reply {
    shared: Arc<Shared>,
    request: i32,
    opaque: i32,
    rx: oneshot::Receiver<Command>,
}

impl Reply {
    /// Waits for the answer, whatever its code.
    ///
    /// # Errors
    /// When the connection ends or `wait` passes.
    pub async fn answer(mut self, wait: Duration) -> Result<Command, ClientError> {
        match timeout(wait, &mut self.rx).await {
            Ok(Ok(command)) => Ok(command),
            Ok(Err(_)) => Err(self.shared.closed_error()),
            Err(_) => Err(ClientError::Timeout {
                addr: self.shared.addr.clone(),
                request: self.request,
                ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.shared.state.lock().pending.remove(&self.opaque);
    }
}

async fn run_reader(mut read: OwnedReadHalf, shared: Arc<Shared>, to_user: mpsc::Sender<Command>) {
    let why = match read_all(&mut read, &shared, &to_user).await {
        Ok(()) => "by the server".to_owned(),
        Err(why) => why,
    };
    shared.close(&why);
}

async fn read_all(
    read: &mut OwnedReadHalf,
    shared: &Shared,
    to_user: &mpsc::Sender<Command>,
) -> Result<(), String> {
    // A stock server's limit on what it sends.
    let limits = FrameLimits {
        max_header: 8 << 20,
        ..FrameLimits::default()
    };
    let mut buf = BytesMut::with_capacity(64 * 1024);
    loop {
        // As a length of a frame that would be a gigabyte.
        if buf.starts_with(b"HTTP") {
            return Err("it speaks HTTP".to_owned());
        }
        while let Some(frame) = split_frame(&mut buf, &limits).map_err(|e| e.to_string())? {
            let command = Command::decode(frame).map_err(|e| e.to_string())?;
            if command.is_response() {
                let waiting = shared.state.lock().pending.remove(&command.opaque);
                if let Some(tx) = waiting {
                    let _ = tx.send(command);
                }
            } else {
                // Nobody may be listening; the server must not be able to fill the memory.
                let _ = to_user.try_send(command);
            }
        }
        buf.reserve(16 * 1024);
        if read.read_buf(&mut buf).await.map_err(|e| e.to_string())? == 0 {
            return match buf.is_empty() {
                true => Ok(()),
                false => Err("by the server in the middle of a frame".to_owned()),
            };
        }
    }
}

async fn run_writer(mut write: OwnedWriteHalf, shared: Arc<Shared>) {
    if let Err(e) = write_all(&mut write, &shared).await {
        shared.close(&e.to_string());
    }
}

async fn write_all(write: &mut OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    loop {
        let burst = {
            let mut state = shared.state.lock();
            if state.closed.is_some() {
                return Ok(());
            }
            state.unsent.split()
        };
        if burst.is_empty() {
            shared.wake_writer.notified().await;
        } else {
            write.write_all(&burst).await?;
        }
    }
}
