//! What members are told, and what they make of it.

use super::seen::GroupSeen;
use super::{Told, What, RELY_MS, WAIT_LOCK_US};
use crate::defects::Planted;
use crate::seen::Seen;
use crate::sim::Sim;
use troupemq::actors::group::core::Answer;
use troupemq::actors::group::Committed;

impl Sim {
    /// An answer arrives. It counts whether or not the member waits still.
    pub(crate) fn member_told(&mut self, request: u64, told: Told) {
        let Some((_, n)) = self.people.owed.remove(&request) else {
            let what = format!("request {request} of a member is answered twice");
            return self.fail("I7", what);
        };
        self.counters.members_told += 1;
        match &told {
            Told::Answer(Ok(Answer::Committed(Committed::Applied)) | Ok(Answer::Reset)) => {
                self.see(Seen::Group(GroupSeen::OffsetSet { id: request }));
            }
            Told::Answer(Ok(Answer::Committed(Committed::ResetPending))) => {
                self.see(Seen::Group(GroupSeen::OffsetIgnored { id: request }));
            }
            Told::Answer(Ok(Answer::Offset(offset))) => {
                let (id, offset) = (request, *offset);
                self.see(Seen::Group(GroupSeen::QueryTold { id, offset }));
            }
            _ => {}
        }
        let now_us = self.schedule.now_us();
        let now_ms = self.members_ms();
        let all = self.defect == Some(Planted::LockWhileHeld);
        let member = &mut self.people.members[n];
        let Some(asked) = member.asked.take_if(|asked| asked.request == request) else {
            return;
        };
        match (asked.what, told) {
            (What::Beat, Told::Beat(true)) => {
                member.joined = true;
                member.beat_ms = now_ms + super::BEAT_MS;
            }
            (What::Query(key), Told::Answer(Ok(Answer::Offset(offset)))) => {
                member.positions.insert(key, offset.unwrap_or(0));
            }
            (What::Lock(keys), Told::Answer(Ok(Answer::Locked(held)))) => {
                let late = now_us - asked.at_us > WAIT_LOCK_US;
                let holds = |key: &troupemq::model::QueueKey| {
                    !late && (all || held.contains(&(key.topic.0, key.queue)))
                };
                let (mine, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(holds);
                self.counters.members_locked += mine.len() as u64;
                if !late {
                    self.counters.members_not_locked += others.len() as u64;
                    self.lets_go(n, &others);
                }
                let until_ms = now_ms + RELY_MS;
                for key in mine {
                    let member = &mut self.people.members[n];
                    member.locks.insert(key, until_ms);
                    let (group, client) = (member.group, member.id.clone());
                    self.see(Seen::Group(GroupSeen::Holds {
                        group,
                        key,
                        client,
                        now_ms,
                        until_ms,
                    }));
                }
            }
            // It asks again.
            _ => {}
        }
    }

    /// The node here went away, and nobody is answered.
    pub(crate) fn members_disconnected(&mut self) {
        let here = self.here();
        self.people.owed.retain(|_, (node, _)| *node != here);
        let alone = self.group.is_none();
        for member in &mut self.people.members {
            if member.at.is_some_and(|(node, _)| node == here) {
                (member.at, member.asked) = (None, None);
            }
            if alone {
                // What was read may be gone with the unsynced tail, and others stand there then.
                member.positions.clear();
            }
        }
    }
}
