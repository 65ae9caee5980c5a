//! Listeners: bound once, accepted by one thread, handed to the gateway threads in turn.

use super::inbox::Inbox;
use super::limits::ConnectionPermit;
use super::shared::{now_ms, Shared};
use crate::telemetry::RateLimited;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Which codes a port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Broker codes; name-server codes too when this node is one.
    Broker,
    /// Name-server codes; broker codes too when this node is one (stock allows one port for both).
    Registry,
}

impl Service {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Service::Broker => "broker",
            Service::Registry => "registry",
        }
    }
}

/// A connection on its way to a gateway thread.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub service: Service,
    pub permit: ConnectionPermit,
}

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ({what}): {source}{}", hint(.source))]
pub struct BindError {
    pub addr: String,
    pub what: &'static str,
    #[source]
    pub source: std::io::Error,
}

fn hint(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::AddrInUse => ": another process uses the port",
        std::io::ErrorKind::PermissionDenied => ": not allowed to use this port",
        _ => "",
    }
}

/// Opens a listener.
pub fn bind(host: &str, port: u16, what: &'static str) -> Result<TcpListener, BindError> {
    let fail = |source| BindError {
        addr: format!("{host}:{port}"),
        what,
        source,
    };
    let ip: IpAddr = match host {
        h if h.eq_ignore_ascii_case("localhost") => IpAddr::from([127, 0, 0, 1]),
        h => h.parse().map_err(|_| {
            fail(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "not an IP address",
            ))
        })?,
    };
    let addr = SocketAddr::new(ip, port);
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for old connections to time out. Not SO_REUSEPORT: a second
        // process on the port must be refused, not share it.
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4_096)?;
        Ok(socket.into())
    };
    open().map_err(fail)
}

/// Accepts until the task is dropped.
pub async fn accept_loop(
    listener: TcpListener,
    service: Service,
    inboxes: Arc<Vec<Arc<Inbox>>>,
    shared: Arc<Shared>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = service.name(), %error, "cannot accept connections");
            return;
        }
    };
    let opened = shared.metrics.connections_opened(service.name());
    let log = RateLimited::new(2, 10_000);
    let mut next = 0usize;
    let mut wait = Duration::from_millis(5);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or memory: only what is closed helps.
                if let Some(left_out) = log.allow(now_ms().unsigned_abs()) {
                    tracing::warn!(listener = service.name(), %error, left_out, "cannot accept");
                }
                let freed = shared.connections.freed.notified();
                let _ = tokio::time::timeout(wait, freed).await;
                wait = (wait * 2).min(Duration::from_secs(1));
                continue;
            }
        };
        wait = Duration::from_millis(5);
        let Some(permit) = shared.connections.admit(peer.ip()) else {
            shared.metrics.connections_closed("limit").inc();
            if let Some(left_out) = log.allow(now_ms().unsigned_abs()) {
                tracing::warn!(listener = service.name(), %peer, left_out, "too many connections");
            }
            continue; // Dropping the stream closes it.
        };
        opened.inc();
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let inbox = &inboxes[next % inboxes.len()];
        next = next.wrapping_add(1);
        inbox.put(|mail| {
            mail.accepted.push(Accepted {
                stream,
                peer,
                service,
                permit,
            })
        });
    }
}
