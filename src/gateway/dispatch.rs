//! Which code goes where.

use super::admin;
use super::connection::Conn;
use super::ctx::Ctx;
use super::forward::{self, Kept};
use super::reply::{not_supported, Again, Reply};
use super::send::{self, Burst};
use super::shared::BrokerSide;
use super::{clients, namesrv, offsets, pull};
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::Command;
use std::rc::Rc;

/// Handles one request. Sends and pulls at once; everything else as a task of its own. `kept` is
/// its frame, when another node can do it if this one ceases to lead.
pub async fn request(conn: &Rc<Conn>, command: &Command, burst: &mut Burst, kept: Option<Kept>) {
    let shared = conn.shared();
    shared.metrics.request(command.code).requests.inc();
    match (command.code, &shared.broker) {
        (code::SEND_MESSAGE | code::SEND_MESSAGE_V2 | code::SEND_BATCH_MESSAGE, Some(broker)) => {
            let mut ticket = conn.ticket(command);
            ticket.keep(kept);
            send::send(conn, broker, ticket, command, burst).await;
        }
        (code::PULL_MESSAGE | code::LITE_PULL_MESSAGE, Some(broker)) => {
            // What this connection sent before may be what it wants to see.
            burst.submit();
            pull::pull(conn, broker, command);
        }
        (_, broker) => {
            let (broker, command) = (broker.clone(), command.clone());
            burst.submit();
            let mut ticket = conn.ticket(&command);
            ticket.keep(kept);
            let ctx = Ctx { conn: conn.clone() };
            let heartbeat = (command.code == code::HEART_BEAT).then(|| conn.heartbeat());
            tokio::task::spawn_local(async move {
                let answer = answer(&ctx, broker.as_ref(), &command).await;
                let mut reply = answer.unwrap_or_else(|error| error);
                if broker.is_some() && !forward::is_current(&ctx.conn, command.code) {
                    // Another may lead since the answer was made.
                    let why = "service not available now: this node may not lead any more";
                    reply = Reply::err(rc::SERVICE_NOT_AVAILABLE, why);
                    reply.again = Again::NotBegun;
                }
                ticket.answer(reply);
                drop(heartbeat);
            });
        }
    }
}

async fn answer(ctx: &Ctx, broker: Option<&BrokerSide>, command: &Command) -> Result<Reply, Reply> {
    if namesrv::handles(command.code) {
        let registry = ctx.shared().registry.clone();
        let registry = registry.ok_or_else(|| not_supported(command.code))?;
        return namesrv::answer(&ctx.conn, &registry, command).await;
    }
    let Some(broker) = broker else {
        return Err(not_supported(command.code));
    };
    match command.code {
        code::QUERY_CONSUMER_OFFSET => offsets::query(ctx, broker, command).await,
        code::UPDATE_CONSUMER_OFFSET => offsets::update(ctx, broker, command).await,
        code::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search(ctx, broker, command).await,
        code::GET_MAX_OFFSET => offsets::max(ctx, broker, command),
        code::GET_MIN_OFFSET => offsets::min(ctx, broker, command),
        code::GET_EARLIEST_MSG_STORETIME => offsets::earliest(ctx, broker, command).await,
        code::VIEW_MESSAGE_BY_ID => offsets::view(ctx, broker, command).await,
        code::HEART_BEAT => {
            let answer = clients::heartbeat(ctx, broker, command).await;
            ctx.shared().heard.notify_waiters();
            answer
        }
        code::UNREGISTER_CLIENT => clients::unregister(ctx, broker, command).await,
        code::GET_CONSUMER_LIST_BY_GROUP => clients::consumer_list(broker, command),
        code::LOCK_BATCH_MQ => clients::lock(ctx, broker, command).await,
        code::UNLOCK_BATCH_MQ => clients::unlock(ctx, broker, command).await,
        code::CHECK_CLIENT_CONFIG => clients::check_config(command),
        code::CONSUMER_SEND_MSG_BACK => send::back::send_back(ctx, broker, command).await,
        code::SEND_REPLY_MESSAGE | code::SEND_REPLY_MESSAGE_V2 => {
            send::reply_message::reply_message(ctx, broker, command).await
        }
        code::END_TRANSACTION => Err(Reply::err(rc::SYSTEM_ERROR, send::NO_TRANSACTIONS)),
        _ => admin::answer(ctx, broker, command).await,
    }
}
