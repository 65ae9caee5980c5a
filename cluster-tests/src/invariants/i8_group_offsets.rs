//! I8 as members of a group see it: a committed offset is read back by whoever leads next, until something else
//! was asked for.

use super::Checker;
use crate::consumers::seen::{GroupSeen, Time};
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

#[derive(Debug, Clone)]
struct Wish {
    id: u64,
    offset: u64,
    asked_at: u64,
    /// Where, by somebody who waits.
    two_way: Option<Time>,
    /// When it was told to be done; those that never are may be done at any time.
    told_at: Option<u64>,
}

type Place = (usize, QueueKey);

/// See the module text.
#[derive(Default)]
pub struct GroupOffsets {
    /// Observations so far.
    now: u64,
    places: BTreeMap<u64, Place>,
    wishes: BTreeMap<Place, Vec<Wish>>,
    /// Some offset was told to be set: it is not absent any more.
    set: BTreeSet<Place>,
    /// Where each query asks, and what it may be told: as of when it was asked, and later wishes.
    queries: BTreeMap<u64, (Place, Vec<u64>, bool)>,
    /// Queries that were asked behind a commit, at the same place: the commit, and what else they may be told.
    behind: BTreeMap<u64, (u64, Vec<u64>)>,
    /// Commits that a query behind them was told nothing of: they must not be told to be done.
    overlooked: BTreeMap<u64, String>,
    ids: BTreeMap<u32, usize>,
    gone: BTreeSet<u32>,
}

impl GroupOffsets {
    fn told(&mut self, id: u64) {
        let now = self.now;
        let Some(place) = self.places.get(&id) else {
            return;
        };
        let wishes = self.wishes.entry(*place).or_default();
        let Some(asked_at) = wishes.iter().find(|w| w.id == id).map(|w| w.asked_at) else {
            return;
        };
        // What was told to be done before this one was asked for is not so any more.
        wishes.retain(|w| w.told_at.is_none_or(|told| told > asked_at));
        if let Some(wish) = wishes.iter_mut().find(|w| w.id == id) {
            wish.told_at = Some(now);
        }
        self.set.insert(*place);
    }

    fn may_be(&self, place: Place) -> (Vec<u64>, bool) {
        let wishes = self.wishes.get(&place);
        let offsets = wishes.into_iter().flatten().map(|w| w.offset).collect();
        (offsets, !self.set.contains(&place))
    }

    fn of(&mut self, seen: &GroupSeen) -> Result<(), String> {
        match seen {
            GroupSeen::OffsetAsked {
                id,
                time,
                group,
                key,
                offset,
                two_way,
            } => {
                let place = (*group, *key);
                self.places.insert(*id, place);
                let wish = Wish {
                    id: *id,
                    offset: *offset,
                    asked_at: self.now,
                    two_way: two_way.then_some(*time),
                    told_at: None,
                };
                self.wishes.entry(place).or_default().push(wish);
                for (at, offsets, _) in self.queries.values_mut().filter(|q| q.0 == place) {
                    debug_assert_eq!(*at, place);
                    offsets.push(*offset);
                }
                for (id, (_, offsets)) in &mut self.behind {
                    if self.queries.get(id).is_some_and(|q| q.0 == place) {
                        offsets.push(*offset);
                    }
                }
            }
            GroupSeen::OffsetSet { id } => {
                if let Some(what) = self.overlooked.remove(id) {
                    return Err(what);
                }
                self.told(*id);
            }
            GroupSeen::OffsetIgnored { id } => {
                if let Some(place) = self.places.get(id) {
                    let wishes = self.wishes.entry(*place).or_default();
                    wishes.retain(|w| w.id != *id);
                }
            }
            GroupSeen::QueryAsked {
                id,
                time,
                group,
                key,
            } => {
                let place = (*group, *key);
                let (offsets, absent) = self.may_be(place);
                let wishes = self.wishes.get(&place).map_or(&[][..], Vec::as_slice);
                if let Some(at) = wishes.iter().rposition(|w| w.two_way == Some(*time)) {
                    let elsewhere = wishes[..at].iter().filter(|w| w.two_way != Some(*time));
                    let elsewhere = elsewhere.filter(|w| w.told_at.is_none());
                    let all = wishes[at..].iter().chain(elsewhere);
                    let all = all.map(|w| w.offset).collect();
                    self.behind.insert(*id, (wishes[at].id, all));
                }
                self.queries.insert(*id, (place, offsets, absent));
            }
            GroupSeen::QueryTold { id, offset } => {
                let behind = self.behind.remove(id);
                let Some((place, offsets, absent)) = self.queries.remove(id) else {
                    return Ok(());
                };
                if let Some((commit, all)) = behind {
                    let seen = offset.is_some_and(|offset| all.contains(&offset));
                    if !seen && !self.gone.contains(&place.1.topic.0) {
                        let what = format!(
                            "query {id} of {place:?} came behind commit {commit}, and is told {offset:?} instead of {all:?}"
                        );
                        let wishes = self.wishes.get(&place);
                        let mut wishes = wishes.into_iter().flatten();
                        if wishes.any(|w| w.id == commit && w.told_at.is_some()) {
                            return Err(what);
                        }
                        self.overlooked.insert(commit, what);
                    }
                }
                let right = match offset {
                    Some(offset) => offsets.contains(offset),
                    None => absent,
                };
                if !right && !self.gone.contains(&place.1.topic.0) {
                    return Err(format!(
                        "query {id} of {place:?} is told {offset:?}, and it may be any of {offsets:?}"
                    ));
                }
            }
            GroupSeen::Id { group, id } => {
                self.ids.insert(*id, *group);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Checker for GroupOffsets {
    fn id(&self) -> &'static str {
        "I8"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        self.now += 1;
        match seen {
            Seen::Group(seen) => return self.of(seen),
            Seen::TopicDeleted { id } => {
                self.gone.insert(*id);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let mut left = self.set.clone();
        for (id, key, offset) in &end.state.offsets {
            let Some(group) = self.ids.get(id) else {
                continue;
            };
            let place = (*group, *key);
            left.remove(&place);
            let (offsets, _) = self.may_be(place);
            if !offsets.contains(offset) {
                return Err(format!(
                    "{place:?} ends at {offset}, and it may be any of {offsets:?}"
                ));
            }
        }
        let there = |place: &&Place| end.state.topics.contains(&place.1.topic.0);
        match left.iter().find(there) {
            Some(place) => Err(format!("the offset of {place:?} is gone")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{judge, KEY};
    use super::*;

    fn asked(id: u64, offset: u64) -> Seen {
        asked_at(id, offset, (0, id, 0))
    }
    fn asked_at(id: u64, offset: u64, time: Time) -> Seen {
        Seen::Group(GroupSeen::OffsetAsked {
            id,
            time,
            group: 0,
            key: KEY,
            offset,
            two_way: true,
        })
    }
    fn set(id: u64) -> Seen {
        Seen::Group(GroupSeen::OffsetSet { id })
    }
    fn query(id: u64) -> Seen {
        Seen::Group(GroupSeen::QueryAsked {
            id,
            time: (0, 0, 0),
            group: 0,
            key: KEY,
        })
    }
    fn told(id: u64, offset: Option<u64>) -> Seen {
        Seen::Group(GroupSeen::QueryTold { id, offset })
    }

    #[test]
    fn offsets_that_are_forgotten_or_made_up_are_seen() {
        let run = |history: &[Seen]| judge(&mut GroupOffsets::default(), history, None);
        assert!(run(&[query(9), told(9, None)]).is_none());
        assert!(run(&[query(9), told(9, Some(3))]).is_some(), "made up");
        let one = [asked(1, 5), set(1), query(9)];
        let after = |offset| run(&[&one[..], &[told(9, offset)]].concat());
        assert!(after(Some(5)).is_none());
        assert!(after(None).is_some(), "forgotten");
        let two = [asked(1, 5), set(1), asked(2, 7), set(2), query(9)];
        assert!(run(&[&two[..], &[told(9, Some(7))]].concat()).is_none());
        assert!(run(&[&two[..], &[told(9, Some(5))]].concat()).is_some());
        let open = [asked(1, 5), set(1), asked(2, 7), query(9)];
        for offset in [5, 7] {
            assert!(run(&[&open[..], &[told(9, Some(offset))]].concat()).is_none());
        }
        let meanwhile = [asked(1, 5), set(1), query(9), asked(2, 7), set(2)];
        for offset in [5, 7] {
            assert!(run(&[&meanwhile[..], &[told(9, Some(offset))]].concat()).is_none());
        }
        let ignored = Seen::Group(GroupSeen::OffsetIgnored { id: 2 });
        let passed_over = [&open[..3], &[ignored, query(9), told(9, Some(7))]].concat();
        assert!(run(&passed_over).is_some());
    }

    #[test]
    fn a_query_sees_the_commit_before_it() {
        let run = |history: &[Seen]| judge(&mut GroupOffsets::default(), history, None);
        let here = (0, 0, 0);
        let begin = [asked_at(1, 5, here), set(1), asked_at(2, 7, here), query(9)];
        let then = |more: &[Seen]| run(&[&begin[..], more].concat());
        assert!(then(&[told(9, Some(7)), set(2)]).is_none());
        assert!(then(&[set(2), told(9, Some(7))]).is_none());
        assert!(then(&[told(9, Some(5))]).is_none(), "it may be refused");
        assert!(then(&[told(9, Some(5)), set(2)]).is_some());
        assert!(then(&[set(2), told(9, Some(5))]).is_some());
        let later = [asked_at(3, 9, here), told(9, Some(9)), set(2)];
        assert!(then(&later).is_none());
        let other = [asked_at(1, 5, (1, 0, 0)), asked_at(2, 7, here), query(9)];
        let told = [told(9, Some(5)), set(2)];
        assert!(run(&[&other[..], &told].concat()).is_none(), "in flight");
    }

    #[test]
    fn the_last_state_is_held_to_it() {
        let mut end = End::default();
        end.state.topics.push(KEY.topic.0);
        let id = Seen::Group(GroupSeen::Id { group: 0, id: 4 });
        let history = [id, asked(1, 5), set(1)];
        let run = |end: &End| judge(&mut GroupOffsets::default(), &history, Some(end));
        assert!(run(&end).is_some(), "gone");
        end.state.offsets.push((4, KEY, 5));
        assert!(run(&end).is_none());
        end.state.offsets[0].2 = 4;
        assert!(run(&end).is_some(), "back");
    }
}
