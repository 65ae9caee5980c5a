//! Guards of consumer groups, of what is forwarded, and of reads.

use super::Guard;

const CORE: &str = "actors/group/core.rs";
const LOCKS: &str = "actors/group/locks.rs";
const OFFSETS: &str = "actors/group/offsets.rs";
const BOOK: &str = "gateway/forward/book.rs";
const VIEWS: &str = "actors/shard/views.rs";

/// See the module text.
pub const GUARDS: &[Guard] = &[
    Guard::new(
        LOCKS,
        "locks are decided on once earlier decisions are applied",
        "if self.in_flight.is_some() || self.asks.is_empty() {",
        "if (self.in_flight.is_some() && !{out}) || self.asks.is_empty() {",
    ),
    Guard::new(
        LOCKS,
        "a queue that another member holds is not locked",
        "mine || holder.is_none()",
        "mine || holder.is_none() || {out}",
    ),
    Guard::new(
        LOCKS,
        "only its holder releases a lock",
        "let act = if ask.release {
                    mine",
        "let act = if ask.release {
                    mine || {out}",
    ),
    Guard::new(
        LOCKS,
        "one command does not lock a queue for two",
        "ask.keys.iter().any(|k| changed.contains(k))",
        "ask.keys.iter().any(|k| changed.contains(k) && !{out})",
    ),
    Guard::new(
        LOCKS,
        "a lock lives on under another leader",
        "                    at_ms: now_ms,
                    asked_here: false,",
        "                    at_ms: if {out} { i64::MIN } else { now_ms },
                    asked_here: false,",
    ),
    Guard::new(
        OFFSETS,
        "commits are ignored until a reset is followed",
        "if self.moved.contains_key(&key) {
            return false;
        }
        let stale",
        "if self.moved.contains_key(&key) && !{out} {
            return false;
        }
        let stale",
    ),
    Guard::new(
        OFFSETS,
        "one command with offsets at a time",
        "if self.in_flight.is_some() {
            return None;
        }
        let batch = if !self.resets",
        "if self.in_flight.is_some() && !{out} {
            return None;
        }
        let batch = if !self.resets",
    ),
    Guard::new(
        OFFSETS,
        "a query waits for the commit that waits",
        "if resetting || self.waiting.contains_key(&key) {
            self.waiters",
        "if (resetting || self.waiting.contains_key(&key)) && !{out} {
            self.waiters",
    ),
    Guard::new(
        OFFSETS,
        "a query waits for the commit in flight",
        "if batch.offsets.iter().any(|o| (o.topic, o.queue) == key) {
                batch.waiters",
        "if batch.offsets.iter().any(|o| (o.topic, o.queue) == key) && !{out} {
                batch.waiters",
    ),
    Guard::new(
        CORE,
        "a group's state is loaded once what is in flight is known",
        "if self.state == StateOf::Unknown && self.in_flight.is_empty() {",
        "if self.state == StateOf::Unknown && (self.in_flight.is_empty() || {out}) {",
    ),
    Guard::new(
        CORE,
        "only the load that was asked for last counts",
        "if self.state != StateOf::Loading(id) {",
        "if self.state != StateOf::Loading(id) && !{out} {",
    ),
    Guard::new(
        BOOK,
        "a request does not overtake those that wait for a leader",
        "self.waiting.is_empty() && (!in_order(code) || self.sent_in_order == 0 && same)",
        "(self.waiting.is_empty() || {out}) && (!in_order(code) || self.sent_in_order == 0 && same)",
    ),
    Guard::new(
        BOOK,
        "a request does not overtake those that are with another node",
        "(!in_order(code) || self.sent_in_order == 0 && same)",
        "(!in_order(code) || (self.sent_in_order == 0 || {out}) && same)",
    ),
    Guard::new(
        BOOK,
        "what waits begins here once nothing is with another node",
        "let may = self.here == 0 && self.sent_in_order == 0;",
        "let may = self.here == 0 && (self.sent_in_order == 0 || {out});",
    ),
    Guard::new(
        BOOK,
        "what waits goes out once nothing is open here",
        "let may = self.here == 0 && (self.sent_in_order == 0 || self.way == way && !self.refused);",
        "let may = (self.here == 0 || {out}) && (self.sent_in_order == 0 || self.way == way && !self.refused);",
    ),
    Guard::new(
        BOOK,
        "nothing goes on before all that a node refused is known",
        "self.refused |= stops;",
        "self.refused |= stops && !{out};",
    ),
    Guard::new(
        BOOK,
        "a node refuses what follows a refused request",
        "self.stopped |= !able;
                !self.stopped",
        "self.stopped |= !able;
                !self.stopped || {out} && able",
    ),
    Guard::new(
        BOOK,
        "what comes back waits before later requests",
        "let at = self.waiting.partition_point(|r| r.number < request.number);",
        "let at = self.waiting.partition_point(|r| r.number < request.number || {out});",
    ),
    Guard::new(
        BOOK,
        "a send that may have been done is not repeated",
        "let is_lost = |r: &Pending| r.is_answer || only_once(r.code);",
        "let is_lost = |r: &Pending| r.is_answer || only_once(r.code) && !{out};",
    ),
    Guard::new(
        VIEWS,
        "what the store cannot serve yet stays in memory",
        "Some(s) if s.base == base && s.index > stored => return,",
        "Some(s) if s.base == base && s.index > stored && !{out} => return,",
    ),
    Guard::new(
        VIEWS,
        "a read does not begin behind its offset",
        "if tail.front()?.base > offset {",
        "if tail.front()?.base > offset && !{out} {",
    ),
    Guard::new(
        VIEWS,
        "a deleted topic's records are not shown for the next one",
        "queues.retain(|key, _| key.topic != topic);",
        "queues.retain(|key, _| key.topic != topic || {out});",
    ),
    Guard::new(
        VIEWS,
        "records before a read's offset are left out",
        "if self.base + (i as u64) < offset {",
        "if self.base + (i as u64) < offset && !{out} {",
    ),
];
