//! The shell of a node's consumer groups: runs the product's cores and does what they ask for, as the actors
//! and their directory do in the product.

use super::seen::{GroupSeen, Time};
use super::{Told, NAMES, SPEED};
use crate::defects::Planted;
use crate::schedule::{Event, Mail};
use crate::seen::Seen;
use crate::sim::Sim;
use std::collections::{BTreeMap, BTreeSet};
use troupemq::actors::group::core::{Answer, Effect, GroupCore, Request};
use troupemq::actors::group::offsets::{Key, COALESCE_MS};
use troupemq::actors::group::{GroupLimits, MemberHeartbeat};
use troupemq::actors::link::{ConnId, Notice};
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::shard::handle::{GroupState, QueueBounds};
use troupemq::model::command::MetaOp;
use troupemq::model::outcome::Refusal;
use troupemq::model::{GroupId, QueueKey, TopicId};

/// Proposals of groups have numbers from here on; below are those of clients.
pub const IDS: u64 = 1 << 40;
/// Ticks of the node between two looks for silent members: 10 s by the groups' clock.
const SCAN_TICKS: u64 = 5;

/// What comes to a group's actor.
#[derive(Debug, Clone)]
pub enum GroupMail {
    Heartbeat {
        beat: MemberHeartbeat,
        request: u64,
    },
    Unregister {
        conn: ConnId,
        client_id: String,
        request: u64,
    },
    ConnClosed(ConnId),
    Commit {
        key: Key,
        offset: i64,
        bounds: QueueBounds,
        request: Option<u64>,
    },
    ResetDone {
        key: Key,
        offset: u64,
    },
    Request {
        what: Request,
        request: u64,
    },
    /// This node begins or ceases to serve.
    Closed,
    Tick,
    Flush,
    /// The shard's answers.
    Done {
        id: u64,
        result: Result<u64, Refusal>,
    },
    Loaded {
        id: u64,
        result: Result<GroupState, Refusal>,
    },
}

impl GroupMail {
    /// A handle sent it: it keeps the group awake.
    fn is_of_handle(&self) -> bool {
        !matches!(
            self,
            Self::Tick | Self::Flush | Self::Done { .. } | Self::Loaded { .. }
        )
    }
}

#[derive(Debug)]
struct Actor {
    core: GroupCore,
    /// The time of serving that it belongs to.
    epoch: u64,
    flush_armed: bool,
    /// Mail of handles under way.
    mail: u64,
    /// Requests to be answered.
    waits: BTreeSet<u64>,
}

/// See the module text; groups are numbers of [`NAMES`].
#[derive(Debug, Default)]
pub struct Groups {
    epoch: u64,
    awake: BTreeMap<usize, u64>,
    actors: BTreeMap<(usize, u64), Actor>,
    next: u64,
    /// Group, actor and number there of each proposal under way.
    proposals: BTreeMap<u64, (usize, u64, u64)>,
    next_proposal: u64,
    /// What pulls are redirected by, as published.
    resets: BTreeMap<(usize, Key), u64>,
    /// Client ids, as published.
    members: BTreeMap<usize, Vec<String>>,
}

impl Sim {
    /// The clock of the groups on the node here, ms. It runs faster than the world's, so that a life is long
    /// for them.
    pub(crate) fn groups_ms(&self) -> i64 {
        self.rhythm().local_ms(self.mono_ms() * SPEED)
    }

    fn groups(&mut self) -> Option<&mut Groups> {
        self.node.as_mut().map(|node| &mut node.groups)
    }

    /// The time of serving on the node here.
    pub(crate) fn serving_time(&self) -> Time {
        let epoch = self.node.as_ref().map_or(0, |node| node.groups.epoch);
        (self.here(), self.life, epoch)
    }

    /// To a group, which is woken when it sleeps.
    pub(crate) fn send_group(&mut self, group: usize, mail: GroupMail) {
        let now_ms = self.groups_ms();
        let Some(groups) = self.groups() else { return };
        if !groups.awake.contains_key(&group) {
            groups.next += 1;
            let actor = Actor {
                core: GroupCore::new(NAMES[group], GroupLimits::default(), now_ms),
                epoch: groups.epoch,
                flush_armed: false,
                mail: 0,
                waits: BTreeSet::new(),
            };
            groups.actors.insert((group, groups.next), actor);
            groups.awake.insert(group, groups.next);
            self.counters.groups_awake += 1;
        }
        self.send_awake_group(group, mail);
    }

    /// To a group if it is awake.
    pub(crate) fn send_awake_group(&mut self, group: usize, mail: GroupMail) {
        let Some(groups) = self.groups() else { return };
        let Some(life) = groups.awake.get(&group).copied() else {
            return;
        };
        if let Some(actor) = groups.actors.get_mut(&(group, life)) {
            actor.mail += u64::from(mail.is_of_handle());
        }
        self.post(Mail::Group(group, life, Box::new(mail)));
    }

    /// This node begins or ceases to serve: groups remember what was known before.
    pub(crate) fn groups_change(&mut self) {
        let epoch = self.node.as_ref().map_or(0, |node| node.shard.epoch());
        let keeps = self.defect == Some(Planted::GroupsKept);
        let Some(groups) = self.groups() else { return };
        groups.epoch = epoch;
        if keeps {
            return;
        }
        groups.resets.clear();
        groups.members.clear();
        for (group, life) in std::mem::take(&mut groups.awake) {
            self.post(Mail::Group(group, life, Box::new(GroupMail::Closed)));
        }
    }

    /// A tick of the node here.
    pub(crate) fn groups_tick(&mut self) {
        if self.plan.members == 0 || !self.ticks.is_multiple_of(SCAN_TICKS) {
            return;
        }
        for group in 0..NAMES.len() {
            self.send_awake_group(group, GroupMail::Tick);
        }
    }

    /// An actor takes its next mail.
    pub(crate) fn group_mail(&mut self, group: usize, life: u64, mail: GroupMail) {
        let now_ms = self.groups_ms();
        let id = self.view.groups.get(NAMES[group]).copied().map(GroupId);
        let time = self.serving_time();
        let keeps = self.defect == Some(Planted::MemberKept);
        let early = self.defect == Some(Planted::CommitToldEarly);
        let Some(groups) = self.groups() else { return };
        let Some(actor) = groups.actors.get_mut(&(group, life)) else {
            // It slept or ended: nobody else answers.
            return self.nobody_home(mail);
        };
        let mut out = Vec::new();
        let mut reply = None;
        let mut seen = None;
        actor.mail -= u64::from(mail.is_of_handle());
        if mail.is_of_handle() || matches!(mail, GroupMail::Tick) {
            actor.core.identify(id, &mut out);
        }
        // Whoever belongs to an earlier time of serving says nothing to those of this one.
        let is_of_now = actor.epoch == time.2;
        match mail {
            GroupMail::Heartbeat { beat, request } => {
                let (client, conn) = (beat.client_id.clone(), beat.conn.0);
                let answer = actor.core.heartbeat(beat, now_ms, &mut out);
                seen = answer.is_ok().then_some(GroupSeen::Beat {
                    time,
                    group,
                    client,
                    conn,
                    now_ms,
                });
                reply = Some((request, Told::Beat(answer.is_ok())));
            }
            GroupMail::Unregister {
                conn,
                client_id,
                request,
            } => {
                actor.core.unregister(conn, &client_id, now_ms, &mut out);
                seen = Some(GroupSeen::Gone {
                    time,
                    group,
                    conn: conn.0,
                });
                reply = Some((request, Told::Left));
            }
            GroupMail::ConnClosed(conn) => {
                seen = Some(GroupSeen::Gone {
                    time,
                    group,
                    conn: conn.0,
                });
                actor.core.conn_closed(conn, now_ms, &mut out);
            }
            GroupMail::Commit {
                key,
                offset,
                bounds,
                request,
            } => {
                let told = request.filter(|_| early);
                let left = request.filter(|_| !early);
                actor.waits.extend(left);
                actor
                    .core
                    .commit(key, offset, bounds, left, now_ms, &mut out);
                let applied = troupemq::actors::group::Committed::Applied;
                reply = told.map(|r| (r, Told::Answer(Ok(Answer::Committed(applied)))));
            }
            GroupMail::ResetDone { key, offset } => actor.core.reset_done(key, offset, &mut out),
            GroupMail::Request { what, request } => {
                actor.waits.insert(request);
                actor.core.request(request, what, now_ms, &mut out)
            }
            GroupMail::Closed => {
                // Who waits is told with the actor's end.
                let waits = std::mem::take(&mut actor.waits);
                groups.actors.remove(&(group, life));
                waits.into_iter().for_each(|request| self.gone(request));
                return;
            }
            GroupMail::Tick => {
                if !keeps {
                    actor.core.tick(now_ms, &mut out);
                }
                seen = Some(GroupSeen::Scan {
                    time,
                    group,
                    now_ms,
                });
            }
            GroupMail::Flush => {
                actor.flush_armed = false;
                actor.core.propose(now_ms, &mut out);
            }
            GroupMail::Done { id, result } => {
                actor.core.proposal_done(id, result, now_ms, &mut out)
            }
            GroupMail::Loaded { id, result } => actor.core.loaded(id, result, now_ms, &mut out),
        }
        if let Some(seen) = seen.filter(|_| is_of_now) {
            self.see(Seen::Group(seen));
        }
        self.group_wants(group, life, out);
        if let Some((request, told)) = reply {
            self.post(Mail::Told(request, told));
        }
        self.may_sleep(group, life, now_ms);
    }

    fn may_sleep(&mut self, group: usize, life: u64, now_ms: i64) {
        let Some(groups) = self.groups() else { return };
        let asleep = |a: &Actor| a.mail == 0 && a.core.may_sleep(now_ms);
        if groups.actors.get(&(group, life)).is_some_and(asleep) {
            groups.actors.remove(&(group, life));
            groups.awake.retain(|_, awake| *awake != life);
            self.counters.groups_asleep += 1;
        }
    }

    /// Does what a group's core asks for.
    fn group_wants(&mut self, group: usize, life: u64, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Propose { id, op } => self.group_proposes(group, life, id, op),
                Effect::Load { id, group: of } => {
                    self.counters.groups_loaded += 1;
                    self.post(Mail::LoadGroup(group, life, id, of.0));
                }
                Effect::Notify { conns, notice } => self.notify(&conns, &notice),
                Effect::PublishMembers | Effect::PublishResets => self.group_publishes(group, life),
                Effect::RecheckPulls | Effect::LeftOut(_) => {}
                Effect::Answer { request, answer } => {
                    let actor = self.groups().and_then(|g| g.actors.get_mut(&(group, life)));
                    if !actor.is_some_and(|a| a.waits.remove(&request)) {
                        let what = format!("request {request} to a group is answered twice");
                        return self.fail("I7", what);
                    }
                    self.post(Mail::Told(request, Told::Answer(answer)));
                }
            }
        }
        let armed = self.groups().and_then(|groups| {
            let actor = groups.actors.get_mut(&(group, life))?;
            let arm = actor.core.wants_flush() && !actor.flush_armed;
            actor.flush_armed |= arm;
            Some(arm)
        });
        if armed == Some(true) {
            let after_us = (COALESCE_MS as u64 + 2) * 1_000 / SPEED as u64;
            let mail = Mail::Group(group, life, Box::new(GroupMail::Flush));
            let (node, life) = (self.here(), self.life);
            self.schedule
                .after(after_us, Event::Mail { node, life, mail });
        }
    }

    fn group_publishes(&mut self, group: usize, life: u64) {
        let Some(groups) = self.groups() else { return };
        // One that is not listed any more has a cell of its own.
        if groups.awake.get(&group) != Some(&life) {
            return;
        }
        let Some(actor) = groups.actors.get(&(group, life)) else {
            return;
        };
        let ids = actor.core.members().snapshot().client_ids;
        groups.members.insert(group, ids);
        groups.resets.retain(|(of, _), _| *of != group);
        let resets = actor.core.resets().into_iter();
        let resets = resets.map(|(key, to)| ((group, key), to));
        groups.resets.extend(resets);
    }

    fn group_proposes(&mut self, group: usize, life: u64, id: u64, op: MetaOp) {
        let Some(groups) = self.groups() else { return };
        let Some(actor) = groups.actors.get(&(group, life)) else {
            return;
        };
        let epoch = actor.epoch;
        groups.next_proposal += 1;
        // Never the same on another node or in another life.
        let number = groups.next_proposal;
        let here = self.here() as u64;
        let number = IDS | (self.life & 0xfff) << 28 | here << 24 | number;
        if let Some(groups) = self.groups() {
            groups.proposals.insert(number, (group, life, id));
        }
        self.counters.group_proposals += 1;
        if let MetaOp::CommitOffsets(commit) = &op {
            for o in &commit.offsets {
                self.see(Seen::CommitAsked {
                    group: commit.group,
                    key: QueueKey::new(TopicId(o.topic), o.queue),
                    offset: o.offset,
                    reset: commit.reset,
                });
            }
        }
        let op = self.asked_for(number, op);
        self.post_shard(ShardInput::Propose {
            id: number,
            epoch,
            op,
        });
    }

    /// The shard's answer to a proposal of a group.
    pub(crate) fn group_proposed(&mut self, number: u64, result: Result<u64, Refusal>) {
        self.see_proposed(number, &result);
        let Some(groups) = self.groups() else { return };
        if let Some((group, life, id)) = groups.proposals.remove(&number) {
            let mail = Box::new(GroupMail::Done { id, result });
            self.post(Mail::Group(group, life, mail));
        }
    }

    /// On the shard's thread: offsets and locks as applied.
    pub(crate) fn load_group(&mut self, group: usize, life: u64, id: u64, of: u32) {
        let Some(node) = &self.node else { return };
        let machine = node.shard.machine();
        let mut state = GroupState {
            offsets: machine.offsets_of(of),
            locks: machine.locks_of(of),
        };
        match self.defect {
            Some(Planted::OffsetsNotRestored) => state.offsets.clear(),
            Some(Planted::LocksNotRestored) => state.locks.clear(),
            _ => {}
        }
        let result = match node.shard.serving() {
            Some(_) => Ok(state),
            None => Err(Refusal::NotLeader),
        };
        let mail = Box::new(GroupMail::Loaded { id, result });
        self.post(Mail::Group(group, life, mail));
    }

    /// Members by the published list.
    pub(crate) fn listed_members(&self, group: usize) -> Vec<String> {
        let node = self.node.as_ref();
        let listed = node.and_then(|node| node.groups.members.get(&group));
        listed.cloned().unwrap_or_default()
    }

    /// Where a pull has to go instead: an operator reset the queue. One at the new position ends that.
    pub(crate) fn redirect(&mut self, group: usize, key: QueueKey, offset: u64) -> Option<u64> {
        let at = (key.topic.0, key.queue);
        let groups = self.groups()?;
        let to = groups.resets.get(&(group, at)).copied()?;
        if to != offset {
            self.counters.redirects += 1;
            return Some(to);
        }
        groups.resets.remove(&(group, at));
        self.send_awake_group(group, GroupMail::ResetDone { key: at, offset });
        None
    }

    fn notify(&mut self, conns: &[ConnId], notice: &Notice) {
        let topic = match notice {
            Notice::OffsetsReset { topic, .. } => self.view.topics.get(topic).map(|t| t.id),
            Notice::MembersChanged { .. } => None,
        };
        for conn in conns {
            if self.people.rng.chance(3, 4) {
                self.people.notice(*conn, notice, topic);
            }
        }
    }

    /// Who waits for an actor that is gone is told so.
    fn nobody_home(&mut self, mail: GroupMail) {
        let request = match mail {
            GroupMail::Heartbeat { request, .. }
            | GroupMail::Unregister { request, .. }
            | GroupMail::Request { request, .. } => Some(request),
            GroupMail::Commit { request, .. } => request,
            _ => None,
        };
        if let Some(request) = request {
            self.gone(request);
        }
    }

    fn gone(&mut self, request: u64) {
        let why = Refusal::Unavailable("the group's actor stopped");
        self.post(Mail::Told(request, Told::Answer(Err(why))));
    }
}
