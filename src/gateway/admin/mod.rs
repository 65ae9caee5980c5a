//! Administration codes of a broker.

mod attributes;
mod figures;
mod groups;
mod pages;
mod relays;
mod reset;
mod runtime;
mod stats;
mod topics;

use super::ctx::Ctx;
use super::reply::{not_supported, Reply};
use super::shared::BrokerSide;
use crate::routing::DataVersion;
use crate::wire::remoting::code::request as code;
use crate::wire::remoting::Command;

pub use runtime::update as update_config;
pub use topics::wrapper as topic_wrapper;

type Answer = Result<Reply, Reply>;

/// Version of this broker's topic and group tables.
pub fn data_version(broker: &BrokerSide, started_ms: i64) -> DataVersion {
    let counter = i64::try_from(broker.shard.meta().version()).unwrap_or(i64::MAX);
    let status = broker.shard.status();
    DataVersion {
        // Name servers let a later one replace an earlier one's address, not the reverse.
        state_version: match broker.clustered {
            true => i64::try_from(status.term()).unwrap_or(i64::MAX),
            false => 0,
        },
        timestamp: started_ms,
        counter,
    }
}

/// Answers an administration request.
pub async fn answer(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    match command.code {
        code::UPDATE_AND_CREATE_TOPIC => topics::create(ctx, broker, command).await,
        code::UPDATE_AND_CREATE_TOPIC_LIST => topics::create_list(ctx, broker, command).await,
        code::DELETE_TOPIC_IN_BROKER => topics::delete(ctx, broker, command).await,
        code::GET_TOPIC_CONFIG => topics::get(broker, command),
        code::GET_ALL_TOPIC_CONFIG => topics::all(ctx, broker, command).await,
        code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => Ok(topics::system(ctx, broker)),
        code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::create(ctx, broker, command).await,
        code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            groups::create_list(ctx, broker, command).await
        }
        code::DELETE_SUBSCRIPTIONGROUP => groups::delete(ctx, broker, command).await,
        code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(ctx, broker, command).await,
        code::GET_SUBSCRIPTIONGROUP_CONFIG => groups::get(broker, command),
        code::GET_CONSUMER_CONNECTION_LIST => groups::consumers(broker, command),
        code::GET_PRODUCER_CONNECTION_LIST => groups::producers(broker, command),
        code::GET_ALL_PRODUCER_INFO => Ok(groups::all_producers(broker)),
        code::GET_TOPIC_STATS_INFO => stats::topic(ctx, broker, command).await,
        code::GET_CONSUME_STATS => stats::consume(ctx, broker, command).await,
        code::QUERY_TOPIC_CONSUME_BY_WHO => stats::consumed_by(ctx, broker, command).await,
        code::QUERY_CONSUME_TIME_SPAN => stats::time_span(ctx, broker, command).await,
        code::VIEW_BROKER_STATS_DATA => figures::traffic(ctx, command),
        code::GET_BROKER_CONSUME_STATS => stats::of_all_groups(ctx, broker, command).await,
        code::QUERY_TOPICS_BY_CONSUMER => stats::topics_of_group(broker, command).await,
        code::QUERY_SUBSCRIPTION_BY_CONSUMER => groups::subscription(broker, command),
        code::INVOKE_BROKER_TO_RESET_OFFSET => reset::reset(ctx, broker, command).await,
        code::GET_CONSUMER_RUNNING_INFO
        | code::CONSUME_MESSAGE_DIRECTLY
        | code::GET_CONSUMER_STATUS_FROM_CLIENT => relays::relay(ctx, broker, command).await,
        code::GET_BROKER_RUNTIME_INFO => Ok(runtime::info(ctx, broker)),
        code::GET_BROKER_CONFIG => runtime::config(ctx, broker),
        code::UPDATE_BROKER_CONFIG => runtime::update(&ctx.shared().config, &command.body),
        // Nothing of the kind is ever left over: an index goes with its messages and with its topic, and what
        // retention may drop goes within 10 s.
        code::CLEAN_EXPIRED_CONSUMEQUEUE
        | code::CLEAN_UNUSED_TOPIC
        | code::DELETE_EXPIRED_COMMITLOG => Ok(Reply::ok()),
        other => Err(not_supported(other)),
    }
}
