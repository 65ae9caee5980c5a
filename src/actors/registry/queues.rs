//! The queues of one topic, by broker: a name server holds one of these for each topic, and nearly
//! all of them name one broker, or a few.

use crate::routing::QueueData;
use smallvec::SmallVec;
use std::sync::Arc;

/// What one broker says of its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queues {
    pub read: u32,
    pub write: u32,
    pub perm: u32,
    pub sys_flag: u32,
}

/// Sorted by broker name.
#[derive(Debug, Default)]
pub(super) struct TopicQueues(SmallVec<[(Arc<str>, Queues); 1]>);

impl TopicQueues {
    fn find(&self, broker: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(broker))
    }

    pub(super) fn insert(&mut self, broker: Arc<str>, queues: Queues) {
        match self.find(&broker) {
            Ok(at) => self.0[at].1 = queues,
            Err(at) => {
                // One more, not twice as many.
                self.0.reserve_exact(1);
                self.0.insert(at, (broker, queues));
            }
        }
    }

    pub(super) fn remove(&mut self, broker: &str) {
        if let Ok(at) = self.find(broker) {
            self.0.remove(at);
        }
    }

    pub(super) fn get_mut(&mut self, broker: &str) -> Option<&mut Queues> {
        self.find(broker).ok().map(|at| &mut self.0[at].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the brokers.
    pub(super) fn brokers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The first broker's.
    pub(super) fn first(&self) -> Option<Queues> {
        self.0.first().map(|(_, queues)| *queues)
    }

    /// As routes carry them.
    pub(super) fn data(&self) -> impl Iterator<Item = QueueData> + '_ {
        self.0.iter().map(|(name, queues)| QueueData {
            broker_name: name.to_string(),
            read_queues: queues.read,
            write_queues: queues.write,
            perm: queues.perm,
            sys_flag: queues.sys_flag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_stay_sorted_and_are_named_once() {
        let queues = |read| Queues {
            read,
            write: 1,
            perm: 6,
            sys_flag: 0,
        };
        let mut topic = TopicQueues::default();
        for (name, read) in [("b", 2), ("c", 3), ("a", 1), ("b", 4)] {
            topic.insert(name.into(), queues(read));
        }
        let seen: Vec<_> = topic
            .data()
            .map(|q| (q.broker_name, q.read_queues))
            .collect();
        assert_eq!(seen, [("a".into(), 1), ("b".into(), 4), ("c".into(), 3)]);
        assert_eq!(topic.first(), Some(queues(1)));
        topic.remove("a");
        topic.remove("x");
        assert!(topic.get_mut("a").is_none() && topic.get_mut("c").is_some());
        topic.remove("b");
        topic.remove("c");
        assert!(topic.is_empty());
    }
}
