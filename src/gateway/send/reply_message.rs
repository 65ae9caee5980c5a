//! Request-reply: 324 and 325 carry a consumer's reply, which goes to the requester's own
//! connection as 326 (remoting-client §2.3).

use super::super::ctx::Ctx;
use super::super::relay::{self, CallError};
use super::super::reply::Reply;
use super::super::shared::{now_ms, BrokerSide};
use super::check;
use crate::actors::group::types::Connection;
use crate::wire::message::properties::{self, names as prop, Present};
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::requests::SendRequest;
use crate::wire::remoting::Command;
use std::time::Duration;

/// How long the requester has to take the reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Handles 324 and 325.
pub async fn reply_message(
    ctx: &Ctx,
    broker: &BrokerSide,
    command: &Command,
) -> Result<Reply, Reply> {
    let request = SendRequest::parse(command)?;
    check::topic_name(request.topic)?;
    let max_body = ctx.shared().config.max_message_size as usize;
    let props = request.properties.as_bytes();
    check::content(&request, Present::scan(props), command.body.len(), max_body)?;
    let Some(client) = properties::get(props, prop::REPLY_TO_CLIENT) else {
        return Err(Reply::err(
            rc::SYSTEM_ERROR,
            "REPLY_TO_CLIENT property is null",
        ));
    };
    let failed = |why: &str| {
        let text = format!("push reply message to requester fail, {client}: {why}");
        Err(Reply::err(rc::SYSTEM_ERROR, text))
    };
    let requester = find(broker, client);
    if requester.is_empty() {
        return failed("channel of the requester not found");
    }
    let mut pushed = Vec::with_capacity(props.len() + 40);
    let time = now_ms().to_string();
    let own = [(prop::PUSH_REPLY_TIME, time.as_str())];
    properties::rewrite(props, &[prop::PUSH_REPLY_TIME], &own, &mut pushed);
    let text = |s: &str| s.to_owned();
    let ext = [
        ("producerGroup", text(request.producer_group)),
        ("topic", text(request.topic)),
        ("defaultTopic", text(request.default_topic)),
        (
            "defaultTopicQueueNums",
            request.default_topic_queue_nums.to_string(),
        ),
        ("queueId", request.queue_id.to_string()),
        ("sysFlag", request.sys_flag.to_string()),
        ("bornTimestamp", request.born_timestamp.to_string()),
        ("flag", request.flag.to_string()),
        ("properties", String::from_utf8_lossy(&pushed).into_owned()),
        ("reconsumeTimes", request.reconsume_times.to_string()),
        ("unitMode", request.unit_mode.to_string()),
        ("bornHost", ctx.conn.peer.to_string()),
        (
            "storeHost",
            ctx.shared().store_host(ctx.conn.local_ip()).to_string(),
        ),
        ("storeTimestamp", time.clone()),
    ];
    let ext = ext.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let answer = relay::call_newest(
        &ctx.shared().link,
        requester,
        code::PUSH_REPLY_MESSAGE_TO_CLIENT,
        ext,
        command.body.clone(),
        TIMEOUT,
    );
    match answer.await {
        Ok(answer) if answer.code == rc::SUCCESS => Ok(Reply::ok()
            .with("msgId", "0")
            .with("queueId", i64::from(request.queue_id))
            .with("queueOffset", 0i64)),
        Ok(answer) => failed(
            answer
                .remark
                .as_deref()
                .unwrap_or("the requester refused it"),
        ),
        Err(e @ (CallError::Closed | CallError::Timeout)) => failed(&e.to_string()),
    }
}

/// The client's connections: an old one may be known still.
fn find(broker: &BrokerSide, client_id: &str) -> Vec<Connection> {
    let producers = broker.groups.producers();
    let all = producers.into_values().flatten();
    all.filter(|c| c.client_id == client_id).collect()
}
