//! The only room that speaks to clients: the remoting protocol and a first HTTP page.
//!
//! N threads, each with its own runtime, connections and inbox; one more accepts connections,
//! serves HTTP and registers the broker with name servers. On a machine of few processors the one
//! thread is that of the shard's actors ([`GatewayDeps::host`]): a burst of sends then reaches the
//! log writer, and its answers the sockets, without another thread in between. A burst of frames read from a socket
//! becomes one message per queue; the answers of one wake become one write per connection.

mod accept;
mod admin;
mod announced;
mod clients;
mod connection;
mod convert;
mod ctx;
mod dispatch;
mod flow;
mod forward;
mod http;
mod http_places;
mod inbox;
mod limits;
mod membership;
mod namesrv;
mod offsets;
mod operator;
mod outbuf;
mod pull;
mod quota;
mod rates;
mod read_pool;
mod registrar;
mod relay;
mod reply;
mod send;
mod serve;
mod shared;
mod slots;
mod ticket;
mod traffic;
mod worker;

pub use accept::BindError;
// Decisions that the simulation takes too.
pub use forward::{book, in_order, only_once, Held};
pub use forward::{ForwardDeps, ForwardInput};
pub use inbox::GatewayLink;
pub use limits::ConnectionLimits;
pub use operator::{Doing, NotDone, Operation};
pub use send::back::{next as next_try, Next as NextTry};
pub use shared::{BrokerSide, LogView, NodeView};

use crate::actors::registry::Registry;
use crate::actors::sinks::Sinks;
use crate::config::Config;
use crate::telemetry::Metrics;
use accept::{accept_loop, bind, Service};
use forward::Forward;
use inbox::Inbox;
use read_pool::ReadPool;
use shared::{Shared, SharedParts};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use worker::Worker;

/// What a thread leaves behind at its end gets this long.
const LEAVE: Duration = Duration::from_millis(100);

/// What a gateway needs of its node.
pub struct GatewayDeps {
    pub config: Arc<Config>,
    /// `None` on a node that is only a name server.
    pub broker: Option<BrokerSide>,
    /// `None` on a node that is only a broker.
    pub registry: Option<Registry>,
    /// The way to the other replicas, in a cluster.
    pub forward: Option<ForwardDeps>,
    /// The node as a whole, when it has gateways for several shards.
    pub node: Option<Arc<dyn NodeView>>,
    /// The stored log of a single node.
    pub log: Option<Arc<dyn LogView>>,
    /// Number of the first thread: the gateways of a node share the numbers of connections.
    pub thread_base: usize,
    /// The link that the groups were made with.
    pub link: Arc<GatewayLink>,
    pub sinks: Sinks,
    pub metrics: Arc<Metrics>,
    /// Limits on connections that the node's other gateways count too.
    pub connections: Option<Arc<ConnectionLimits>>,
    /// A thread that runs local tasks besides its own work: on a small machine, where the gateway
    /// chooses to have one thread only, it is a guest there instead of starting one.
    pub host: Option<Host>,
}

/// Runs a function on a thread where tasks can be spawned; false when that thread has ended.
pub type Host = Box<dyn Fn(Box<dyn FnOnce() + Send>) -> bool>;

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A port could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread could not be started.
    #[error("cannot start a gateway thread: {0}")]
    Thread(std::io::Error),
}

/// Addresses as bound; `None` for what is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listening {
    pub broker: Option<SocketAddr>,
    pub vip: Option<SocketAddr>,
    pub registry: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// The running gateway of one node.
pub struct Gateway {
    shared: Arc<Shared>,
    inboxes: Arc<Vec<Arc<Inbox>>>,
    workers: Vec<Running>,
    front: Option<JoinHandle<()>>,
    ready: Option<oneshot::Receiver<()>>,
    pool: ReadPool,
    listening: Listening,
    thread_base: usize,
}

/// A worker under way.
enum Running {
    Thread(JoinHandle<()>),
    /// Closed when the worker ends on its host's thread.
    Guest(std::sync::mpsc::Receiver<()>),
}

struct Listeners {
    remoting: Vec<(TcpListener, Service)>,
    http: Option<TcpListener>,
    listening: Listening,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn chosen(configured: u32, default: usize) -> usize {
    match configured {
        0 => default.max(1),
        n => n as usize,
    }
}

fn open_listeners(config: &Config) -> Result<Listeners, BindError> {
    let host = config.bind_host.as_str();
    let mut out = Listeners {
        remoting: Vec::new(),
        http: None,
        listening: Listening::default(),
    };
    let addr = |l: &TcpListener| l.local_addr().ok();
    if config.roles.registry {
        let listener = bind(host, config.namesrv_listen_port, "name server")?;
        out.listening.registry = addr(&listener);
        out.remoting.push((listener, Service::Registry));
    }
    if config.roles.broker {
        let listener = bind(host, config.listen_port, "broker")?;
        out.listening.broker = addr(&listener);
        out.remoting.push((listener, Service::Broker));
        if let Some(port) = config.vip_port() {
            let listener = bind(host, port, "VIP channel of the broker")?;
            out.listening.vip = addr(&listener);
            out.remoting.push((listener, Service::Broker));
        }
    }
    if config.http_enable {
        let listener = bind(host, config.http_listen_port, "HTTP")?;
        out.listening.http = addr(&listener);
        out.http = Some(listener);
    }
    Ok(out)
}

impl Gateway {
    /// Opens the ports and starts the threads. Nothing is left behind on an error.
    pub fn start(deps: GatewayDeps) -> Result<Self, GatewayError> {
        let listeners = open_listeners(&deps.config)?;
        let config = deps.config.clone();
        let reads = chosen(config.read_threads, (cores() / 2).max(2));
        let pool = ReadPool::start(reads).map_err(GatewayError::Thread)?;
        let forward = deps.forward.map(|forward| {
            let max_held = config.max_inflight_bytes;
            let figures = deps.metrics.shard(&config.broker_name);
            Arc::new(Forward::new(forward, max_held, shared::now_ms(), figures))
        });
        let shared = Arc::new(Shared::new(SharedParts {
            config: deps.config,
            broker: deps.broker,
            registry: deps.registry,
            forward,
            node: deps.node,
            log: deps.log,
            link: deps.link.clone(),
            metrics: deps.metrics,
            reads: pool.handle(),
            connections: deps.connections,
        }));
        if let Some(addr) = listeners.listening.broker {
            shared.broker_port.store(addr.port(), Ordering::Relaxed);
        }
        let count = chosen(config.gateway_threads, cores() / 2);
        let inboxes: Vec<Arc<Inbox>> = (0..count).map(|_| Arc::default()).collect();
        deps.link.set(deps.thread_base, inboxes.clone());
        let mut gateway = Self {
            shared: shared.clone(),
            inboxes: Arc::new(inboxes),
            workers: Vec::new(),
            front: None,
            ready: None,
            pool,
            listening: listeners.listening,
            thread_base: deps.thread_base,
        };
        let host = deps
            .host
            .filter(|_| config.gateway_threads == 0 && count == 1);
        let started = gateway.start_threads(&deps.sinks, host, listeners);
        match started {
            Ok(()) => Ok(gateway),
            Err(e) => {
                gateway.stop(Duration::ZERO);
                Err(GatewayError::Thread(e))
            }
        }
    }

    fn start_threads(
        &mut self,
        sinks: &Sinks,
        host: Option<Host>,
        listeners: Listeners,
    ) -> std::io::Result<()> {
        for (index, inbox) in self.inboxes.iter().enumerate() {
            let (shared, inbox) = (self.shared.clone(), inbox.clone());
            let sink = sinks.register(inbox.clone());
            let base = self.thread_base;
            if let Some(host) = &host {
                let (done, ended) = std::sync::mpsc::channel::<()>();
                let run = move || {
                    tokio::task::spawn_local(async move {
                        Worker::new(shared, inbox, sink, base + index).run().await;
                        drop(done);
                    });
                };
                if !host(Box::new(run)) {
                    return Err(std::io::Error::other("the host's thread has ended"));
                }
                self.workers.push(Running::Guest(ended));
                continue;
            }
            let runtime = runtime()?;
            let thread =
                std::thread::Builder::new().name(format!("gateway-{}", self.thread_base + index));
            self.workers.push(Running::Thread(thread.spawn(move || {
                LocalSet::new().block_on(&runtime, async move {
                    Worker::new(shared, inbox, sink, base + index).run().await;
                });
                runtime.shutdown_timeout(LEAVE);
            })?));
        }
        let (shared, inboxes) = (self.shared.clone(), self.inboxes.clone());
        let runtime = runtime()?;
        let (tell, ready) = oneshot::channel();
        self.ready = Some(ready);
        let thread = std::thread::Builder::new().name("gateway-front".to_owned());
        self.front = Some(thread.spawn(move || {
            LocalSet::new().block_on(&runtime, front(shared, inboxes, listeners, tell));
            // A name look-up may still run.
            runtime.shutdown_timeout(LEAVE);
        })?);
        Ok(())
    }

    /// Until the registry of this node knows its broker and connections are accepted.
    pub async fn ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Without a sender the front has ended; then there is nothing to wait for.
            let _ = ready.await;
        }
    }

    /// What it counts its connections by.
    pub fn connections(&self) -> Arc<ConnectionLimits> {
        self.shared.connections.clone()
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        self.inboxes.len()
    }

    /// Where other nodes' forwarded requests go in; `None` outside of a cluster.
    pub fn forward_input(&self) -> Option<ForwardInput> {
        Some(ForwardInput {
            forward: self.shared.forward.clone()?,
            inboxes: self.inboxes.clone(),
            thread_base: self.thread_base,
        })
    }

    /// Where it listens.
    pub fn listening(&self) -> Listening {
        self.listening
    }

    /// Stops accepting, answers held pulls, waits up to `deadline` for requests under way, closes
    /// every connection and joins the threads. Blocks.
    pub fn stop(mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.shared.set_stopping();
        for inbox in self.inboxes.iter() {
            inbox.put(|mail| mail.stop_by = Some(end));
        }
        if let Some(front) = self.front.take() {
            let _ = front.join();
        }
        for worker in self.workers.drain(..) {
            match worker {
                Running::Thread(thread) => drop(thread.join()),
                Running::Guest(ended) => drop(ended.recv()),
            }
        }
        self.shared.link.set(0, Vec::new());
        drop(self.shared);
        self.pool.stop();
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Accepts, serves HTTP, registers; ends when the gateway stops.
async fn front(
    shared: Arc<Shared>,
    inboxes: Arc<Vec<Arc<Inbox>>>,
    listeners: Listeners,
    ready: oneshot::Sender<()>,
) {
    // The first client to get in already finds this node's topics.
    if let (Some(registry), Some(broker)) = (&shared.registry, &shared.broker) {
        registrar::register_here(&shared, broker, registry).await;
    }
    let _ = ready.send(());
    let mut tasks = Vec::new();
    for (listener, service) in listeners.remoting {
        let accept = accept_loop(listener, service, inboxes.clone(), shared.clone());
        tasks.push(tokio::task::spawn_local(accept));
    }
    if let Some(listener) = listeners.http {
        tasks.push(tokio::task::spawn_local(http::serve(
            listener,
            shared.clone(),
        )));
    }
    let registrar = shared
        .broker
        .clone()
        .map(|broker| tokio::task::spawn_local(registrar::run(shared.clone(), broker)));
    if let Some(forward) = &shared.forward {
        let (forward, inboxes) = (forward.clone(), inboxes.clone());
        tasks.push(tokio::task::spawn_local(forwarding(forward, inboxes)));
    }
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    while !shared.is_stopping() {
        tokio::select! {
            _ = seconds.tick() => shared.sample(crate::actors::clock::boot_ms()),
            () = shared.stop_bell.notified() => {}
        }
    }
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    if let Some(registrar) = registrar {
        let _ = registrar.await;
    }
}

fn held(forward: &Forward) -> bool {
    let waiting = forward.waiting.load(Ordering::Relaxed);
    forward.metrics.held.set(waiting as i64);
    waiting > 0
}

/// Tells the threads of new leaders, and when to look at what waits for one.
async fn forwarding(forward: Arc<Forward>, inboxes: Arc<Vec<Arc<Inbox>>>) {
    let mut lead = forward.watch();
    let mut ticks = tokio::time::interval(forward::SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = lead.changed() => {
                if changed.is_err() {
                    return;
                }
                for inbox in inboxes.iter() {
                    inbox.put(|mail| mail.lead_changed = true);
                }
            }
            _ = ticks.tick() => if held(&forward) {
                for inbox in inboxes.iter() {
                    inbox.put(|mail| mail.sweep = true);
                }
            }
        }
    }
}
