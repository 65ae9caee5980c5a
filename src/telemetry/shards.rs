//! Figures of shards and of the links between nodes.

use super::metrics::label_text;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ShardLabel {
    pub shard: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReplicaLabel {
    pub shard: String,
    pub node: u64,
}

/// A quota of a shard, by the name of its setting.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QuotaLabel {
    pub shard: String,
    pub name: &'static str,
}

/// Figures of one quota of a shard.
#[derive(Clone, Debug)]
pub struct QuotaMetrics {
    /// What is used of it, as applied here.
    pub used: Gauge,
    /// Its limit.
    pub limit: Gauge,
    /// Requests refused because of it.
    pub refusals: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PeerLabel {
    pub node: u64,
}
/// Raft figures of one shard replica.
#[derive(Clone, Debug, Default)]
pub struct ShardMetrics {
    /// Current term.
    pub term: Gauge,
    /// Highest committed index.
    pub commit: Gauge,
    /// Highest applied index.
    pub applied: Gauge,
    /// 1 on the leader, else 0.
    pub leader: Gauge,
    /// Leaders seen since the start.
    pub elections: Gauge,
    /// Times this node was asked to hand the lead over while it led.
    pub transfers: Gauge,
    /// 1 while this node has a part in the shard.
    pub member: Gauge,
    /// Requests of clients that went to another node.
    pub forwarded: Counter,
    /// Connections of other nodes' clients, opened because this node leads.
    pub tunnelled: Counter,
    /// Requests that wait for a leader now.
    pub held: Gauge,
    /// Requests that waited for a leader in vain.
    pub held_in_vain: Counter,
    /// Requests that this node began to do and another went on with.
    pub moved_on: Counter,
    /// Entries this node had acknowledged and then lost to another leader (reliability §1).
    pub acked_truncated: Counter,
    /// Starts after which a tail of the log was missing (reliability §1).
    pub unclean_recoveries: Counter,
    /// Snapshots installed here.
    pub snapshots: Counter,
    /// Other replicas whose state differed from this one's at the last comparison.
    pub state_differs: Gauge,
    /// Comparisons that newly found another state.
    pub state_differences: Counter,
    /// Stored log entries found corrupt.
    pub bad_entries: Counter,
    /// Corrupt log entries of which another replica gave a good copy.
    pub mended_entries: Counter,
    /// Corrupt log entries of which no replica has a good copy.
    pub lost_entries: Counter,
    /// Messages of lost entries that reads went past, counted for each read.
    pub skipped_messages: Counter,
    /// Delayed messages given up with a lost entry.
    pub lost_delayed: Counter,
    /// Stored log read by the scrub.
    pub scrubbed: Counter,
    /// Times the scrub has read the whole stored log.
    pub scrubs: Counter,
}

#[derive(Clone, Debug, Default)]
pub struct ShardFamilies {
    pub term: Family<ShardLabel, Gauge>,
    pub commit: Family<ShardLabel, Gauge>,
    pub applied: Family<ShardLabel, Gauge>,
    pub leader: Family<ShardLabel, Gauge>,
    pub elections: Family<ShardLabel, Gauge>,
    pub transfers: Family<ShardLabel, Gauge>,
    pub member: Family<ShardLabel, Gauge>,
    pub forwarded: Family<ShardLabel, Counter>,
    pub tunnelled: Family<ShardLabel, Counter>,
    pub held: Family<ShardLabel, Gauge>,
    pub held_in_vain: Family<ShardLabel, Counter>,
    pub moved_on: Family<ShardLabel, Counter>,
    pub lag: Family<ReplicaLabel, Gauge>,
    pub links: Family<PeerLabel, Gauge>,
    pub settings_differ: Family<PeerLabel, Gauge>,
    pub acked_truncated: Family<ShardLabel, Counter>,
    pub unclean_recoveries: Family<ShardLabel, Counter>,
    pub snapshots: Family<ShardLabel, Counter>,
    pub state_differs: Family<ShardLabel, Gauge>,
    pub state_differences: Family<ShardLabel, Counter>,
    pub bad_entries: Family<ShardLabel, Counter>,
    pub mended_entries: Family<ShardLabel, Counter>,
    pub lost_entries: Family<ShardLabel, Counter>,
    pub skipped_messages: Family<ShardLabel, Counter>,
    pub lost_delayed: Family<ShardLabel, Counter>,
    pub scrubbed: Family<ShardLabel, Counter>,
    pub scrubs: Family<ShardLabel, Counter>,
    pub snapshot_sent: Family<ReplicaLabel, Gauge>,
    pub snapshot_len: Family<ReplicaLabel, Gauge>,
    quota_used: Family<QuotaLabel, Gauge>,
    quota_limit: Family<QuotaLabel, Gauge>,
    quota_refusals: Family<QuotaLabel, Counter>,
}
impl ShardFamilies {
    pub fn register(&self, r: &mut Registry) {
        r.register("raft_term", "Current Raft term", self.term.clone());
        r.register(
            "raft_commit_index",
            "Highest committed index",
            self.commit.clone(),
        );
        r.register(
            "raft_applied_index",
            "Highest applied index",
            self.applied.clone(),
        );
        r.register(
            "raft_leader",
            "1 on the leader of the shard",
            self.leader.clone(),
        );
        r.register(
            "raft_leaders_seen",
            "Leaders of the shard seen since the start",
            self.elections.clone(),
        );
        r.register(
            "raft_transfers",
            "Times the node was asked to hand the lead over while it led",
            self.transfers.clone(),
        );
        r.register(
            "raft_member",
            "1 while the node has a part in the shard",
            self.member.clone(),
        );
        r.register(
            "forwarded_requests",
            "Requests of clients that went to the leader on another node",
            self.forwarded.clone(),
        );
        r.register(
            "tunnelled_connections",
            "Connections of clients to other nodes, opened here because this node leads",
            self.tunnelled.clone(),
        );
        r.register(
            "held_requests",
            "Requests that wait for a leader",
            self.held.clone(),
        );
        r.register(
            "held_in_vain",
            "Requests that waited for a leader in vain",
            self.held_in_vain.clone(),
        );
        r.register(
            "moved_requests",
            "Requests refused here, because the node led no longer, that went to the next leader",
            self.moved_on.clone(),
        );
        r.register(
            "raft_lag_entries",
            "Entries a replica is behind, as its leader knows",
            self.lag.clone(),
        );
        r.register(
            "peer_link_up",
            "1 while both directions of the link to a node are up",
            self.links.clone(),
        );
        r.register(
            "settings_differ",
            "Settings in which a node differs from this one and should not",
            self.settings_differ.clone(),
        );
        r.register(
            "acked_truncated",
            "Acknowledged entries lost to another leader",
            self.acked_truncated.clone(),
        );
        r.register(
            "unclean_recovery",
            "Starts after which a tail of the log was missing",
            self.unclean_recoveries.clone(),
        );
        r.register(
            "snapshots_installed",
            "Snapshots of a leader installed here",
            self.snapshots.clone(),
        );
        r.register(
            "state_differs",
            "Other replicas whose state differs from the one here after the same log",
            self.state_differs.clone(),
        );
        r.register(
            "state_differences",
            "Comparisons of replicas that newly found different states",
            self.state_differences.clone(),
        );
        r.register(
            "bad_entries",
            "Stored log entries found corrupt",
            self.bad_entries.clone(),
        );
        r.register(
            "mended_entries",
            "Corrupt log entries of which another replica gave a good copy",
            self.mended_entries.clone(),
        );
        r.register(
            "lost_entries",
            "Corrupt log entries of which no replica has a good copy",
            self.lost_entries.clone(),
        );
        r.register(
            "skipped_messages",
            "Messages of lost entries that reads went past, counted for each read",
            self.skipped_messages.clone(),
        );
        r.register(
            "lost_delayed_messages",
            "Delayed messages given up with a lost entry",
            self.lost_delayed.clone(),
        );
        r.register_with_unit(
            "scrubbed",
            "Stored log read by the scrub",
            Unit::Bytes,
            self.scrubbed.clone(),
        );
        r.register(
            "scrubs",
            "Times the scrub has read the whole stored log",
            self.scrubs.clone(),
        );
        r.register(
            "quota_used",
            "What is used of a quota of the shard, named like its setting",
            self.quota_used.clone(),
        );
        r.register(
            "quota_limit",
            "The limit of that quota",
            self.quota_limit.clone(),
        );
        r.register(
            "quota_refusals",
            "Requests refused because a quota was used up",
            self.quota_refusals.clone(),
        );
        r.register_with_unit(
            "snapshot_sent",
            "Part of a snapshot on its way that the replica holds, as its leader knows",
            Unit::Bytes,
            self.snapshot_sent.clone(),
        );
        r.register_with_unit(
            "snapshot_size",
            "Length of a snapshot on its way to the replica; 0 for none",
            Unit::Bytes,
            self.snapshot_len.clone(),
        );
    }

    pub fn quota(&self, shard: &str, name: &'static str) -> QuotaMetrics {
        let shard = label_text(shard);
        let label = QuotaLabel { shard, name };
        QuotaMetrics {
            used: self.quota_used.get_or_create_owned(&label),
            limit: self.quota_limit.get_or_create_owned(&label),
            refusals: self.quota_refusals.get_or_create_owned(&label),
        }
    }

    pub fn create(&self, shard: &str) -> ShardMetrics {
        let label = ShardLabel {
            shard: label_text(shard),
        };
        ShardMetrics {
            term: self.term.get_or_create_owned(&label),
            commit: self.commit.get_or_create_owned(&label),
            applied: self.applied.get_or_create_owned(&label),
            leader: self.leader.get_or_create_owned(&label),
            elections: self.elections.get_or_create_owned(&label),
            transfers: self.transfers.get_or_create_owned(&label),
            member: self.member.get_or_create_owned(&label),
            forwarded: self.forwarded.get_or_create_owned(&label),
            tunnelled: self.tunnelled.get_or_create_owned(&label),
            held: self.held.get_or_create_owned(&label),
            held_in_vain: self.held_in_vain.get_or_create_owned(&label),
            moved_on: self.moved_on.get_or_create_owned(&label),
            acked_truncated: self.acked_truncated.get_or_create_owned(&label),
            unclean_recoveries: self.unclean_recoveries.get_or_create_owned(&label),
            snapshots: self.snapshots.get_or_create_owned(&label),
            state_differs: self.state_differs.get_or_create_owned(&label),
            state_differences: self.state_differences.get_or_create_owned(&label),
            bad_entries: self.bad_entries.get_or_create_owned(&label),
            mended_entries: self.mended_entries.get_or_create_owned(&label),
            lost_entries: self.lost_entries.get_or_create_owned(&label),
            skipped_messages: self.skipped_messages.get_or_create_owned(&label),
            lost_delayed: self.lost_delayed.get_or_create_owned(&label),
            scrubbed: self.scrubbed.get_or_create_owned(&label),
            scrubs: self.scrubs.get_or_create_owned(&label),
        }
    }
}
