//! What nodes tell each other of themselves when a link opens: their settings, and of each shard
//! where it began and how far they are. Nothing of this decides what is stored; it finds nodes whose
//! configurations do not belong together before they do harm, and tells a replica that would have to
//! be alone whether it is.

use super::cluster::{ClusterNode, Member};
use super::identity;
use super::operate::NO_SHARD;
use crate::actors::shard::core::ShardInput;
use crate::actors::shard::machine::DIGEST_VERSION;
use crate::peer::Lane;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is said. Fields may be added; those that are not known are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// The shared settings; none in a message that is about digests only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardWord>,
    /// How digests are made.
    #[serde(default)]
    pub digest_version: u32,
    /// Shard, and log indices with the digest of the state after each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<(u32, Vec<(u64, u64)>)>,
}

/// What is said of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardWord {
    pub id: u32,
    pub name: String,
    /// Nodes of the first replicas, the preferred leader first.
    pub begun: Vec<u64>,
    /// Last index of its log here; 0 for a replica that has nothing.
    pub last: u64,
}

/// Something in which another node differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, or the shard.
    pub what: String,
    pub here: String,
    pub there: String,
}

/// What is not kept durably, because a version that kept nothing wrote the data.
#[derive(Debug, Clone, Default)]
pub struct Unsure {
    /// The shards and their first replicas.
    pub shards: bool,
    /// Shards whose members are not.
    pub members: BTreeSet<u32>,
}

/// See [`ClusterNode::words`].
#[derive(Debug, Default)]
pub struct Heard {
    said: BTreeMap<u64, Words>,
    differences: BTreeMap<u64, Vec<Difference>>,
    unsure: Unsure,
    /// Why this node must not go on.
    stopped: Option<String>,
    /// Shards that were told to begin alone.
    formed: BTreeSet<u32>,
    /// The newest digest of each shard that peers were told.
    digests_told: BTreeMap<u32, u64>,
}

impl Heard {
    pub fn new(unsure: Unsure) -> Self {
        Self {
            unsure,
            ..Self::default()
        }
    }

    /// In what a node differs from this one.
    pub fn differences(&self, node: u64) -> &[Difference] {
        self.differences.get(&node).map_or(&[], Vec::as_slice)
    }
}

/// What comes of another node's word on a shard.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// Both go on as they began.
    Differs,
    /// This node has nothing: it began wrongly, and can begin anew as the other one says.
    Adopt,
    /// This node must not go on.
    Stop,
}

fn set(nodes: &[u64]) -> BTreeSet<u64> {
    nodes.iter().copied().collect()
}

fn judge(own: &ShardWord, theirs: &ShardWord, unsure: bool) -> Verdict {
    if own.begun == theirs.begun {
        return Verdict::Same;
    }
    if set(&own.begun) == set(&theirs.begun) {
        // Another preferred leader.
        return Verdict::Differs;
    }
    match (own.last, theirs.last) {
        (0, 0) => Verdict::Stop,
        (0, _) => Verdict::Adopt,
        (_, 0) => Verdict::Differs,
        _ if unsure => Verdict::Stop,
        _ => Verdict::Differs,
    }
}

fn settings_that_differ(
    here: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> Vec<Difference> {
    // A key that only one version knows is no difference.
    let both = here
        .iter()
        .filter_map(|(key, own)| Some((key, own, there.get(key)?)));
    let differ = both.filter(|(_, own, theirs)| own != theirs);
    differ
        .map(|(key, own, theirs)| Difference {
            what: key.clone(),
            here: own.clone(),
            there: theirs.clone(),
        })
        .collect()
}

/// The other nodes have all said that they have nothing of the shard, and there are some.
fn nobody_has(shard: u32, others: &BTreeSet<u64>, said: &BTreeMap<u64, Words>) -> bool {
    let empty = |node: &u64| {
        let words = said.get(node);
        let word = words.and_then(|w| w.shards.iter().find(|s| s.id == shard));
        word.is_some_and(|word| word.last == 0)
    };
    !others.is_empty() && others.iter().all(empty)
}

/// A majority of a shard's first replicas says that it began as this node thinks.
fn agreed(own: &ShardWord, me: u64, said: &BTreeMap<u64, Words>) -> bool {
    let same = |node: &&u64| {
        let words = said.get(*node);
        let begun = words.and_then(|w| w.shards.iter().find(|s| s.id == own.id));
        **node == me || begun.is_some_and(|s| set(&s.begun) == set(&own.begun))
    };
    let count = own.begun.iter().filter(same).count();
    own.begun.len() > 1 && count > own.begun.len() / 2
}

impl ClusterNode {
    fn own_words(&self) -> Words {
        let shards = self.members.iter().map(|member| ShardWord {
            id: member.place.id,
            name: member.place.name.clone(),
            begun: member.place.nodes.clone(),
            // Who lost what it had is none that never had anything.
            last: {
                let status = member.handle.status();
                status.last().max(status.owed())
            },
        });
        Words {
            settings: Some(self.config.shared()),
            shards: shards.collect(),
            ..self.digests(&BTreeMap::new())
        }
    }

    /// Digests behind these indices of the shards.
    fn digests(&self, behind: &BTreeMap<u32, u64>) -> Words {
        let of = |member: &Member| {
            let id = member.place.id;
            let behind = behind.get(&id).copied().unwrap_or(0);
            (id, member.handle.status().digests(behind))
        };
        let all = self.members.iter().map(of);
        Words {
            digest_version: DIGEST_VERSION,
            digests: all.filter(|(_, digests)| !digests.is_empty()).collect(),
            ..Words::default()
        }
    }

    /// Tells all peers the digests that came since the last time.
    pub(super) fn say_digests(&self) {
        let mut heard = self.words.lock();
        let new = self.digests(&heard.digests_told);
        for (shard, digests) in &new.digests {
            if let Some((index, _)) = digests.last() {
                heard.digests_told.insert(*shard, *index);
            }
        }
        drop(heard);
        if new.digests.is_empty() {
            return;
        }
        if let Ok(text) = serde_json::to_string(&new) {
            let peers = self.peers.states().into_keys();
            for peer in peers.filter(|peer| self.peers.takes_words(*peer)) {
                let bytes = text.clone().into();
                self.peers.send(peer, Lane::Bulk, NO_SHARD, bytes);
            }
        }
    }

    fn hear_digests(&self, from: u64, words: &Words) {
        if words.digest_version != DIGEST_VERSION {
            return;
        }
        for (shard, digests) in &words.digests {
            if let Some(member) = self.members.iter().find(|m| m.place.id == *shard) {
                let digests = digests.clone();
                member.handle.input(ShardInput::Digests { from, digests });
            }
        }
    }

    /// Tells a peer about this node.
    pub(super) fn say(&self, peer: u64) {
        if !self.peers.takes_words(peer) {
            return;
        }
        // Text of maps with texts for keys.
        if let Ok(text) = serde_json::to_string(&self.own_words()) {
            self.peers.send(peer, Lane::Bulk, NO_SHARD, text.into());
        }
    }

    /// Takes in what a peer said.
    pub(super) fn hear_words(&self, from: u64, bytes: &[u8]) {
        let words: Words = match serde_json::from_slice(bytes) {
            Ok(words) => words,
            Err(error) => {
                tracing::error!(%error, node = from, "what another node says of itself makes no sense");
                return;
            }
        };
        self.hear_digests(from, &words);
        let own = self.own_words();
        let (Some(here), Some(there)) = (&own.settings, &words.settings) else {
            return;
        };
        let mut heard = self.words.lock();
        let mut differ = settings_that_differ(here, there);
        for mine in &own.shards {
            let Some(theirs) = words.shards.iter().find(|s| s.id == mine.id) else {
                continue;
            };
            let verdict = judge(mine, theirs, heard.unsure.members.contains(&mine.id));
            if verdict == Verdict::Same {
                continue;
            }
            differ.push(Difference {
                what: format!("first replicas of {}", mine.name),
                here: format!("{:?}", mine.begun),
                there: format!("{:?}", theirs.begun),
            });
            if heard.stopped.is_some() {
                continue;
            }
            let why = format!(
                "by peers and replicas {} began on nodes {:?}, but node {from} says on {:?}",
                mine.name, mine.begun, theirs.begun
            );
            heard.stopped = match verdict {
                Verdict::Adopt => Some(self.adopt(&words, why)),
                Verdict::Stop => Some(format!(
                    "{why}: correct peers and replicas on the node where they are wrong; a node that is \
                     to join a cluster has join = true, and its part by troupe cluster add"
                )),
                Verdict::Same | Verdict::Differs => None,
            };
        }
        let before = heard.differences(from);
        for new in differ.iter().filter(|d| !before.contains(d)) {
            tracing::warn!(
                node = from,
                what = %new.what,
                here = %new.here,
                there = %new.there,
                "another node is set otherwise"
            );
        }
        if let Some(why) = &heard.stopped {
            tracing::error!(event = "wrong_configuration", "{why}");
        }
        heard.differences.insert(from, differ);
        heard.said.insert(from, words);
    }

    /// Notes how a peer says that the shards began, for the next start.
    fn adopt(&self, words: &Words, why: String) -> String {
        let begun = words
            .shards
            .iter()
            .map(|s| (s.name.clone(), s.begun.clone()));
        let begun: Vec<identity::Begun> = begun.collect();
        match identity::keep_shards(Path::new(&self.config.data_dir), &begun) {
            Ok(()) => format!(
                "{why}: this node has no data, so that is noted; start it again (and give it its part by \
                 troupe cluster add, if it is new)"
            ),
            Err(error) => format!("{why}; and that cannot be noted: {error}"),
        }
    }

    /// The peer has told how the shards began, and it is as here; earlier versions tell nothing.
    pub(super) fn knows(&self, peer: u64) -> bool {
        let heard = self.words.lock();
        let said = heard.said.contains_key(&peer) || !self.peers.has_words(peer);
        said && heard.stopped.is_none()
    }

    /// A peer is gone: what it said may be otherwise when it comes back.
    pub(super) fn forget_words(&self, peer: u64) {
        let mut heard = self.words.lock();
        heard.said.remove(&peer);
        heard.differences.remove(&peer);
    }

    /// Why this node must not go on.
    pub fn stopped(&self) -> Option<String> {
        self.words.lock().stopped.clone()
    }

    /// Lets a replica begin that waited for word, and keeps what others confirmed.
    pub(super) fn go_by_words(&self) {
        let me = self.config.node_id;
        let others: BTreeSet<u64> = self
            .all_nodes()
            .into_keys()
            .filter(|id| *id != me)
            .collect();
        let mut heard = self.words.lock();
        if heard.stopped.is_some() {
            return;
        }
        for member in &self.members {
            let id = member.place.id;
            let status = member.handle.status();
            // What is lost here is for an operator, also where nobody else has anything.
            let lone = status.lone() && status.owed() == 0 && !heard.formed.contains(&id);
            if lone && nobody_has(id, &others, &heard.said) {
                tracing::info!(
                    shard = %member.place.name,
                    "all other nodes say that they have nothing of it: it begins here"
                );
                heard.formed.insert(id);
                member.handle.input(ShardInput::Form);
            }
        }
        let own = self.own_words();
        let sure = |own: &&ShardWord| agreed(own, me, &heard.said);
        let sure: BTreeSet<u32> = own.shards.iter().filter(sure).map(|s| s.id).collect();
        for member in &self.members {
            if sure.contains(&member.place.id) && heard.unsure.members.remove(&member.place.id) {
                member.handle.input(ShardInput::KeepMembers);
            }
        }
        if heard.unsure.shards && sure.len() == own.shards.len() {
            let dir = Path::new(&self.config.data_dir);
            match identity::keep_shards(dir, &self.cluster.begun()) {
                Ok(()) => heard.unsure.shards = false,
                Err(error) => tracing::error!(%error, "the shards cannot be kept"),
            }
        }
    }

    /// What to do about a replica that waits for word.
    pub(super) fn lone_line(&self, member: &Member) -> String {
        let owed = member.handle.status().owed();
        if owed > 0 {
            return format!(
                "this replica lost what it had synced up to {owed} and knows of no other: it waits for \
                 one that has it, or for an operator: troupe cluster rescue"
            );
        }
        format!(
            "by the configuration node {} is its only replica, and this data directory does not say \
             that it was: it waits until every other node has said that it has nothing of it, or for \
             troupe cluster form --shard {}",
            self.config.node_id, member.place.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(begun: &[u64], last: u64) -> ShardWord {
        ShardWord {
            id: 1,
            name: "broker-a".into(),
            begun: begun.to_vec(),
            last,
        }
    }

    #[test]
    fn who_has_nothing_gives_way_and_two_histories_are_shown() {
        let judge = |own: &ShardWord, theirs: &ShardWord| judge(own, theirs, false);
        let three = |last| word(&[1, 2, 3], last);
        let four = |last| word(&[2, 3, 4], last);
        assert_eq!(judge(&three(0), &three(9)), Verdict::Same);
        assert_eq!(judge(&word(&[2, 1, 3], 0), &three(9)), Verdict::Differs);
        assert_eq!(judge(&four(0), &three(9)), Verdict::Adopt);
        assert_eq!(judge(&three(9), &four(0)), Verdict::Differs);
        assert_eq!(judge(&three(0), &four(0)), Verdict::Stop);
        assert_eq!(judge(&three(9), &four(9)), Verdict::Differs);
        let unsure = super::judge(&three(9), &four(9), true);
        assert_eq!(unsure, Verdict::Stop);
    }

    #[test]
    fn settings_are_compared_key_by_key() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let here = map(&[("a", "1"), ("b", "2"), ("new", "x")]);
        let there = map(&[("a", "1"), ("b", "3"), ("newer", "y")]);
        let found = settings_that_differ(&here, &there);
        let expected = Difference {
            what: "b".into(),
            here: "2".into(),
            there: "3".into(),
        };
        assert_eq!(found, [expected]);
        let shared = crate::config::Config::default().shared();
        assert_eq!(shared["flush_disk_type"], "SYNC_FLUSH");
        assert_eq!(shared["retention_bytes"], "0");
        assert!(!shared.keys().any(|k| k.contains("secret")));
    }

    #[test]
    fn a_lone_replica_begins_only_when_all_others_have_nothing() {
        let words = |last| Words {
            shards: vec![word(&[1], last)],
            ..Words::default()
        };
        let others = BTreeSet::from([2, 3]);
        let mut said = BTreeMap::from([(2, words(0))]);
        assert!(!nobody_has(1, &others, &said), "node 3 said nothing");
        said.insert(3, Words::default());
        assert!(!nobody_has(1, &others, &said), "nothing of this shard");
        said.insert(3, words(7));
        assert!(!nobody_has(1, &others, &said));
        said.insert(3, words(0));
        assert!(nobody_has(1, &others, &said));
        assert!(!nobody_has(1, &BTreeSet::new(), &said), "nobody to ask");
    }

    #[test]
    fn a_majority_makes_sure() {
        let words = |begun: &[u64]| Words {
            shards: vec![word(begun, 5)],
            ..Words::default()
        };
        let own = word(&[1, 2, 3], 5);
        let mut said = BTreeMap::from([(3, words(&[1, 3])), (4, words(&[1, 2, 3]))]);
        assert!(!agreed(&own, 1, &said));
        said.insert(2, words(&[1, 2, 3]));
        assert!(agreed(&own, 1, &said));
        assert!(!agreed(&word(&[1], 5), 1, &said), "itself is no witness");
    }

    #[test]
    fn words_of_another_version_are_read() {
        let text = r#"{"settings":{"a":"1"},"shards":[{"id":1,"name":"x","begun":[1],"last":0,"more":[]}],"other":{}}"#;
        let words: Words = serde_json::from_str(text).unwrap();
        assert_eq!(words.shards[0].begun, [1]);
        assert_eq!(
            serde_json::from_str::<Words>("{}").unwrap(),
            Words::default()
        );
    }
}
