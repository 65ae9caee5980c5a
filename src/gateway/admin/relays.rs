//! Requests that a broker passes on to a connected client: 307, 309, 221.

use super::super::ctx::Ctx;
use super::super::relay::{self, CallError};
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::Answer;
use crate::actors::group::types::Connection;
use crate::model::Position;
use crate::wire::message::ids::parse_offset_msg_id;
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::Command;
use bytes::Bytes;
use std::time::Duration;

/// How long a client has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Passes a request to its client and the answer back, unread.
pub async fn relay(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let group = match command.code {
        code::GET_CONSUMER_STATUS_FROM_CLIENT => command.req_str("group")?,
        _ => command.req_str("consumerGroup")?,
    };
    let client = command
        .opt_str("clientId")
        .or(command.opt_str("clientAddr"))
        .unwrap_or("");
    let member = find(broker, group, client);
    if member.is_empty() {
        let text = format!("The Consumer <{group}> <{client}> not online");
        return Err(Reply::err(rc::SYSTEM_ERROR, text));
    }
    let body = match command.code {
        code::CONSUME_MESSAGE_DIRECTLY => stored_message(ctx, broker, command).await?,
        _ => command.body.clone(),
    };
    let ext = command
        .ext
        .iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    match relay::call_newest(&ctx.shared().link, member, command.code, ext, body, TIMEOUT).await {
        Ok(answer) => Ok(Reply {
            code: answer.code,
            remark: answer.remark.as_ref().map(|r| r.to_string().into()),
            body: answer.body,
            ..Reply::default()
        }),
        Err(CallError::Timeout) => {
            let text = format!("consumer <{group}> <{client}> Timeout");
            Err(Reply::err(rc::CONSUME_MSG_TIMEOUT, text))
        }
        Err(e @ CallError::Closed) => Err(Reply::failed(e)),
    }
}

/// Connections of the member with this client id; with an empty one, of any member.
fn find(broker: &BrokerSide, group: &str, client: &str) -> Vec<Connection> {
    let Some(members) = broker.groups.members(group) else {
        return Vec::new();
    };
    let all = members.connections.iter();
    all.filter(|c| client.is_empty() || c.client_id == client)
        .cloned()
        .collect()
}

/// The stored message a 309 names; only our own store is asked.
async fn stored_message(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Result<Bytes, Reply> {
    let missing = || Reply::err(rc::SYSTEM_ERROR, "can not find the message by its id");
    let id = command.req_str("msgId")?;
    let (_, offset) = parse_offset_msg_id(id).ok_or_else(missing)?;
    let position = Position::from_physical(offset).ok_or_else(missing)?;
    let shard = broker.shard.clone();
    let record = ctx
        .read(move || shard.read_record(position))
        .await?
        .map_err(Reply::failed)?;
    record.ok_or_else(missing)
}
