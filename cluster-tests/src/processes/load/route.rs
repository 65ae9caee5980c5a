//! Who leads which shard, as a client learns it from name servers.

use super::super::history::TOPICS;
use super::super::nodes::SHARDS;
use super::Shared;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use troupemq::client::Client;

/// A client looks for a new route so often, and after a failure.
const EVERY: Duration = Duration::from_secs(1);
/// But not more often than this.
const PAUSE: Duration = Duration::from_millis(20);

/// Route and connections of one client.
pub struct Routes {
    shared: Arc<Shared>,
    /// For brokers.
    pub client: Client,
    /// One for each name server, so that a silent one is left after one time limit.
    names: Vec<Client>,
    current: Cell<usize>,
    masters: RefCell<Vec<Option<String>>>,
    wanted: Notify,
}

/// Longest wait for the first route.
const FIRST_ROUTE: Duration = Duration::from_secs(5);

impl Routes {
    /// `first` chooses the name server it begins with.
    pub fn new(shared: Arc<Shared>, first: usize, timeout: Duration) -> Self {
        let ask = timeout.min(Duration::from_millis(500));
        let name = |addr: &String| Client::new(vec![addr.clone()], ask);
        let names: Vec<Client> = shared.name_servers.iter().map(name).collect();
        Self {
            client: Client::new(Vec::new(), timeout),
            current: Cell::new(first % names.len().max(1)),
            names,
            masters: RefCell::new(vec![None; SHARDS.len()]),
            wanted: Notify::new(),
            shared,
        }
    }

    /// The leader's address of a shard.
    pub fn master(&self, shard: usize) -> Option<String> {
        self.masters.borrow()[shard].clone()
    }

    /// Waits for the first route, as a client does before it sends; not for ever.
    pub async fn known(&self) {
        let until = tokio::time::Instant::now() + FIRST_ROUTE;
        while self.masters.borrow().iter().any(Option::is_none)
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks for the route soon: something failed.
    pub fn hurry(&self) {
        self.wanted.notify_one();
    }

    async fn refresh(&self) {
        let at = self.current.get();
        let Some(name) = self.names.get(at) else {
            return;
        };
        match name.route(TOPICS[0]).await {
            Ok(route) => {
                let mut masters = self.masters.borrow_mut();
                for (shard, broker) in SHARDS.iter().enumerate() {
                    let master = route.broker(broker).and_then(|b| b.master());
                    if let Some(master) = master {
                        masters[shard] = Some(master.to_owned());
                    }
                }
            }
            Err(_) => self.current.set((at + 1) % self.names.len()),
        }
    }

    /// Follows the route until the task is ended.
    pub async fn keep_fresh(self: Rc<Self>) {
        while !self.shared.end.load(std::sync::atomic::Ordering::Relaxed) {
            self.refresh().await;
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(EVERY, self.wanted.notified()).await;
        }
    }
}
