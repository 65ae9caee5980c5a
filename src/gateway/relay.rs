//! Requests from the broker to a connected client, and the client's answers.

use super::connection::Conn;
use super::inbox::GatewayLink;
use super::shared::now_ms;
use crate::actors::group::types::Connection;
use crate::actors::link::{ConnId, Notice};
use crate::wire::remoting::body::{MessageQueue, ResetOffsetBody};
use crate::wire::remoting::code::request as code;
use crate::wire::remoting::frame::HeaderFormat;
use crate::wire::remoting::{encode_request_head, Command, Language, RequestHeader, Val};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A request to a client that waits for its answer.
pub struct ClientCall {
    pub conn: ConnId,
    pub code: i32,
    pub ext: Vec<(String, String)>,
    pub body: Bytes,
    pub answer: oneshot::Sender<Command>,
}

/// Why a client gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection is closed, or closed meanwhile.
    #[error("the client's connection is closed")]
    Closed,
    /// It did not answer in time.
    #[error("the client did not answer in time")]
    Timeout,
}

/// Sends a request to a client and waits for its answer.
pub async fn call(
    link: &GatewayLink,
    conn: ConnId,
    code: i32,
    ext: Vec<(String, String)>,
    body: Bytes,
    timeout: Duration,
) -> Result<Command, CallError> {
    let inbox = link.inbox(conn).ok_or(CallError::Closed)?;
    let (answer, result) = oneshot::channel();
    inbox.put(|mail| {
        mail.calls.push(ClientCall {
            conn,
            code,
            ext,
            body,
            answer,
        })
    });
    match tokio::time::timeout(timeout, result).await {
        Ok(Ok(command)) => Ok(command),
        Ok(Err(_)) => Err(CallError::Closed),
        Err(_) => Err(CallError::Timeout),
    }
}

/// Connections of a client that are tried at most.
const MOST_TRIED: usize = 8;

/// [`call`], by the connection that was heard last; the next one when that is closed: a client
/// that lost a connection is known by it until the server notices.
pub async fn call_newest(
    link: &GatewayLink,
    mut connections: Vec<Connection>,
    code: i32,
    ext: Vec<(String, String)>,
    body: Bytes,
    timeout: Duration,
) -> Result<Command, CallError> {
    newest_first(&mut connections);
    let mut result = Err(CallError::Closed);
    for connection in connections.into_iter().take(MOST_TRIED) {
        let (ext, body) = (ext.clone(), body.clone());
        result = call(link, connection.conn, code, ext, body, timeout).await;
        if !matches!(result, Err(CallError::Closed)) {
            break;
        }
    }
    result
}

/// Each connection once.
fn newest_first(connections: &mut Vec<Connection>) {
    connections.sort_by_key(|c| (Reverse(c.last_update_ms), Reverse(c.conn)));
    let mut seen = BTreeSet::new();
    connections.retain(|c| seen.insert(c.conn));
}

/// Writes a relayed request to its connection and remembers who waits for the answer.
pub fn send_call(conn: &Rc<Conn>, call: ClientCall) {
    let Some(opaque) = conn.expect_answer(call.answer) else {
        return; // Too many unanswered: dropping the sender tells the caller.
    };
    let ext: Vec<(&str, Val<'_>)> = call
        .ext
        .iter()
        .map(|(k, v)| (k.as_str(), Val::Str(v)))
        .collect();
    let header = RequestHeader {
        code: call.code,
        opaque,
        oneway: false,
        remark: None,
        ext: &ext,
    };
    conn.write_soon(|out| {
        out.append(|buf| {
            encode_request_head(buf, HeaderFormat::Json, &header, call.body.len());
        });
        if !call.body.is_empty() {
            out.push(call.body);
        }
    });
}

/// Writes a notice as a one-way request.
pub fn send_notice(conn: &Rc<Conn>, broker_name: &str, notice: &Notice) {
    match notice {
        Notice::MembersChanged { group } => one_way(
            conn,
            code::NOTIFY_CONSUMER_IDS_CHANGED,
            &[("consumerGroup", Val::Str(group))],
            &[],
        ),
        Notice::OffsetsReset {
            group,
            topic,
            offsets,
        } => {
            let body = reset_body(conn.language(), broker_name, topic, offsets);
            let ext = [
                ("topic", Val::Str(topic)),
                ("group", Val::Str(group)),
                ("timestamp", Val::Int(now_ms())),
                ("isForce", Val::Bool(true)),
            ];
            one_way(conn, code::RESET_CONSUMER_CLIENT_OFFSET, &ext, &body);
        }
    }
}

fn one_way(conn: &Rc<Conn>, code: i32, ext: &[(&str, Val<'_>)], body: &[u8]) {
    let opaque = conn.next_opaque();
    let header = RequestHeader {
        code,
        opaque,
        oneway: true,
        remark: None,
        ext,
    };
    conn.write_soon(|out| {
        out.append(|buf| {
            encode_request_head(buf, HeaderFormat::Json, &header, body.len());
            buf.extend_from_slice(body);
        });
    });
}

/// Body of 220: a map with objects as keys, which Java and Go read; an array for C++ and Python.
fn reset_body(
    language: Language,
    broker_name: &str,
    topic: &str,
    offsets: &[(u32, u64)],
) -> Vec<u8> {
    let queue = |queue: &u32| MessageQueue {
        broker_name: broker_name.to_owned(),
        queue_id: *queue as i32,
        topic: topic.to_owned(),
    };
    let entries = offsets
        .iter()
        .map(|(q, o)| (queue(q), i64::try_from(*o).unwrap_or(i64::MAX)));
    let body = ResetOffsetBody {
        offset_table: entries.collect(),
    };
    if language == Language::CPP || language == Language::PYTHON {
        return body.encode_for_cpp();
    }
    body.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_heard_last_is_asked_first_and_each_once() {
        let connection = |conn, last_update_ms| Connection {
            conn: ConnId(conn),
            client_id: "c".to_owned(),
            client_addr: String::new(),
            language: String::new(),
            version: 0,
            last_update_ms,
        };
        let mut all = vec![
            connection(1, 10),
            connection(2, 30),
            connection(1, 20),
            connection(3, 30),
        ];
        newest_first(&mut all);
        let order: Vec<u64> = all.iter().map(|c| c.conn.0).collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[test]
    fn reset_bodies_have_the_form_each_client_reads() {
        let text = |l, o: &[(u32, u64)]| String::from_utf8(reset_body(l, "b", "T", o)).unwrap();
        assert_eq!(
            text(Language::JAVA, &[(0, 7), (1, 8)]),
            r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T"}:7,{"brokerName":"b","queueId":1,"topic":"T"}:8}}"#
        );
        assert_eq!(
            text(Language::CPP, &[(0, 7)]),
            r#"{"offsetTable":[{"brokerName":"b","offset":7,"queueId":0,"topic":"T"}]}"#
        );
        assert_eq!(text(Language::GO, &[]), r#"{"offsetTable":{}}"#);
    }
}
