//! What a node of a cluster shows to people and programs.

use super::cluster::ClusterNode;
use super::figures;
use crate::actors::shard::status::ShardStatus;
use crate::gateway::{Doing, NodeView, Operation};
use crate::raft::PeerProgress;
use crate::storage::StoreStats;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// An ordinary election takes less time; before it a node was silent for the election timeout.
const CUT_OFF: Duration = Duration::from_millis(300);

/// Bytes of an entry of the log on average.
fn entry_bytes(stats: &StoreStats) -> u64 {
    let entries = stats.entries.load(Ordering::Relaxed);
    stats
        .bytes
        .load(Ordering::Relaxed)
        .checked_div(entries)
        .unwrap_or(0)
}

impl NodeView for ClusterNode {
    fn not_ready(&self) -> Option<String> {
        if let Some(why) = self.stopped() {
            return Some(why);
        }
        for member in &self.members {
            let status = member.handle.status();
            if !status.is_member() {
                continue;
            }
            if status.lone() {
                return Some(format!("{}: {}", member.place.name, self.lone_line(member)));
            }
            if let Some(why) = status.failed() {
                return Some(format!("{}: {why}", member.place.name));
            }
            if status.lead().borrow().leader == 0 {
                let owed = match status.owed() {
                    0 => String::new(),
                    owed => format!(
                        "; this replica lost what it had synced up to {owed} and waits for one that \
                         has it, or for an operator: troupe cluster rescue"
                    ),
                };
                return Some(format!("{}: no leader{owed}", member.place.name));
            }
        }
        None
    }

    fn is_cut_off(&self) -> bool {
        let mut own = self.members.iter().map(|m| m.handle.status());
        let mut own = own.by_ref().filter(|status| status.is_member()).peekable();
        // A leader keeps its lead for up to two of its election timeouts without hearing anybody.
        let alone = |s: &ShardStatus| s.leaderless_for().max(s.unconfirmed_for()) >= CUT_OFF;
        own.peek().is_some() && own.all(|status| alone(status))
    }

    fn cluster(&self) -> String {
        let states = self.peers.states();
        let words = self.words.lock();
        let nodes = self.all_nodes().into_iter().map(|(id, addr)| {
            let link = states.get(&id).map(|s| {
                json!({
                    "outgoing": s.outgoing, "incoming": s.incoming, "connects": s.connects,
                    "dropped": s.dropped, "queued_bytes": s.queued,
                })
            });
            let differ = words
                .differences(id)
                .iter()
                .map(|d| json!({"what": d.what, "here": d.here, "there": d.there}));
            let differ: Vec<_> = differ.collect();
            json!({"id": id, "addr": addr, "link": link, "differs": differ})
        });
        let shards = self.members.iter().map(|member| {
            let status = member.handle.status();
            let lead = *status.lead().borrow();
            let seen = member.view.lock();
            let view = &seen.replicas;
            let behind_ms = |o: &PeerProgress| match view.last.saturating_sub(o.matched) {
                0 => Some(0),
                _ => seen
                    .level
                    .get(&o.node)
                    .map(|at| at.elapsed().as_millis() as u64),
            };
            // Where it is not known: entries differ in size, but their average is near enough for
            // people.
            let entry = entry_bytes(&self.stats);
            let behind = |o: &PeerProgress| {
                let entries = view.last.saturating_sub(o.matched);
                o.behind.unwrap_or(entries.saturating_mul(entry))
            };
            let others = view.others.iter().map(|o| {
                json!({
                    "node": o.node, "matched": o.matched, "voter": o.voter, "active": o.active,
                    "snapshot": o.snapshot, "lag_entries": view.last.saturating_sub(o.matched),
                    "lag_bytes": behind(o),
                    "lag_ms": behind_ms(o),
                    "snapshot_sent": o.snapshot_sent, "snapshot_bytes": o.snapshot_len,
                })
            });
            json!({
                "id": member.place.id, "name": member.place.name, "port": member.place.port,
                "preferred": member.place.nodes.first(), "nodes": member.place.nodes,
                "leader": lead.leader, "term": lead.term, "serving": lead.serving,
                "committed": status.committed(), "applied": status.applied(), "last": view.last,
                "voters": view.voters, "learners": view.learners,
                "member": status.is_member(), "transfers": status.transfers(),
                "elections": status.elections(), "failed": status.failed(),
                "recovering": status.recovering(), "lone": status.lone(), "owed": status.owed(),
                "snapshots_installed": status.snapshots(),
                "state_differs_from": status.compared().others,
                "state_differs_at": status.compared().index,
                "outvoted": status.compared().outvoted,
                "snapshot_received": status.receiving().0,
                "snapshot_bytes": status.receiving().1,
                "losses": figures::losses(&status.losses()),
                "damage": figures::damage(&member.handle.damage()),
                "scrub": figures::scrub(self.scrubs.get().map(|s| &**s), &member.place.name),
                "replicas": others.collect::<Vec<_>>(),
            })
        });
        json!({
            "cluster_id": self.config.cluster_id,
            "node_id": self.config.node_id,
            "nodes": nodes.collect::<Vec<_>>(),
            "shards": shards.collect::<Vec<_>>(),
        })
        .to_string()
    }

    fn operate(self: Arc<Self>, operation: Operation) -> Doing {
        self.operation(operation)
    }
}
