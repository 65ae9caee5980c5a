//! The HTTP pages: `/` says what there is, `/metrics`, `/health/live`, `/health/ready`, `/cluster`;
//! operators ask at `/operate`.

use super::http_places::Limited;
use super::operator;
use super::shared::{BrokerSide, Shared};
use crate::telemetry::CONTENT_TYPE;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::Router;
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves the pages until the task is dropped.
pub async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve HTTP");
            return;
        }
    };
    let limited = Limited::new(listener);
    let pages = Router::new()
        .route("/", get(front))
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/cluster", get(cluster))
        .route(operator::PATH, post(operator::operate))
        .fallback(no_page)
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
    shared.metrics.descriptors.look();
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        shared.metrics.encode(),
    )
}

/// The pages that people and programs may ask for, and what is on them.
const PAGES: [(&str, &str); 4] = [
    ("/metrics", "figures, in the format that Prometheus reads"),
    ("/cluster", "nodes, shards and who leads, as JSON"),
    (
        "/health/ready",
        "whether clients are served now: 200 or 503",
    ),
    ("/health/live", "whether the process answers"),
];

/// What this is, and which pages there are: text for `curl`, a page for browsers.
async fn front(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> axum::response::Response {
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let (is, state) = (what_it_is(&shared), ready_now(&shared).1);
    let state = state.trim_end();
    if !accepts.is_some_and(|kinds| kinds.contains("text/html")) {
        let pages = PAGES.map(|(path, what)| format!("{path:<14} {what}\n"));
        return format!("{is}\n{state}\n{}", pages.concat()).into_response();
    }
    let pages = PAGES.map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a> {what}</li>"));
    let page = format!(
        "<!doctype html><html lang=\"en\"><title>TroupeMQ</title><p>{}</p><p>{}</p><ul>{}</ul></html>\n",
        escape_html(&is),
        escape_html(state),
        pages.concat()
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

async fn no_page() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "there is no such page; / lists the pages\n",
    )
}

fn what_it_is(shared: &Shared) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let config = &shared.config;
    let broker = || format!("broker {} of {}", shared.broker_name, config.cluster_name);
    let what = match (&shared.node, &shared.broker) {
        (Some(_), _) => format!("node {} of cluster {}", config.node_id, config.cluster_id),
        (None, Some(_)) if shared.registry.is_some() => format!("name server and {}", broker()),
        (None, Some(_)) => broker(),
        (None, None) => "name server".to_owned(),
    };
    format!("TroupeMQ {version}, a message broker for RocketMQ clients: {what}")
}

/// Names in configuration files are letters, digits and few signs, but this is no place to rely on it.
fn escape_html(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// Nodes, shards, roles and positions, for `troupe cluster show`.
async fn cluster(State(shared): State<Arc<Shared>>) -> axum::response::Response {
    let text = match &shared.node {
        Some(node) => node.cluster(),
        None => alone(&shared).to_string(),
    };
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A node that is no part of a cluster, in the form of one that is.
fn alone(shared: &Shared) -> serde_json::Value {
    let shard = |broker: &BrokerSide| {
        let status = broker.shard.status();
        let (damage, scrub) = shared
            .log
            .as_ref()
            .map(|log| log.figures())
            .unwrap_or_default();
        json!({
            "damage": damage, "scrub": scrub,
            "id": broker.shard.shard().0, "name": shared.broker_name, "port": shared.port(),
            "leader": 1, "preferred": 1, "term": status.term(), "serving": status.serving(),
            "committed": status.committed(), "applied": status.applied(),
            "voters": [1], "learners": [], "failed": status.failed(), "replicas": [],
        })
    };
    json!({
        "single": true, "registry": shared.registry.is_some(),
        "cluster": shared.config.cluster_name, "node_id": 1, "nodes": [],
        "shards": shared.broker.iter().map(shard).collect::<Vec<_>>(),
    })
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    ready_now(&shared)
}

fn ready_now(shared: &Shared) -> (StatusCode, String) {
    if let Some(why) = shared.node.as_ref().and_then(|node| node.not_ready()) {
        return (StatusCode::SERVICE_UNAVAILABLE, why + "\n");
    }
    let (status, text) = ready_here(shared);
    (status, text.to_owned())
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
