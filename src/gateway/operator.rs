//! Requests of operators: change members, move leadership, make a node known.
//!
//! Whoever may do this can take a cluster apart, so with a cluster secret each request carries a
//! proof of it, also on this machine. Without one all nodes are on this machine, and so must the
//! caller be; a page in somebody's browser cannot set the header.

use super::shared::{now_ms, LogView, Shared};
use crate::config::operator::{self, HEADER};
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde::Deserialize;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where they are sent.
pub const PATH: &str = "/operate";
/// Longest request, bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// What a single node answers.
const SINGLE: &str =
    "this is a single node, without members to change or leads to hand over (peers is empty)\n";
/// Longest one may take.
const WITHIN: Duration = Duration::from_secs(20);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Hand the lead of a shard to a node.
    Transfer { shard: String, to: u64 },
    /// Change the members of a shard, all at once.
    Members {
        shard: String,
        /// Get the log and have no vote.
        #[serde(default)]
        learners: Vec<u64>,
        #[serde(default)]
        voters: Vec<u64>,
        #[serde(default)]
        remove: Vec<u64>,
    },
    /// The shard's only replica is here: it need not wait for others.
    Form { shard: String },
    /// Let in another node, and tell the other nodes.
    Node { id: u64, addr: String },
    /// Read the stored logs of these shards (all when none is named) on this node at once.
    Scrub {
        #[serde(default)]
        shards: Vec<String>,
    },
}

/// Why it is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// Another node leads the shard; 0 when nobody does.
    Leader(u64),
    /// There is no such shard here.
    Unknown(String),
    Refused(String),
}

/// An operation under way.
pub type Doing = Pin<Box<dyn Future<Output = Result<String, NotDone>> + Send>>;

/// The address of a page's reader.
#[derive(Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, super::http_places::Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, super::http_places::Limited>) -> Self {
        Peer(*stream.remote_addr())
    }
}

fn allowed(shared: &Shared, peer: Peer, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let header = headers.get(HEADER).and_then(|h| h.to_str().ok());
    let secret = shared.config.read_cluster_secret()?;
    if secret.is_empty() {
        if header.is_none() {
            return Err(format!("the header {HEADER} is missing"));
        }
        return match peer.0.ip().to_canonical().is_loopback() {
            true => Ok(()),
            false => Err("without a cluster secret only this machine may ask".into()),
        };
    }
    operator::check(&secret, header.unwrap_or(""), PATH, body, now_ms()).map_err(|e| e.to_string())
}

/// What a single node does.
fn alone(log: Option<&dyn LogView>, operation: &Operation) -> Result<String, NotDone> {
    match (operation, log) {
        (Operation::Scrub { shards }, Some(log)) => log.scrub(shards).map_err(NotDone::Unknown),
        _ => Err(NotDone::Unknown(SINGLE.trim_end().to_owned())),
    }
}

/// Handles a request.
pub async fn operate(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if shared.node.is_none() && shared.log.is_none() {
        return (StatusCode::NOT_FOUND, SINGLE).into_response();
    }
    if let Err(why) = allowed(&shared, peer, &headers, &body) {
        shared.bad_input("operator", peer.0, &why);
        return (StatusCode::FORBIDDEN, why + "\n").into_response();
    }
    let operation: Operation = match serde_json::from_slice(&body) {
        Ok(operation) => operation,
        Err(e) => return (StatusCode::BAD_REQUEST, format!("{e}\n")).into_response(),
    };
    tracing::info!(peer = %peer.0, ?operation, "operator");
    let doing = match (&shared.node, &shared.log) {
        (Some(node), _) => node.clone().operate(operation),
        (None, log) => {
            let done = alone(log.as_deref(), &operation);
            Box::pin(std::future::ready(done))
        }
    };
    let done = tokio::time::timeout(WITHIN, doing).await;
    let (status, text) = match done {
        Ok(Ok(text)) => (StatusCode::OK, text),
        Ok(Err(NotDone::Leader(node))) => {
            (StatusCode::CONFLICT, format!("the leader is node {node}"))
        }
        Ok(Err(NotDone::Unknown(what))) => (StatusCode::NOT_FOUND, what),
        Ok(Err(NotDone::Refused(why))) => (StatusCode::UNPROCESSABLE_ENTITY, why),
        Err(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("not done after {WITHIN:?}; it may still happen"),
        ),
    };
    tracing::info!(peer = %peer.0, status = status.as_u16(), result = %text, "operator");
    (status, text + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_strictly() {
        let read = |text: &str| serde_json::from_str::<Operation>(text);
        assert_eq!(
            read(r#"{"op":"transfer","shard":"a","to":2}"#).unwrap(),
            Operation::Transfer {
                shard: "a".into(),
                to: 2
            }
        );
        let members = read(r#"{"op":"members","shard":"a","voters":[4],"remove":[1]}"#).unwrap();
        assert!(matches!(members, Operation::Members { learners, .. } if learners.is_empty()));
        for bad in [
            "",
            "{}",
            r#"{"op":"stop"}"#,
            r#"{"op":"transfer","shard":"a"}"#,
            r#"{"op":"transfer","shard":"a","to":-1}"#,
            r#"{"op":"node","id":4,"addr":"h:1","more":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
