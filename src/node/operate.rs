//! What operators ask of a node of a cluster, and nodes that became known after the start.

use super::cluster::{ClusterNode, Member};
use crate::actors::shard::core::ShardInput;
use crate::gateway::{Doing, NotDone, Operation};
use crate::model::outcome::Refusal;
use crate::peer::{Lane, PeerAddr};
use crate::raft::members::Change;
use bytes::Bytes;
use std::collections::BTreeMap;
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

fn to_text(nodes: &Known) -> String {
    let all: Vec<String> = nodes.iter().map(|(id, at)| format!("{id}={at}")).collect();
    all.join(";")
}

/// Nodes that earlier runs of this node were told of.
pub fn load(dir: &Path) -> Result<Known, String> {
    let file = dir.join(FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => Ok(Known::new()),
        Ok(text) => {
            let nodes = crate::config::parse_nodes(text.trim());
            let nodes = nodes.map_err(|e| format!("{}: {e}", file.display()))?;
            Ok(nodes.into_iter().map(|n| (n.id, n.addr)).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Known::new()),
        Err(e) => Err(format!("{}: {e}", file.display())),
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
                if let Err(error) = super::replace_file(&file, &text) {
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
        let nodes = std::str::from_utf8(bytes).map_err(|e| e.to_string());
        match nodes.and_then(crate::config::parse_nodes) {
            Ok(nodes) => {
                self.learn(nodes.into_iter().map(|n| (n.id, n.addr)).collect());
            }
            Err(error) => tracing::error!(%error, "a peer's list of nodes makes no sense"),
        }
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
                Operation::Node { id, addr } => {
                    let text = format!("{id}={addr}");
                    let node = crate::config::parse_nodes(&text).map_err(NotDone::Refused)?;
                    let known = self.all_nodes();
                    match known.get(&id) {
                        Some(at) if *at == addr => return Ok("known already".into()),
                        Some(at) => {
                            let why = format!("node {id} is known at {at}");
                            return Err(NotDone::Refused(why));
                        }
                        None => {}
                    }
                    match self.learn(node.into_iter().map(|n| (n.id, n.addr)).collect()) {
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
        std::fs::write(dir.path().join(FILE), "4=nonsense").unwrap();
        assert!(load(dir.path()).unwrap_err().contains("nodes.txt"));
    }
}
