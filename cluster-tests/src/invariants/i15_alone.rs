//! I15: a message that one node answered for alone (ASYNC_MASTER) is lost only when another leader
//! followed, and every such loss is told; or with the disk that had it, or with what was unsynced there. And what
//! a whole group loses with its machines, some of them have told at their next start.

use super::Checker;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::{Position, QueueKey};

#[derive(Debug)]
struct Message {
    key: QueueKey,
    sync: bool,
    due_ms: Option<i64>,
    /// The node that answered, where it is and its offset.
    acked: Option<(usize, Position, Option<u64>)>,
    /// By the entry at this index.
    visible: Option<u64>,
    /// Where one that was sent again is.
    places: Option<Vec<(Position, u64)>>,
    /// What may have taken it is known.
    excused: bool,
}

/// See the module text.
#[derive(Default)]
pub struct Alone {
    messages: BTreeMap<u64, Message>,
    /// First and last index, messages.
    told: Vec<(u64, u64, u64)>,
    deleted: BTreeSet<u32>,
    members: BTreeSet<usize>,
    /// The last entries of logs that were cut by losses of the group and that nobody told of.
    cuts: Vec<u64>,
}

impl Alone {
    /// What this node has answered for behind `last` is gone with its machine.
    fn gone(&mut self, node: usize, last: u64, all: bool) {
        for m in self.messages.values_mut() {
            let held = m
                .acked
                .is_some_and(|(by, at, _)| by == node && at.index > last);
            m.excused |= held && (all || !m.sync);
        }
    }

    /// A group goes on from `last`. What was behind it may have been seen.
    fn crashed(&mut self, last: u64) {
        self.cuts.push(last);
        for m in self.messages.values_mut() {
            let seen = m.visible.take_if(|index| *index > last).is_some();
            let held = m.acked.is_some_and(|(_, at, _)| at.index > last);
            m.excused |= !m.sync && (seen || held);
        }
    }

    fn visible(&mut self, uid: u64, at: Position, offset: u64) -> Result<(), String> {
        let Some(m) = self.messages.get_mut(&uid) else {
            return Ok(());
        };
        if let Some(places) = &mut m.places {
            places.push((at, offset));
            return Ok(());
        }
        m.visible = Some(at.index);
        match m.acked.filter(|_| m.due_ms.is_none()) {
            Some((_, told, first)) if (told, first) != (at, Some(offset)) => Err(format!(
                "message {uid} was told to be at {told:?}, {first:?} and is at {at:?}, {offset}"
            )),
            _ => Ok(()),
        }
    }
}

impl Checker for Alone {
    fn id(&self) -> &'static str {
        "I15"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Sent {
                uid,
                key,
                sync,
                due_ms,
                ..
            } => {
                let new = Message {
                    key: *key,
                    sync: *sync,
                    due_ms: *due_ms,
                    acked: None,
                    visible: None,
                    places: None,
                    excused: false,
                };
                self.messages.insert(*uid, new);
            }
            Seen::SentAgain { uid } => {
                if let Some(m) = self.messages.get_mut(uid) {
                    m.places.get_or_insert_default();
                }
            }
            Seen::AckedAlone {
                uid,
                node,
                at,
                offset,
            } => {
                if let Some(m) = self.messages.get_mut(uid) {
                    m.acked = Some((*node, *at, *offset));
                }
            }
            Seen::Visible {
                uid, at, offset, ..
            } => return self.visible(*uid, *at, *offset),
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Truncated {
                first,
                last,
                messages,
            } => self.told.push((*first, *last, *messages)),
            Seen::TailLost { node, last } => self.gone(*node, *last, false),
            Seen::GroupLost { last } => self.crashed(*last),
            Seen::Unclean { kept, .. } => self.cuts.retain(|last| kept > last),
            Seen::StoreLost { node } => self.gone(*node, 0, true),
            Seen::Members { nodes } => self.members = nodes.iter().copied().collect(),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        if let Some(last) = self.cuts.first() {
            return Err(format!(
                "entries behind {last} are lost with their machines, and none told"
            ));
        }
        let lost = self.messages.iter().filter_map(|(uid, m)| {
            let (node, at, offset) = m.acked?;
            let there = |p: &Vec<(Position, u64)>| {
                p.iter()
                    .any(|(found, o)| (*found, Some(*o)) == (at, offset))
            };
            let visible = m.places.as_ref().map_or(m.visible.is_some(), there);
            // Who is none of the group any more may hold what the group does not.
            let due = m.due_ms.is_none_or(|due| due <= end.now_ms);
            let open = due && !visible && !m.excused && self.members.contains(&node);
            let lost = open && !self.deleted.contains(&m.key.topic.0);
            lost.then_some((*uid, node, at.index))
        });
        let lost: Vec<(u64, usize, u64)> = lost.collect();
        let told = |index: u64| {
            self.told
                .iter()
                .any(|(first, last, _)| (*first..=*last).contains(&index))
        };
        if let Some((uid, node, index)) = lost.iter().find(|(_, _, index)| !told(*index)) {
            return Err(format!(
                "message {uid} of entry {index} on node {node} is lost, and nobody told"
            ));
        }
        let sum: u64 = self.told.iter().map(|(_, _, messages)| messages).sum();
        match lost.len() as u64 > sum {
            true => Err(format!("{} messages are lost, {sum} were told", lost.len())),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn losses_that_nobody_told_and_those_with_no_reason_are_seen() {
        let run = |sync, tail: &[Seen]| {
            let alone = Seen::AckedAlone {
                uid: 1,
                node: 0,
                at: at(5),
                offset: Some(3),
            };
            let mut history = vec![sent(1, sync), alone];
            history.extend(tail.iter().cloned());
            history.push(Seen::Members { nodes: vec![0, 1] });
            judge(&mut Alone::default(), &history, Some(&End::default()))
        };
        let told = |first, last, messages| Seen::Truncated {
            first,
            last,
            messages,
        };
        let tail = |node, last| Seen::TailLost { node, last };
        assert!(run(true, &[]).is_some(), "lost");
        assert!(run(true, &[visible(1, 5, 3)]).is_none());
        assert!(run(true, &[visible(1, 5, 4)]).is_some(), "another offset");
        assert!(run(true, &[visible(1, 6, 3)]).is_some(), "another entry");
        assert!(run(true, &[told(4, 5, 2)]).is_none());
        assert!(run(true, &[told(6, 7, 2)]).is_some(), "of other entries");
        assert!(
            run(true, &[told(4, 5, 0)]).is_some(),
            "fewer than were lost"
        );
        assert!(run(false, &[tail(0, 4)]).is_none(), "unsynced");
        assert!(run(true, &[tail(0, 4)]).is_some(), "synced");
        assert!(
            run(false, &[tail(0, 5)]).is_some(),
            "it was not in the tail"
        );
        assert!(run(false, &[tail(1, 4)]).is_some(), "of another node");
        assert!(run(true, &[Seen::StoreLost { node: 0 }]).is_none());
        let cut = |last| Seen::GroupLost { last };
        let unclean = |kept| Seen::Unclean { node: 1, kept };
        let shown = || visible(1, 5, 3);
        assert!(run(false, &[shown(), cut(4)]).is_some(), "nobody told");
        assert!(run(false, &[shown(), cut(4), unclean(3)]).is_none());
        assert!(
            run(false, &[shown(), cut(4), unclean(5)]).is_some(),
            "of less than was lost"
        );
        assert!(
            run(true, &[shown(), cut(4), unclean(3)]).is_some(),
            "it was synced"
        );
        assert!(run(true, &[Seen::TopicDeleted { id: 1 }]).is_none());
    }

    #[test]
    fn of_a_message_that_was_sent_again_the_answered_one_counts() {
        let run = |tail: &[Seen]| {
            let alone = Seen::AckedAlone {
                uid: 1,
                node: 0,
                at: at(5),
                offset: Some(3),
            };
            let history = [sent(1, true), Seen::SentAgain { uid: 1 }, alone];
            let members = Seen::Members { nodes: vec![0] };
            let history = [&history[..], tail, &[members]].concat();
            judge(&mut Alone::default(), &history, Some(&End::default()))
        };
        assert_eq!(run(&[visible(1, 4, 2), visible(1, 5, 3)]), None);
        assert!(run(&[visible(1, 4, 2)]).is_some(), "the other is there");
    }
}
