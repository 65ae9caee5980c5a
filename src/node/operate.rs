//! What operators ask of a node of a cluster, and nodes that became known after the start.

use super::cluster::{ClusterNode, Member};
use crate::actors::shard::core::ShardInput;
use crate::gateway::{Doing, NotDone, Operation};
use crate::model::outcome::Refusal;
use crate::peer::{Lane, PeerAddr};
use crate::raft::members::Change;
use crate::storage::points::FailPoint;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// File with the nodes that the configuration does not list.
const FILE: &str = "nodes.txt";
/// Messages between nodes about the cluster itself have this for a shard.
pub const NO_SHARD: u32 = 0;
/// Instead of a list of nodes: the node stops, and is not to lead any more.
pub(super) const STOPPING: &[u8] = b"stopping";
/// Longest a transfer is waited for.
const TRANSFER_WITHIN: Duration = Duration::from_secs(3);
/// Most nodes that may become known.
const MAX_NODES: usize = 64;

/// Nodes by id, with the addresses of their peer ports.
pub type Known = BTreeMap<u64, String>;

/// The list as it is told and kept: what every version can read has each address once, and the
/// node with the smallest number keeps it.
fn to_text(nodes: &Known) -> String {
    let mut taken = BTreeSet::new();
    let all = nodes.iter().filter(|(_, at)| taken.insert(*at));
    let all: Vec<String> = all.map(|(id, at)| format!("{id}={at}")).collect();
    all.join(";")
}

/// What can be read of a list of nodes; the rest is named in the log.
fn from_text(text: &str, from: &str) -> Known {
    let (nodes, bad) = crate::config::read_nodes(text);
    for why in bad {
        tracing::error!(%why, from, "a node in a list of nodes makes no sense and is left out");
    }
    nodes.into_iter().map(|n| (n.id, n.addr)).collect()
}

/// Nodes that earlier runs of this node were told of.
pub fn load(dir: &Path) -> Result<Known, String> {
    let file = dir.join(FILE);
    match std::fs::read(&file) {
        Ok(bytes) => Ok(from_text(&String::from_utf8_lossy(&bytes), FILE)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Known::new()),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

/// The node that an operator names, when it is one and another than those known.
fn newcomer(known: &Known, id: u64, addr: &str) -> Result<Option<(u64, String)>, String> {
    let node = crate::config::parse_node(&format!("{id}={addr}"))?;
    match known.get(&id) {
        Some(at) if *at == node.addr => return Ok(None),
        Some(at) => return Err(format!("node {id} is known at {at}")),
        None => {}
    }
    match known.iter().find(|(_, at)| **at == node.addr) {
        Some((other, at)) => Err(format!("{at} is the address of node {other}")),
        None => Ok(Some((node.id, node.addr))),
    }
}

impl ClusterNode {
    /// Takes in nodes that somebody knows; those that are news are linked, kept and passed on.
    /// An id that is known keeps its address.
    pub(super) fn learn(&self, nodes: Known) -> bool {
        let mut extra = self.extra.lock();
        let mut news = false;
        for (id, addr) in nodes {
            let known = self.cluster.nodes.iter().any(|n| n.id == id) || extra.contains_key(&id);
            if known || extra.len() + self.cluster.nodes.len() >= MAX_NODES {
                continue;
            }
            tracing::info!(node = id, %addr, "another node of the cluster");
            let new = PeerAddr {
                id,
                addr: addr.clone(),
            };
            self.peers.add(new);
            extra.insert(id, addr);
            news = true;
        }
        if news {
            drop(extra);
            let file = PathBuf::from(&self.config.data_dir).join(FILE);
            let (list, keeps) = (self.extra.clone(), self.keeps_list.clone());
            // Links must not wait for the disk.
            std::thread::spawn(move || {
                // Whoever comes last writes the newest list.
                let _one = keeps.lock();
                let text = to_text(&list.lock());
                let at = [FailPoint::NodesWritten, FailPoint::NodesRenamed];
                if let Err(error) = super::replace_file(&file, &text, at) {
                    tracing::error!(%error, "the list of nodes cannot be kept");
                }
            });
            for peer in self.peers.states().keys() {
                self.tell(*peer);
            }
        }
        news
    }

    /// What a peer says about itself, or the nodes it knows.
    pub(super) fn heard(&self, from: u64, bytes: &Bytes) {
        if bytes[..] == *STOPPING {
            tracing::info!(node = from, "another node stops");
            self.stopping.lock().insert(from, Instant::now());
            return;
        }
        if bytes.first() == Some(&b'{') {
            return self.hear_words(from, bytes);
        }
        // Two nodes that were let in at one address, at two places: whoever is there proves its
        // number, and the other one is never reached.
        self.learn(from_text(&String::from_utf8_lossy(bytes), "a peer"));
    }

    /// Tells a peer all nodes.
    pub(super) fn tell(&self, peer: u64) {
        let all = to_text(&self.all_nodes());
        self.peers.send(peer, Lane::Bulk, NO_SHARD, all.into());
    }

    /// Configured nodes and those that became known.
    pub(super) fn all_nodes(&self) -> Known {
        let mut all = self.extra.lock().clone();
        all.extend(self.cluster.nodes.iter().map(|n| (n.id, n.addr.clone())));
        all
    }

    fn member_named(&self, shard: &str) -> Result<&Member, NotDone> {
        let found = self.members.iter().find(|m| m.place.name == shard);
        found.ok_or_else(|| NotDone::Unknown(format!("no shard {shard} here")))
    }

    /// Does it.
    pub(super) fn operation(self: Arc<Self>, operation: Operation) -> Doing {
        Box::pin(async move {
            match operation {
                Operation::Transfer { shard, to } => self.transfer(&shard, to).await,
                Operation::Members {
                    shard,
                    learners,
                    voters,
                    remove,
                } => {
                    let learners = learners.into_iter().map(Change::AddLearner);
                    let voters = voters.into_iter().map(Change::AddVoter);
                    let remove = remove.into_iter().map(Change::Remove);
                    let changes = learners.chain(voters).chain(remove).collect();
                    self.change_members(&shard, changes).await
                }
                Operation::Form { shard } => self.form(&shard).await,
                Operation::Scrub { shards } => match self.scrubs.get() {
                    Some(scrubs) => scrubs.at_once(&shards).map_err(NotDone::Unknown),
                    None => Err(NotDone::Refused("the node is starting".into())),
                },
                Operation::Node { id, addr } => {
                    let node = newcomer(&self.all_nodes(), id, &addr);
                    let Some(node) = node.map_err(NotDone::Refused)? else {
                        return Ok("known already".into());
                    };
                    match self.learn([node].into()) {
                        true => Ok(format!("node {id} is let in")),
                        false => Err(NotDone::Refused("too many nodes".into())),
                    }
                }
            }
        })
    }

    async fn transfer(&self, shard: &str, to: u64) -> Result<String, NotDone> {
        let member = self.member_named(shard)?;
        let mut lead = member.handle.status().lead();
        if lead.borrow().leader == to {
            return Ok(format!("node {to} leads already"));
        }
        if !member.handle.status().serving() {
            return Err(NotDone::Leader(lead.borrow().leader));
        }
        let view = member.handle.replicas().await.unwrap_or_default();
        match view.others.iter().find(|o| o.node == to) {
            Some(o) if o.voter && o.active && !o.snapshot => {}
            Some(o) if o.voter => {
                return Err(NotDone::Refused(format!("node {to} is not up to date")))
            }
            _ => return Err(NotDone::Refused(format!("node {to} has no vote"))),
        }
        member.handle.input(ShardInput::Transfer { to });
        let begun = Instant::now();
        while begun.elapsed() < TRANSFER_WITHIN {
            if lead.borrow_and_update().leader == to {
                let took = begun.elapsed().as_millis();
                return Ok(format!("node {to} leads {shard} after {took} ms"));
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), lead.changed()).await;
        }
        Err(NotDone::Refused(format!(
            "node {to} did not take over within {TRANSFER_WITHIN:?}; the lead stays"
        )))
    }

    /// The operator says that a replica is its shard's only one.
    async fn form(&self, shard: &str) -> Result<String, NotDone> {
        let member = self.member_named(shard)?;
        let status = member.handle.status();
        if !status.lone() {
            let why = format!("the replica of {shard} here does not wait for that");
            return Err(NotDone::Refused(why));
        }
        if status.owed() > 0 {
            return Err(NotDone::Refused(format!(
                "the replica of {shard} here lost what it had synced up to {}: it begins with less only by \
                 troupe cluster rescue",
                status.owed()
            )));
        }
        tracing::warn!(
            event = "formed",
            shard,
            "an operator says that this node is its only replica"
        );
        member.handle.input(ShardInput::Form);
        let mut lead = status.lead();
        let begun = Instant::now();
        while begun.elapsed() < TRANSFER_WITHIN {
            if lead.borrow_and_update().serving {
                return Ok(format!("{shard} begins on node {}", self.config.node_id));
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), lead.changed()).await;
        }
        Err(NotDone::Refused(format!("{shard} does not serve yet")))
    }

    async fn change_members(&self, shard: &str, changes: Vec<Change>) -> Result<String, NotDone> {
        let member = self.member_named(shard)?;
        let known = self.all_nodes();
        for change in &changes {
            let (Change::AddVoter(node) | Change::AddLearner(node)) = change else {
                continue;
            };
            if !known.contains_key(node) {
                return Err(NotDone::Refused(format!(
                    "no address of node {node} is known"
                )));
            }
        }
        match member.handle.change_members(changes).await {
            Ok(index) => Ok(format!("members of {shard} changed at index {index}")),
            Err(Refusal::NotLeader) => {
                let leader = member.handle.status().lead().borrow().leader;
                Err(NotDone::Leader(leader))
            }
            Err(Refusal::Busy) => {
                let why = "another change of members is under way";
                Err(NotDone::Refused(why.into()))
            }
            Err(why) => Err(NotDone::Refused(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_nodes_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Ok(Known::new()));
        let nodes: Known = [(4, "10.0.0.4:10912".to_owned()), (9, "h:1".to_owned())].into();
        std::fs::write(dir.path().join(FILE), to_text(&nodes)).unwrap();
        assert_eq!(load(dir.path()), Ok(nodes));
        let bad = b"4=10.0.0.4:10912;4;5=x;6=h:0;0=h:3;\xff=h:4;7=h:7";
        std::fs::write(dir.path().join(FILE), bad).unwrap();
        let read: Known = [(4, "10.0.0.4:10912".to_owned()), (7, "h:7".to_owned())].into();
        assert_eq!(load(dir.path()), Ok(read));
    }

    #[test]
    fn an_operator_names_exactly_one_node_that_no_other_is_in_the_place_of() {
        let known: Known = [(1, "a:1".to_owned()), (4, "d:1".to_owned())].into();
        let new = |id, addr| newcomer(&known, id, addr);
        assert_eq!(new(5, " e:1 "), Ok(Some((5, "e:1".to_owned()))));
        assert_eq!(new(4, "d:1"), Ok(None));
        assert!(new(4, "d:2").unwrap_err().contains("known at d:1"));
        assert!(new(5, "d:1").unwrap_err().contains("node 4"));
        for several in [
            "e:1;6=f:1",
            "e:1,6=f:1",
            "e:1 6=f:1",
            "e:1\n",
            "e;f:1",
            "",
            ":1",
        ] {
            let accepted = new(5, several);
            let one = Ok(Some((5, "e:1".to_owned())));
            assert!(accepted.is_err() || accepted == one, "{several:?}");
        }
        assert!(new(0, "e:1").is_err());
    }

    #[test]
    fn what_is_kept_can_be_read_by_every_version() {
        // Two operators let in two nodes at one address, at two nodes.
        let known: Known = [
            (4, "h:1".to_owned()),
            (5, "h:1".to_owned()),
            (6, "h:2".to_owned()),
        ]
        .into();
        assert_eq!(to_text(&known), "4=h:1;6=h:2");
    }
}
