//! Registers this broker with every name server: at start, on every change of its topics, in
//! between every 30 s, and says goodbye at the stop (remoting-admin §8).

use super::admin;
use super::membership::{Claim, CLOCK, PROOF, TERM};
use super::shared::{now_ms, BrokerSide, Shared};
use crate::actors::registry::Registry;
use crate::actors::shard::status::Lead;
use crate::routing::{AdvertisedAddr, BrokerRegistration, DataVersion, RouteTopic};
use crate::wire::message::crc::body_crc;
use crate::wire::remoting::body::{self, RegisterBrokerBody};
use crate::wire::remoting::code::{request as code, response as rc, VERSION};
use crate::wire::remoting::frame::HeaderFormat;
use crate::wire::remoting::{
    encode_request, split_frame, Command, FrameLimits, RequestHeader, Val,
};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest a name server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(24);
/// Longest a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the tables are looked at for changes that nobody announced.
const POLL: Duration = Duration::from_millis(100);
/// Shortest time between two registrations with the registry of this process.
const APART: Duration = Duration::from_millis(10);
/// Longest the goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Shortest time between two attempts that do not follow the clock.
const AGAIN: Duration = Duration::from_millis(200);
/// A name server that failed is tried again after this time: one that restarted tells clients of
/// none but the brokers that found it already.
const RETRY: Duration = Duration::from_millis(300);

/// Largest body of a registration, bytes: name servers, stock ones too, close a connection that
/// sends a frame of 16 MiB.
const MAX_BODY: usize = 16 * 1024 * 1024 - 64 * 1024;
/// A larger one is compressed.
const MAX_PLAIN: usize = 4 * 1024 * 1024;

/// As what this broker registers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Role {
    /// 0 for the leader, the node's id for the others.
    broker_id: i64,
    /// Raft's term, in a cluster: a name server keeps the latest leader.
    term: Option<u64>,
    /// It has a part in the shard; else no name server is to know it.
    member: bool,
}

impl Role {
    fn of(shared: &Shared) -> Self {
        let Some(forward) = &shared.forward else {
            return Self {
                broker_id: 0,
                term: None,
                member: true,
            };
        };
        let lead = forward.lead();
        let follower = i64::try_from(shared.config.node_id).unwrap_or(i64::MAX);
        Self {
            broker_id: if forward.serving() { 0 } else { follower },
            term: Some(lead.term),
            member: forward.is_member(),
        }
    }
}

/// Registers with the registry of this process; whether it took the table.
pub async fn register_here(shared: &Shared, broker: &BrokerSide, registry: &Registry) -> bool {
    let meta = broker.shard.meta();
    let topics: Vec<RouteTopic> = meta
        .named_topics()
        .into_iter()
        .map(|(name, topic)| RouteTopic::new(name, &topic))
        .collect();
    let addr = advertised(shared);
    let role = Role::of(shared);
    if !role.member {
        return true;
    }
    let registration = BrokerRegistration {
        cluster: shared.config.cluster_name.clone(),
        broker_name: shared.broker_name.clone(),
        broker_id: role.broker_id,
        addr,
        ha_addr: String::new(),
        zone: None,
        enable_acting_master: false,
        heartbeat_timeout_ms: None,
        data_version: version(shared, broker),
        topics: Some(topics),
        filter_servers: Vec::new(),
        term: role.term,
        troupe: true,
    };
    let taken = registry.register(registration, None).await;
    if let Err(error) = &taken {
        tracing::warn!(%error, "the name server of this node refused the registration");
    }
    taken.is_ok()
}

async fn unregister_here(shared: &Shared, registry: &Registry) {
    let cluster = shared.config.cluster_name.clone();
    let name = shared.broker_name.clone();
    let id = Role::of(shared).broker_id;
    let _ = registry
        .unregister(cluster, name, id, advertised(shared))
        .await;
}

fn advertised(shared: &Shared) -> AdvertisedAddr {
    let port = shared.port();
    match shared.broker_ip {
        Some(ip) => AdvertisedAddr::Fixed(SocketAddr::new(ip, port).to_string()),
        None => AdvertisedAddr::Listening(port),
    }
}

fn version(shared: &Shared, broker: &BrokerSide) -> DataVersion {
    admin::data_version(broker, shared.started_ms)
}

/// Runs until the node stops: registers with the registry of this process and with the
/// configured name servers, each on a task of its own, so that a slow one delays nobody.
pub async fn run(shared: Arc<Shared>, broker: BrokerSide) {
    let (tell, _) = tokio::sync::watch::channel(0u64);
    let remotes: Vec<_> = shared
        .config
        .namesrv_addrs()
        .into_iter()
        .enumerate()
        .map(|(number, addr)| {
            let to = Remote { number, addr };
            let remote = remote(shared.clone(), broker.clone(), to, tell.subscribe());
            tokio::task::spawn_local(remote)
        })
        .collect();
    // The registry of this process comes after them.
    let here = remotes.len();
    let period = Duration::from_secs(shared.config.register_period_secs);
    let mut lead = shared.forward.as_ref().map(|f| f.watch());
    let mut seen = None;
    let mut tells = 0;
    let mut last = tokio::time::Instant::now();
    while !shared.is_stopping() {
        let now = (broker.shard.meta().version(), Role::of(&shared));
        if seen != Some(now) || last.elapsed() >= period {
            let left = seen.is_some_and(|(_, role): (_, Role)| role.member) && !now.1.member;
            if let Some(registry) = &shared.registry {
                let taken = match left {
                    true => {
                        unregister_here(&shared, registry).await;
                        true
                    }
                    false => register_here(&shared, &broker, registry).await,
                };
                shared.announced.report(here, taken.then_some(now.0));
            }
            if seen != Some(now) {
                tells += 1;
                tell.send_replace(tells);
            }
            seen = Some(now);
            last = tokio::time::Instant::now();
            // What changes meanwhile goes together: a registration is the whole table.
            tokio::time::sleep(APART).await;
        }
        tokio::select! {
            () = shared.meta_changed.notified() => {}
            () = changed(lead.as_mut()) => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    if let Some(registry) = &shared.registry {
        unregister_here(&shared, registry).await;
    }
    drop(tell);
    for remote in remotes {
        let _ = tokio::time::timeout(GOODBYE, remote).await;
    }
}

/// Waits for another leader; for ever outside of a cluster.
async fn changed(lead: Option<&mut tokio::sync::watch::Receiver<Lead>>) {
    match lead {
        Some(lead) => {
            if lead.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// A configured name server.
struct Remote {
    /// Its place among them.
    number: usize,
    addr: String,
}

async fn remote(
    shared: Arc<Shared>,
    broker: BrokerSide,
    Remote { number, addr }: Remote,
    mut changed: tokio::sync::watch::Receiver<u64>,
) {
    let period = Duration::from_secs(shared.config.register_period_secs);
    let mut link: Option<Link> = None;
    let mut failing = false;
    loop {
        changed.mark_unchanged();
        // Read before the table is: what is sent is at least as new.
        let version = broker.shard.meta().version();
        let done = register_remote(&shared, &broker, &addr, &mut link).await;
        let taken = done.is_ok().then_some(version);
        shared.announced.report(number, taken);
        match &done {
            Ok(()) if failing => tracing::info!(name_server = %addr, "registered again"),
            Ok(()) => {}
            Err(error @ LinkError::TooLarge(_)) if !failing => {
                tracing::error!(name_server = %addr, %error, "cannot register");
            }
            Err(error) if !failing => {
                tracing::warn!(name_server = %addr, %error, "cannot register");
            }
            Err(_) => {}
        }
        failing = done.is_err();
        let wait = match &done {
            // Not before it has become smaller.
            Ok(()) | Err(LinkError::TooLarge(_)) => period,
            Err(_) => RETRY.min(period),
        };
        tokio::select! {
            told = changed.changed() => if told.is_err() { break },
            () = tokio::time::sleep(wait) => {}
            () = closed(link.as_mut()) => {
                // It restarted, or thinks we are gone: it has forgotten us.
                link = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
        if failing {
            // Many changes must not become many attempts at a server that is not there.
            tokio::time::sleep(AGAIN).await;
        }
    }
    if let Some(mut link) = link {
        let _ = goodbye(&shared, &mut link).await;
    }
}

/// Waits until the name server closes the connection; for ever without one.
async fn closed(link: Option<&mut Link>) {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    let mut rest = [0u8; 1_024];
    // Anything it says between two requests is not for us.
    while matches!(link.stream.read(&mut rest).await, Ok(n) if n > 0) {}
}

async fn register_remote(
    shared: &Shared,
    broker: &BrokerSide,
    addr: &str,
    link: &mut Option<Link>,
) -> Result<(), LinkError> {
    let role = Role::of(shared);
    if !role.member {
        if let Some(mut link) = link.take() {
            goodbye(shared, &mut link).await?;
        }
        return Ok(());
    }
    let mut current = match link.take() {
        Some(link) => link,
        None => Link::open(addr).await?,
    };
    let body = Body::of(&RegisterBrokerBody {
        filter_server_list: Vec::new(),
        topic_config_serialize_wrapper: admin::topic_wrapper(broker, shared.started_ms),
    })?;
    let own = shared.store_host(current.local.ip()).to_string();
    let (compressed, crc) = body.header();
    let ext = [
        ("haServerAddr", Val::Str(&own)),
        ("compressed", Val::Bool(compressed)),
        ("bodyCrc32", Val::Int(crc)),
        ("enableActingMaster", Val::Bool(false)),
    ];
    let request = (code::REGISTER_BROKER, body.bytes());
    let answer = current.say(shared, role, request, &own, &ext).await?;
    if answer.code != rc::SUCCESS {
        let remark = answer.remark.as_deref().unwrap_or("").to_owned();
        return Err(LinkError::Refused(answer.code, remark));
    }
    *link = Some(current);
    Ok(())
}

/// The table as it is sent.
enum Body {
    Plain(Vec<u8>),
    Compressed(Vec<u8>),
}

impl Body {
    /// A table that is not small goes compressed. Small ones go plain: the compressed form leaves
    /// out whether a topic is ordered.
    fn of(table: &RegisterBrokerBody) -> Result<Self, LinkError> {
        let plain = body::encode(table);
        if plain.len() <= MAX_PLAIN {
            return Ok(Body::Plain(plain));
        }
        let packed = table.compressed(VERSION)?;
        if packed.len() > MAX_BODY {
            let topics = table
                .topic_config_serialize_wrapper
                .topic_config_table
                .len();
            return Err(LinkError::TooLarge(topics));
        }
        Ok(Body::Compressed(packed))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Body::Plain(bytes) | Body::Compressed(bytes) => bytes,
        }
    }

    /// The fields `compressed` and `bodyCrc32`.
    fn header(&self) -> (bool, i64) {
        match self {
            Body::Plain(_) => (false, 0),
            Body::Compressed(bytes) => (true, i64::from(body_crc(bytes))),
        }
    }
}

fn identity<'a>(shared: &'a Shared, own: &'a str, role: Role) -> [(&'a str, Val<'a>); 4] {
    [
        ("brokerName", Val::Str(&shared.broker_name)),
        ("brokerAddr", Val::Str(own)),
        ("clusterName", Val::Str(&shared.config.cluster_name)),
        ("brokerId", Val::Int(role.broker_id)),
    ]
}

async fn goodbye(shared: &Shared, link: &mut Link) -> Result<(), LinkError> {
    let own = shared.store_host(link.local.ip()).to_string();
    let request = (code::UNREGISTER_BROKER, &[][..]);
    link.say(shared, Role::of(shared), request, &own, &[])
        .await
        .map(|_| ())
}

/// A connection to a name server, one request at a time.
struct Link {
    stream: TcpStream,
    local: SocketAddr,
    opaque: i32,
    buf: BytesMut,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("it answers nonsense: {0}")]
    Protocol(String),
    #[error("refused with code {0}: {1}")]
    Refused(i32, String),
    #[error("the table of {0} topics is larger than a name server takes")]
    TooLarge(usize),
}

impl Link {
    async fn open(addr: &str) -> Result<Self, LinkError> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr));
        let stream = stream.await.map_err(|_| LinkError::Timeout)??;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            local,
            opaque: 0,
            buf: BytesMut::new(),
        })
    }

    /// Says what this broker is, with a proof where it belongs to a cluster with a secret. A name
    /// server by whose clock that is too old tells its time.
    async fn say(
        &mut self,
        shared: &Shared,
        role: Role,
        (code, body): (i32, &[u8]),
        own: &str,
        more: &[(&'static str, Val<'_>)],
    ) -> Result<Command, LinkError> {
        let term = role.term.map(|t| i64::try_from(t).unwrap_or(i64::MAX));
        let term = term.map(|term| term.to_string());
        let claim = Claim {
            code,
            cluster: &shared.config.cluster_name,
            broker_name: &shared.broker_name,
            broker_id: role.broker_id,
            addr: own,
            term: term.as_deref(),
            body,
        };
        let mut at_ms = now_ms();
        let mut told = false;
        loop {
            let proof = shared.membership.as_ref().map(|m| m.prove(claim, at_ms));
            let mut ext = identity(shared, own, role).to_vec();
            ext.extend_from_slice(more);
            // Ours only: stock name servers look at the state version in the body.
            ext.extend(term.as_deref().map(|term| (TERM, Val::Str(term))));
            ext.extend(proof.as_deref().map(|proof| (PROOF, Val::Str(proof))));
            let answer = self.call(code, &ext, body).await?;
            let clock = answer.ext(CLOCK).and_then(|ms| ms.parse().ok());
            match clock.filter(|_| !std::mem::replace(&mut told, true)) {
                Some(clock) => at_ms = clock,
                None => return Ok(answer),
            }
        }
    }

    async fn call(
        &mut self,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<Command, LinkError> {
        tokio::time::timeout(TIMEOUT, self.exchange(code, ext, body))
            .await
            .map_err(|_| LinkError::Timeout)?
    }

    async fn exchange(
        &mut self,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<Command, LinkError> {
        self.opaque = self.opaque.wrapping_add(1);
        let header = RequestHeader {
            code,
            opaque: self.opaque,
            oneway: false,
            remark: None,
            ext,
        };
        let mut out = BytesMut::new();
        encode_request(&mut out, HeaderFormat::Json, &header, &[body]);
        self.stream.write_all(&out).await?;
        loop {
            let limits = FrameLimits::default();
            let frame = split_frame(&mut self.buf, &limits);
            if let Some(frame) = frame.map_err(|e| LinkError::Protocol(e.to_string()))? {
                let command =
                    Command::decode(frame).map_err(|e| LinkError::Protocol(e.to_string()))?;
                // A name server may send requests of its own (one-way); they are not for us.
                if command.is_response() && command.opaque == self.opaque {
                    return Ok(command);
                }
                continue;
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(LinkError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}
