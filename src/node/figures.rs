//! What a replica went through, as the view of a node shows it.

use super::scrub::Scrubs;
use crate::actors::shard::damage::DamageFigures;
use crate::actors::shard::status::Losses;
use serde_json::{json, Value};

/// What a replica lost.
pub fn losses(l: &Losses) -> Value {
    json!({
        "unclean_recoveries": l.unclean_recoveries, "unclean_kept": l.unclean_kept,
        "unclean_last_lost": l.unclean_last_lost,
        "acked_truncated_entries": l.acked_truncated_entries,
        "acked_truncated_messages": l.acked_truncated_messages,
        "acked_truncated_last": l.acked_truncated_last,
    })
}

/// What is bad in its stored log.
pub fn damage(d: &DamageFigures) -> Value {
    json!({
        "bad_entries": d.found, "mended": d.mended, "lost": d.lost, "last_bad": d.last,
        "skipped_messages": d.skipped, "lost_delayed": d.lost_delayed,
        "scrubbed_bytes": d.scrubbed, "scrubs": d.scrubs,
    })
}

/// Where the scrub of its stored log is.
pub fn scrub(scrubs: Option<&Scrubs>, name: &str) -> Value {
    let places = scrubs.map(|scrubs| scrubs.places()).unwrap_or_default();
    let place = places.into_iter().find(|(shard, ..)| shard == name);
    place.map_or(
        Value::Null,
        |(_, at_once, next)| json!({"at_once": at_once, "next": next}),
    )
}
