//! The published topic and group tables of a shard: read by connections without visiting an actor,
//! written only when a metadata command is applied.

use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::{GroupId, TopicId};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::Arc;

#[derive(Default)]
struct Tables {
    topics: FxHashMap<Arc<str>, Arc<TopicConfig>>,
    topic_names: FxHashMap<TopicId, Arc<TopicConfig>>,
    groups: FxHashMap<Arc<str>, Arc<GroupConfig>>,
    group_names: FxHashMap<GroupId, Arc<GroupConfig>>,
    /// Deleted groups whose offsets are kept.
    kept: FxHashMap<Arc<str>, GroupId>,
    version: u64,
}

/// Topics and groups of one shard as applied so far.
#[derive(Clone, Default)]
pub struct MetaTable {
    tables: Arc<RwLock<Tables>>,
}

impl MetaTable {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicConfig>> {
        self.tables.read().topics.get(name).cloned()
    }
    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicConfig>> {
        self.tables.read().topic_names.get(&id).cloned()
    }
    /// All topics, sorted by name.
    pub fn topics(&self) -> Vec<Arc<TopicConfig>> {
        let mut all: Vec<_> = self.tables.read().topics.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
    /// All topics with the names that this table holds, in no order.
    pub fn named_topics(&self) -> Vec<(Arc<str>, Arc<TopicConfig>)> {
        let tables = self.tables.read();
        let topics = tables.topics.iter();
        topics.map(|(name, t)| (name.clone(), t.clone())).collect()
    }
    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<Arc<GroupConfig>> {
        self.tables.read().groups.get(name).cloned()
    }
    /// The group with this id.
    pub fn group_by_id(&self, id: GroupId) -> Option<Arc<GroupConfig>> {
        self.tables.read().group_names.get(&id).cloned()
    }
    /// All groups, sorted by name.
    pub fn groups(&self) -> Vec<Arc<GroupConfig>> {
        let mut all: Vec<_> = self.tables.read().groups.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
    /// The id of a deleted group whose offsets are kept.
    pub fn kept_group(&self, name: &str) -> Option<GroupId> {
        self.tables.read().kept.get(name).copied()
    }
    /// All deleted groups whose offsets are kept, sorted by name.
    pub fn kept_groups(&self) -> Vec<(Arc<str>, GroupId)> {
        let kept = self.tables.read().kept.clone();
        let mut all: Vec<_> = kept.into_iter().collect();
        all.sort();
        all
    }
    /// Grows with every change; a broker registers again when it changed (RocketMQ `DataVersion`).
    pub fn version(&self) -> u64 {
        self.tables.read().version
    }

    pub(crate) fn put_topic(&self, config: TopicConfig) {
        let config = Arc::new(config);
        let mut t = self.tables.write();
        t.topics.insert(config.name.as_str().into(), config.clone());
        t.topic_names.insert(TopicId(config.id), config);
        t.version += 1;
    }
    pub(crate) fn delete_topic(&self, name: &str) {
        let mut t = self.tables.write();
        if let Some(old) = t.topics.remove(name) {
            t.topic_names.remove(&TopicId(old.id));
            t.version += 1;
        }
    }
    pub(crate) fn put_group(&self, config: GroupConfig) {
        let (name, id): (Arc<str>, _) = (config.name.as_str().into(), GroupId(config.id));
        if config.deleted {
            self.delete_group(&name);
            self.tables.write().kept.insert(name, id);
            return;
        }
        let config = Arc::new(config);
        let mut t = self.tables.write();
        t.kept.remove(&name);
        t.groups.insert(name, config.clone());
        t.group_names.insert(id, config);
        t.version += 1;
    }
    pub(crate) fn delete_group(&self, name: &str) {
        let mut t = self.tables.write();
        t.kept.remove(name);
        if let Some(old) = t.groups.remove(name) {
            t.group_names.remove(&GroupId(old.id));
            t.version += 1;
        }
    }
}
