//! What a node of a cluster has besides: links to the others, a view for people, and the wish that
//! each shard is led by its preferred node.

use super::homing::Homing;
use super::operate::{Known, NO_SHARD};
use super::scrub::Scrubs;
use super::words::{Heard, Unsure};
use crate::actors::clock::NodeClock;
use crate::actors::link::ReplicaLink;
use crate::actors::shard::core::ShardInput;
use crate::actors::shard::handle::ReplicaView;
use crate::actors::shard::ShardHandle;
use crate::config::{Cluster, ClusterShard, Config};
use crate::gateway::ForwardInput;
use crate::model::ShardId;
use crate::peer::{Lane, PeerAddr, PeerEvents, PeerLinks, PeerMessage, PeerOptions, Peers, Tls};
use crate::raft::PeerProgress;
use crate::storage::StoreStats;
use crate::telemetry::Metrics;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// How often the view is brought up to date.
const LOOK: Duration = Duration::from_millis(500);
/// Looks between two times at which peers are told about this node.
const SAY_EVERY: u64 = 20;
/// A replica this many entries and bytes behind may be handed the lead: writes wait until it has
/// them.
const CLOSE: u64 = 1_000;
const CLOSE_BYTES: u64 = 4 << 20;
/// Looks for one to hand over to, at the stop of a leader.
const LOOKS_AT_STOP: u32 = 20;
/// Messages kept for a gateway that is not there yet.
const MAX_EARLY: usize = 10_000;
/// A node that says that it stops does so within this time, or is taken to run on.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Longest a leader waits at its stop for another to take over.
const HAND_OVER: Duration = Duration::from_millis(1_500);

/// The links, known to the shards before they are open.
#[derive(Default)]
pub struct Links {
    peers: OnceLock<Peers>,
}

impl ReplicaLink for Links {
    fn send(&self, shard: ShardId, to: u64, bytes: Bytes) -> bool {
        let peers = self.peers.get();
        peers.is_some_and(|peers| peers.send(to, Lane::Raft, shard.0, bytes))
    }

    fn pulse(&self) -> Option<u64> {
        self.peers.get().map(Peers::pulse)
    }
}

/// A shard's ways in.
struct Way {
    handle: ShardHandle,
    forward: OnceLock<ForwardInput>,
    /// What came for it before it was there, in order: links open first, and peers say at once
    /// which clients they have.
    early: Mutex<Vec<ToForward>>,
}

/// What a shard's gateway hears of other nodes.
enum ToForward {
    Message(u64, Bytes),
    Link(u64, bool),
    Room(u64),
}

impl ToForward {
    fn tell(self, forward: &ForwardInput) {
        match self {
            Self::Message(from, bytes) => forward.deliver(from, bytes),
            Self::Link(peer, up) => forward.link(peer, up),
            Self::Room(peer) => forward.room(peer),
        }
    }
}

impl Way {
    fn forward(&self, what: ToForward) {
        if let Some(forward) = self.forward.get() {
            return what.tell(forward);
        }
        let mut early = self.early.lock();
        match self.forward.get() {
            Some(forward) => what.tell(forward),
            None if early.len() < MAX_EARLY => early.push(what),
            None => {}
        }
    }

    fn set_forward(&self, forward: ForwardInput) {
        let mut early = self.early.lock();
        for what in std::mem::take(&mut *early) {
            what.tell(&forward);
        }
        let _ = self.forward.set(forward);
    }
}

/// Brings what comes from other nodes to the shard it is for, and their clocks to the node's.
struct Router {
    ways: RwLock<BTreeMap<u32, Arc<Way>>>,
    node: OnceLock<Weak<ClusterNode>>,
    clock: Arc<NodeClock>,
}

impl Router {
    fn node(&self) -> Option<Arc<ClusterNode>> {
        self.node.get()?.upgrade()
    }
}

impl Router {
    /// A replica that has nothing takes nothing in before it knows that the group began as it
    /// thinks: all that the log says of members rests on that. What is dropped comes again.
    fn is_early(&self, way: &Way, from: u64) -> bool {
        way.handle.status().last() == 0 && !self.node().is_some_and(|node| node.knows(from))
    }
}

impl PeerEvents for Router {
    fn deliver(&self, from: u64, batch: Vec<PeerMessage>) {
        let ways = self.ways.read();
        for message in batch {
            if message.shard == NO_SHARD {
                if let Some(node) = self.node() {
                    node.heard(from, &message.bytes);
                }
                continue;
            }
            let Some(way) = ways.get(&message.shard) else {
                continue;
            };
            match message.lane {
                Lane::Raft if self.is_early(way, from) => {}
                Lane::Raft => way.handle.input(ShardInput::Message {
                    from,
                    bytes: message.bytes,
                }),
                Lane::Forward => way.forward(ToForward::Message(from, message.bytes)),
                Lane::Bulk => {}
            }
        }
    }

    fn clock(&self, peer: u64, wall_ms: i64) {
        self.clock.heard(peer, wall_ms);
    }

    fn room(&self, peer: u64) {
        for way in self.ways.read().values() {
            way.forward(ToForward::Room(peer));
        }
    }

    fn link(&self, peer: u64, outgoing: bool, up: bool) {
        if let (true, Some(node)) = (up, self.node()) {
            // It is back, or was never gone.
            node.stopping.lock().remove(&peer);
            if outgoing {
                node.tell(peer);
                node.say(peer);
            }
        }
        if let (false, false, Some(node)) = (outgoing, up, self.node()) {
            node.forget_words(peer);
        }
        for way in self.ways.read().values() {
            if !up {
                way.handle.input(ShardInput::PeerLost { node: peer });
            }
            way.forward(ToForward::Link(peer, up));
        }
    }
}

/// One shard of this node.
pub struct Member {
    pub place: ClusterShard,
    pub handle: ShardHandle,
    pub(super) view: Mutex<View>,
}

/// The replicas as seen last, and when each was level with the leader.
#[derive(Default)]
pub(super) struct View {
    pub replicas: ReplicaView,
    pub level: BTreeMap<u64, Instant>,
}

/// See the module text.
pub struct ClusterNode {
    pub(super) config: Arc<Config>,
    pub(super) cluster: Cluster,
    pub(super) members: Vec<Member>,
    router: Arc<Router>,
    links: Mutex<Option<PeerLinks>>,
    pub(super) peers: Peers,
    /// Nodes that are not in the configuration.
    pub(super) extra: Arc<Mutex<Known>>,
    /// Nodes that said that they stop, and when.
    pub(super) stopping: Mutex<BTreeMap<u64, Instant>>,
    /// Held while their list is written.
    pub(super) keeps_list: Arc<Mutex<()>>,
    pub(super) stats: Arc<StoreStats>,
    /// What other nodes said of themselves, and what came of it.
    pub(super) words: Mutex<Heard>,
    pub(super) scrubs: OnceLock<Arc<Scrubs>>,
}

/// Reads the secret and the certificates.
fn options(config: &Config, cluster: &Cluster) -> Result<PeerOptions, String> {
    let others = cluster.nodes.iter().filter(|n| n.id != config.node_id);
    let peers = others.map(|n| PeerAddr {
        id: n.id,
        addr: n.addr.clone(),
    });
    let mut options = PeerOptions::new(&*config.cluster_id, config.node_id, peers.collect());
    options.secret = config.read_cluster_secret()?.into_bytes();
    let names: Vec<&str> = cluster.shards.iter().map(|s| s.name.as_str()).collect();
    options.agreed = crc32fast::hash(names.join(";").as_bytes()).into();
    options.pulse_every = Duration::from_millis((config.raft_ticks().0 / 2).clamp(2, 10));
    if !config.peer_tls_cert_file.is_empty() {
        let read = |file: &str| std::fs::read(file).map_err(|e| format!("{file}: {e}"));
        let tls = Tls::new(
            &read(&config.peer_tls_cert_file)?,
            &read(&config.peer_tls_key_file)?,
            &read(&config.peer_tls_ca_file)?,
        );
        options.tls = Some(tls.map_err(|e| e.to_string())?);
    }
    Ok(options)
}

impl ClusterNode {
    /// Opens the links to the other nodes. `links` is what the shards were started with.
    pub fn start(
        config: Arc<Config>,
        cluster: Cluster,
        shards: Vec<(ClusterShard, ShardHandle)>,
        links: &Links,
        stats: Arc<StoreStats>,
        clock: Arc<NodeClock>,
        unsure: Unsure,
    ) -> Result<Arc<Self>, String> {
        let options = options(&config, &cluster)?;
        let listener =
            crate::peer::bind(&config.bind_host, config.peer_listen_port).map_err(|e| {
                format!(
                    "cannot listen on {}:{} (peers): {e}",
                    config.bind_host, config.peer_listen_port
                )
            })?;
        let router = Arc::new(Router {
            ways: RwLock::default(),
            node: OnceLock::new(),
            clock,
        });
        for (place, handle) in &shards {
            let way = Way {
                handle: handle.clone(),
                forward: OnceLock::new(),
                early: Mutex::default(),
            };
            router.ways.write().insert(place.id, Arc::new(way));
        }
        let running = PeerLinks::start(listener, options, router.clone())
            .map_err(|e| format!("links to peers: {e}"))?;
        let peers = running.peers();
        let _ = links.peers.set(peers.clone());
        let members = shards.into_iter().map(|(place, handle)| Member {
            place,
            handle,
            view: Mutex::default(),
        });
        let dir = std::path::PathBuf::from(&config.data_dir);
        let node = Arc::new(Self {
            config,
            cluster,
            members: members.collect(),
            router: router.clone(),
            links: Mutex::new(Some(running)),
            peers,
            extra: Arc::default(),
            stopping: Mutex::default(),
            keeps_list: Arc::default(),
            stats,
            words: Mutex::new(Heard::new(unsure)),
            scrubs: OnceLock::new(),
        });
        let _ = router.node.set(Arc::downgrade(&node));
        node.learn(super::operate::load(&dir)?);
        // Links that came up before.
        for peer in node.peers.states().keys() {
            node.tell(*peer);
            node.say(*peer);
        }
        Ok(node)
    }

    /// The links.
    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Where forwarded requests of a shard go from now on.
    pub fn set_forward(&self, shard: u32, input: ForwardInput) {
        if let Some(way) = self.router.ways.read().get(&shard) {
            way.set_forward(input);
        }
    }

    /// Keeps the view and the metrics up to date and gives leadership back to preferred nodes,
    /// until dropped.
    pub async fn watch(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut homing: BTreeMap<u32, Homing> = BTreeMap::new();
        let mut looks = 0u64;
        loop {
            ticks.tick().await;
            for (peer, link) in self.peers.states() {
                let up = link.outgoing && link.incoming;
                metrics.peer_link(peer).set(i64::from(up));
                let differ = self.words.lock().differences(peer).len();
                metrics.settings_differ(peer).set(differ as i64);
            }
            looks += 1;
            if looks.is_multiple_of(SAY_EVERY) {
                self.peers.states().keys().for_each(|peer| self.say(*peer));
            }
            self.go_by_words();
            self.say_digests();
            for member in &self.members {
                let Some(view) = member.handle.replicas().await else {
                    continue;
                };
                metrics
                    .shard(&member.place.name)
                    .elections
                    .set(member.handle.status().elections() as i64);
                for other in &view.others {
                    let lag = view.last.saturating_sub(other.matched);
                    metrics
                        .replica_lag(&member.place.name, other.node)
                        .set(lag as i64);
                    let (sent, len) = metrics.snapshot_progress(&member.place.name, other.node);
                    sent.set(other.snapshot_sent as i64);
                    len.set(other.snapshot_len as i64);
                }
                let preferred = member.place.nodes.first().copied().unwrap_or_default();
                let before = member.view.lock().replicas.clone();
                let odd = member.handle.status().compared().others;
                let fit =
                    !odd.contains(&preferred) && self.may_hand_over(&view, &before, preferred);
                let homing = homing.entry(member.place.id).or_default();
                if homing.look(self.leads(member), fit, Instant::now()) {
                    tracing::info!(
                        shard = %member.place.name,
                        to = preferred,
                        "leadership goes back to the preferred node"
                    );
                    member.handle.input(ShardInput::Transfer { to: preferred });
                }
                let metrics = metrics.shard(&member.place.name);
                metrics
                    .transfers
                    .set(member.handle.status().transfers() as i64);
                metrics
                    .member
                    .set(i64::from(member.handle.status().is_member()));
                let now = Instant::now();
                let mut seen = member.view.lock();
                for other in &view.others {
                    // Level with what the leader had at the last look.
                    if other.matched >= seen.replicas.last {
                        seen.level.insert(other.node, now);
                    }
                }
                seen.level
                    .retain(|node, _| view.others.iter().any(|o| o.node == *node));
                seen.replicas = view;
            }
        }
    }

    fn leads(&self, member: &Member) -> bool {
        member.handle.status().serving()
    }

    /// The node said a while ago that it stops, and has not come back since.
    fn stops(&self, node: u64) -> bool {
        let said = self.stopping.lock().get(&node).copied();
        said.is_some_and(|at| at.elapsed() < STOP_WITHIN)
    }

    /// The node may be handed the lead. `before` is an earlier look: one that answers, but whose
    /// log stands still although there is more for it, has a disk that hangs.
    fn may_hand_over(&self, view: &ReplicaView, before: &ReplicaView, to: u64) -> bool {
        let fit = |o: &&PeerProgress| o.node == to && o.voter && o.active && !o.snapshot;
        let Some(now) = view.others.iter().find(fit) else {
            return false;
        };
        let was = before.others.iter().find(|o| o.node == to);
        let writes = now.matched >= view.last || was.is_some_and(|was| now.matched > was.matched);
        to != self.config.node_id
            && self.peers.connected(to)
            && !self.stops(to)
            && view.last <= now.matched + CLOSE
            && now.behind.is_some_and(|bytes| bytes <= CLOSE_BYTES)
            && writes
    }

    fn stays(&self, node: u64) -> bool {
        self.peers.connected(node) && !self.stops(node)
    }

    /// Gives away what this node leads, so that clients see no election. Returns when it is done,
    /// or after a while.
    pub async fn hand_over(&self) {
        let begun = Instant::now();
        // Links and replicas stay up while clients are served to the end: without this the lead
        // would be given back meanwhile.
        for peer in self.peers.states().keys() {
            let word = Bytes::from_static(super::operate::STOPPING);
            self.peers.send(*peer, Lane::Bulk, NO_SHARD, word);
        }
        let mut handed = false;
        let mut left: Vec<_> = self.members.iter().filter(|m| self.leads(m)).collect();
        let seen = left.iter().map(|m| m.view.lock().replicas.clone());
        let mut seen: Vec<ReplicaView> = seen.collect();
        // Between two looks in a row a log under load may not have moved.
        for _ in 0..LOOKS_AT_STOP {
            let mut again = (Vec::new(), Vec::new());
            for (member, before) in left.into_iter().zip(seen) {
                let Some(view) = member.handle.replicas().await else {
                    continue;
                };
                let fit = view.others.iter();
                let odd = member.handle.status().compared().others;
                let fit = fit.filter(|o| {
                    !odd.contains(&o.node) && self.may_hand_over(&view, &before, o.node)
                });
                match fit.max_by_key(|o| o.matched) {
                    Some(best) => {
                        let to = best.node;
                        tracing::info!(shard = %member.place.name, to, "handing over the lead");
                        handed = true;
                        member.handle.input(ShardInput::Transfer { to });
                    }
                    None if view.others.iter().any(|o| self.stays(o.node)) => {
                        again.0.push(member);
                        again.1.push(before);
                    }
                    None => {}
                }
            }
            (left, seen) = again;
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while handed && self.members.iter().any(|m| self.leads(m)) && begun.elapsed() < HAND_OVER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closes the links. Blocks.
    pub fn stop(&self) {
        if let Some(links) = self.links.lock().take() {
            links.stop();
        }
    }
}
