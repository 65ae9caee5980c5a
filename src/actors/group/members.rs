//! Members and subscriptions of one consumer group (remoting-client §2.6, §2.7, §9.4). Pure.

use super::types::*;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A member that sends no heartbeat for this long is gone, ms.
pub const MEMBER_TIMEOUT_MS: i64 = 120_000;

/// A member whose connection went with another node is kept for this long, ms: clients send a
/// heartbeat every 30 s, and this one has not left (decision 16).
pub const LOST_MS: i64 = 40_000;

/// What a change of members asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The published snapshot is stale.
    pub publish: bool,
    /// Connections or topics changed and the group is not broadcasting: tell all members.
    pub notify: bool,
    /// Other messages of a topic are wanted than before.
    pub filters: bool,
}

/// What the subscriptions of a heartbeat change.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// The set of topics.
    topics: bool,
    /// The version of a subscription.
    versions: bool,
    /// Which messages of a topic are wanted.
    filters: bool,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Members {
    by_conn: BTreeMap<ConnId, Connection>,
    /// Those of them that are gone though their client is not, as far as is known, and until when.
    lost: BTreeMap<ConnId, i64>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    consume_type: ConsumeType,
    message_model: MessageModel,
    start_from: StartFrom,
    /// Last heartbeat V2 fingerprint of any member; 0 when none was seen.
    fingerprint: i32,
}

impl Members {
    /// Nobody is online.
    pub fn is_empty(&self) -> bool {
        self.by_conn.is_empty()
    }

    /// Connections of all members.
    pub fn conns(&self) -> Vec<ConnId> {
        self.by_conn.keys().copied().collect()
    }

    /// Members pull where they like (pull and lite-pull consumers).
    pub fn owns_positions(&self) -> bool {
        !self.by_conn.is_empty() && self.consume_type == ConsumeType::Actively
    }

    /// The connection is a member.
    pub fn contains(&self, conn: ConnId) -> bool {
        self.by_conn.contains_key(&conn)
    }

    /// The subscription to a topic.
    pub fn subscription(&self, topic: &str) -> Option<&Arc<Subscription>> {
        self.subscriptions.get(topic)
    }

    /// Takes a heartbeat in, whole or not at all.
    pub fn heartbeat(
        &mut self,
        beat: MemberHeartbeat,
        limits: &GroupLimits,
        now_ms: i64,
    ) -> Result<(HeartbeatReply, Change), Refusal> {
        check(&beat, limits)?;
        let known = self.by_conn.get(&beat.conn);
        if known.is_none() && self.by_conn.len() >= limits.members {
            return Err(Refusal::Invalid(format!(
                "the group has {} members, no more are possible",
                limits.members
            )));
        }
        let rejoined = known.is_none_or(|c| c.client_id != beat.client_id);
        let found = self.lost_of(&beat.client_id);
        let described = known.is_none_or(|c| {
            c.client_addr != beat.client_addr
                || c.language != beat.language
                || c.version != beat.version
        });
        let fields = (beat.consume_type, beat.message_model, beat.start_from);
        let mut publish = rejoined
            || described
            || !found.is_empty()
            || fields != (self.consume_type, self.message_model, self.start_from);
        (self.consume_type, self.message_model, self.start_from) = fields;
        let at = beat.conn;
        self.by_conn.insert(
            beat.conn,
            Connection {
                conn: beat.conn,
                client_id: beat.client_id,
                client_addr: beat.client_addr,
                language: beat.language,
                version: beat.version,
                last_update_ms: now_ms,
            },
        );
        for conn in found {
            self.lost.remove(&conn);
            if conn != at {
                self.by_conn.remove(&conn);
            }
        }
        let mut told = Told::default();
        if !beat.without_sub {
            told = self.subscribe(beat.subscriptions);
            publish |= told.topics || told.versions;
        }
        let sub_changed = beat.fingerprint != 0
            && (self.fingerprint != beat.fingerprint
                || (beat.without_sub && self.subscriptions.is_empty()));
        // A short heartbeat must not count as the full one that is still missing.
        if beat.fingerprint != 0 && !beat.without_sub {
            self.fingerprint = beat.fingerprint;
        }
        let notify = (rejoined || told.topics) && self.message_model != MessageModel::Broadcasting;
        let change = Change {
            publish,
            notify,
            filters: told.filters,
        };
        Ok((HeartbeatReply { sub_changed }, change))
    }

    /// Replaces the subscriptions.
    fn subscribe(&mut self, subscriptions: Vec<Subscription>) -> Told {
        let mut told = Told::default();
        let mut listed: Vec<String> = Vec::with_capacity(subscriptions.len());
        for sub in subscriptions {
            listed.push(sub.topic.clone());
            match self.subscriptions.get_mut(&sub.topic) {
                None => {
                    (told.topics, told.filters) = (true, true);
                    self.subscriptions.insert(sub.topic.clone(), Arc::new(sub));
                }
                Some(old) if sub.sub_version > old.sub_version => {
                    told.versions = true;
                    told.filters |= !sub.same_filter(old);
                    *old = Arc::new(sub);
                }
                Some(_) => {}
            }
        }
        listed.sort_unstable();
        let before = self.subscriptions.len();
        self.subscriptions
            .retain(|topic, _| listed.binary_search(topic).is_ok());
        told.topics |= self.subscriptions.len() != before;
        told
    }

    /// A member unregisters: only its own connection counts, and only under its own id.
    pub fn unregister(&mut self, conn: ConnId, client_id: &str) -> Change {
        match self.by_conn.get(&conn) {
            Some(c) if c.client_id == client_id => {
                let mut gone = self.lost_of(client_id);
                gone.push(conn);
                self.remove(&gone)
            }
            _ => Change::default(),
        }
    }

    /// The connection is closed.
    pub fn conn_closed(&mut self, conn: ConnId) -> Change {
        self.remove(&[conn])
    }

    /// The connection went with the node that had it: its client may well be there. It stays a
    /// member until the client is heard by another connection, for [`LOST_MS`] at most.
    pub fn conn_lost(&mut self, conn: ConnId, now_ms: i64) -> Change {
        let Some(lost) = self.by_conn.get(&conn) else {
            return Change::default();
        };
        let elsewhere = |c: &Connection| {
            c.conn != conn && c.client_id == lost.client_id && !self.lost.contains_key(&c.conn)
        };
        if self.by_conn.values().any(elsewhere) {
            return self.remove(&[conn]);
        }
        self.lost.insert(conn, now_ms.saturating_add(LOST_MS));
        Change::default()
    }

    /// Lost connections of a client.
    fn lost_of(&self, client_id: &str) -> Vec<ConnId> {
        let of_client = |conn: &&ConnId| {
            let at = self.by_conn.get(*conn);
            at.is_some_and(|c| c.client_id == client_id)
        };
        self.lost.keys().filter(of_client).copied().collect()
    }

    /// Drops members without a heartbeat for [`MEMBER_TIMEOUT_MS`], and lost ones in time.
    pub fn expire(&mut self, now_ms: i64) -> (Vec<ConnId>, Change) {
        let gone: Vec<ConnId> = self
            .by_conn
            .values()
            .filter(|c| {
                let lost = self.lost.get(&c.conn);
                now_ms.saturating_sub(c.last_update_ms) > MEMBER_TIMEOUT_MS
                    || lost.is_some_and(|until| *until <= now_ms)
            })
            .map(|c| c.conn)
            .collect();
        let change = self.remove(&gone);
        (gone, change)
    }

    /// Forgets everybody (the group was deleted).
    pub fn clear(&mut self) -> Change {
        let all = self.conns();
        self.remove(&all)
    }

    fn remove(&mut self, conns: &[ConnId]) -> Change {
        let before = self.by_conn.len();
        for conn in conns {
            self.by_conn.remove(conn);
            self.lost.remove(conn);
        }
        if self.by_conn.len() == before {
            return Change::default();
        }
        let notify = self.message_model != MessageModel::Broadcasting && !self.by_conn.is_empty();
        if self.by_conn.is_empty() {
            // The last one left: the registration is dropped.
            *self = Self::default();
        }
        Change {
            publish: true,
            notify,
            filters: false,
        }
    }

    /// What connections and admin tools see.
    pub fn snapshot(&self) -> GroupMembers {
        let mut client_ids: Vec<String> =
            self.by_conn.values().map(|c| c.client_id.clone()).collect();
        client_ids.sort_unstable();
        client_ids.dedup();
        GroupMembers {
            connections: self.by_conn.values().cloned().collect(),
            client_ids,
            subscriptions: self.subscriptions.clone(),
            consume_type: self.consume_type,
            message_model: self.message_model,
            start_from: self.start_from,
        }
    }
}

fn check(beat: &MemberHeartbeat, limits: &GroupLimits) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::Invalid(text));
    if beat.client_id.is_empty() {
        return refuse("the client id is empty".to_owned());
    }
    if beat.client_id.len() > limits.client_id_bytes {
        return refuse(format!(
            "the client id has more than {} bytes",
            limits.client_id_bytes
        ));
    }
    if beat.without_sub {
        return Ok(());
    }
    if beat.subscriptions.len() > limits.subscriptions_per_heartbeat {
        return refuse(format!(
            "more than {} subscriptions in a heartbeat",
            limits.subscriptions_per_heartbeat
        ));
    }
    for sub in &beat.subscriptions {
        if sub.topic.is_empty() || sub.topic.len() > 255 {
            return refuse("a subscription's topic is empty or has more than 255 bytes".to_owned());
        }
        let tag_bytes: usize = sub.tags.iter().map(String::len).sum();
        if sub.sub_string.len() > limits.expression_bytes
            || tag_bytes > limits.expression_bytes
            || sub.codes.len() > limits.expression_bytes
            || sub.tags.len() > limits.expression_bytes
            || sub.expression_type.len() > 64
        {
            return refuse(format!(
                "a subscription's expression has more than {} bytes",
                limits.expression_bytes
            ));
        }
    }
    Ok(())
}
