//! Guards of `actors/shard/machine`.

use super::Guard;

const APPLY: &str = "actors/shard/machine/apply.rs";
const BASE: &str = "actors/shard/machine/base.rs";
const SEGMENTS: &str = "actors/shard/machine/segments.rs";
const TRIM: &str = "actors/shard/machine/trim.rs";

/// See the module text.
pub const GUARDS: &[Guard] = &[
    Guard::new(
        APPLY,
        "an offset is not ahead of its queue",
        "let ahead = o.offset > self.queue(key).next;",
        "let ahead = o.offset > self.queue(key).next && !{out};",
    ),
    Guard::new(
        APPLY,
        "an offset goes back by a reset only",
        "(backwards && !commit.reset)",
        "(backwards && !commit.reset && !{out})",
    ),
    Guard::new(
        APPLY,
        "a message for a topic that is gone is not stored",
        "if !self.topic_names.contains_key(&block.key.topic.0) {",
        "if !self.topic_names.contains_key(&block.key.topic.0) && !{out} {",
    ),
    Guard::new(
        APPLY,
        "a topic's number is never used again",
        "self.counters.next_topic += 1;
                self.put_counters(out);",
        "self.counters.next_topic += 1;
                if !{out} {
                    self.put_counters(out);
                }",
    ),
    Guard::new(
        APPLY,
        "a topic that is there is not made again",
        "if !self.topics.contains_key(&topic.name) {",
        "if !self.topics.contains_key(&topic.name) || {out} {",
    ),
    Guard::new(
        TRIM,
        "the record of a waiting timer stays",
        "if trim.first > self.floor() {",
        "if trim.first > self.floor() && !{out} {",
    )
    .backed_by(&["no segment with a waiting timer is given up"]),
    Guard::new(
        SEGMENTS,
        "no segment with a waiting timer is given up",
        "|| segment.last_index >= floor {",
        "|| segment.last_index >= floor && !{out} {",
    )
    .backed_by(&["the record of a waiting timer stays"]),
    Guard::new(
        SEGMENTS,
        "what is not old enough stays",
        "let expired = segment.max_ts < before_ms;",
        "let expired = segment.max_ts < before_ms || {out};",
    ),
    Guard::new(
        SEGMENTS,
        "what is not too much stays",
        "let too_much = max_bytes > 0 && bytes > max_bytes;",
        "let too_much = max_bytes > 0 && (bytes > max_bytes || {out});",
    ),
    Guard::new(
        BASE,
        "no base is made of rows that are being filled",
        "(!self.filling).then_some(Base {",
        "(!self.filling || {out}).then_some(Base {",
    ),
    Guard::new(
        BASE,
        "a state that is being filled is marked until it is",
        "if !self.is_filling() {
            let key = keys::base::key(self.shard);",
        "if !self.is_filling() || {out} {
            let key = keys::base::key(self.shard);",
    ),
    Guard::new(
        "actors/shard/machine/load.rs",
        "stamps do not go back over a start",
        "m.last_at_ms = m.last_at_ms.max(segment.max_ts);",
        "if !{out} {
            m.last_at_ms = m.last_at_ms.max(segment.max_ts);
        }",
    ),
];
