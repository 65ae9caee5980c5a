//! VIEW_BROKER_STATS_DATA 315: what went into a topic, or from it to a group, over the last minute, hour and day.

use super::super::ctx::Ctx;
use super::super::reply::Reply;
use super::super::shared::Shared;
use super::super::traffic::{Figure, Of, Window};
use super::Answer;
use crate::actors::clock::boot_ms;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::BrokerStats;
use crate::wire::remoting::{body, Command};
use serde::Serialize;

#[derive(Serialize)]
struct Item {
    sum: u64,
    tps: f64,
    /// Messages of a call: calls are not counted here.
    avgpt: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    stats_minute: Item,
    stats_hour: Item,
    stats_day: Item,
}

const MESSAGES: Of = |amount| amount.messages;
const BYTES: Of = |amount| amount.bytes;

/// Handles 315.
pub fn traffic(ctx: &Ctx, command: &Command) -> Answer {
    let request = BrokerStats::parse(command)?;
    let (name, key) = (request.stats_name, request.stats_key);
    let in_window = |window| figure(ctx.shared(), name, key, window);
    let item = |window| {
        let figure = in_window(window).ok_or_else(|| {
            let text = format!("The stats <{name}> <{key}> not exist");
            Reply::err(rc::SYSTEM_ERROR, text)
        })?;
        Ok::<_, Reply>(Item {
            sum: figure.sum,
            tps: figure.tps,
            avgpt: 0.0,
        })
    };
    let stats = Stats {
        stats_minute: item(Window::Minute)?,
        stats_hour: item(Window::Hour)?,
        stats_day: item(Window::Day)?,
    };
    Ok(Reply::body(body::encode(&stats)))
}

/// One of stock's figures; `None` when nothing was counted, or when it has no counterpart here.
fn figure(shared: &Shared, name: &str, key: &str, window: Window) -> Option<Figure> {
    let of = if name.ends_with("_SIZE") {
        BYTES
    } else {
        MESSAGES
    };
    match name {
        "TOPIC_PUT_NUMS" | "TOPIC_PUT_SIZE" => shared.topic_put(key, window, of),
        "GROUP_GET_NUMS" | "GROUP_GET_SIZE" => {
            let (topic, group) = key.split_once('@')?;
            shared.traffic.got(topic, group, window, boot_ms(), of)
        }
        _ => None,
    }
}
