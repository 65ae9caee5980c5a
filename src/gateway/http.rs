//! The HTTP pages: `/metrics`, `/health/live`, `/health/ready`, `/cluster`; operators ask at
//! `/operate`.

use super::operator;
use super::shared::Shared;
use crate::telemetry::CONTENT_TYPE;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{header, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::Router;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections to these pages at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest one connection may live.
const LIFETIME: Duration = Duration::from_secs(60);

/// Serves the pages until the task is dropped.
pub async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve HTTP");
            return;
        }
    };
    let limited = Limited {
        listener,
        places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/cluster", get(cluster))
        .route(operator::PATH, post(operator::operate))
        .layer(DefaultBodyLimit::max(operator::MAX_BODY))
        .with_state(shared)
        .into_make_service_with_connect_info::<operator::Peer>();
    if let Err(error) = axum::serve(limited, pages).await {
        tracing::error!(%error, "HTTP ended");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let inflight = i64::try_from(shared.permits.used()).unwrap_or(i64::MAX);
    shared.metrics.queue_length("inflight_bytes").set(inflight);
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        shared.metrics.encode(),
    )
}

/// Nodes, shards, roles and positions, for `troupe cluster show`.
async fn cluster(State(shared): State<Arc<Shared>>) -> axum::response::Response {
    match &shared.node {
        Some(node) => {
            ([(header::CONTENT_TYPE, "application/json")], node.cluster()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "not a node of a cluster\n").into_response(),
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> axum::response::Response {
    if let Some(why) = shared.node.as_ref().and_then(|node| node.not_ready()) {
        return (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response();
    }
    ready_here(&shared).into_response()
}

fn ready_here(shared: &Shared) -> (StatusCode, &'static str) {
    if shared.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if shared
        .broker
        .as_ref()
        .is_some_and(|b| !b.shard.status().serving())
    {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the shard does not serve\n",
        );
    }
    (StatusCode::OK, "ready\n")
}

/// At most [`MAX_CONNECTIONS`] connections.
pub struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Limited {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = self.places.clone().acquire_owned().await else {
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let end = Box::pin(tokio::time::sleep(LIFETIME));
                    return (
                        Timed {
                            stream,
                            end,
                            _place: place,
                        },
                        peer,
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after [`LIFETIME`], whatever its peer does.
pub struct Timed {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
