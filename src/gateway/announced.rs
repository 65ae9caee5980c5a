//! Which version of this broker's table each name server has taken. A topic that an operator made is answered for
//! once all of them can tell clients of it, as on RocketMQ's own brokers.

use std::time::Duration;
use tokio::sync::watch;

/// Longest an answer waits for name servers; clients wait 5 s for it.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of one name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// The first registration is under way.
    New,
    /// It took the table of this version.
    Took(u64),
    /// It cannot be reached, or refuses the table: nobody waits for it.
    Failing,
}

/// The name servers of one broker, in the order of [`super::registrar`]'s tasks.
pub struct Announced {
    servers: watch::Sender<Vec<Server>>,
}

impl Announced {
    /// Name servers with these numbers, 0 on, of which none has heard anything.
    pub fn new(count: usize) -> Self {
        Self {
            servers: watch::Sender::new(vec![Server::New; count]),
        }
    }

    /// Name server `server` took the table of this version; `None`: no table at all.
    pub fn report(&self, server: usize, taken: Option<u64>) {
        self.servers.send_if_modified(|servers| {
            let new = taken.map_or(Server::Failing, Server::Took);
            match servers.get_mut(server) {
                Some(old) if *old != new => {
                    *old = new;
                    true
                }
                _ => false,
            }
        });
    }

    /// Waits until every name server that can be reached has a table of `version` or a later one,
    /// and no longer than `patience`.
    pub async fn wait(&self, version: u64, patience: Duration) {
        let mut servers = self.servers.subscribe();
        let all = |servers: &Vec<Server>| {
            servers.iter().all(|server| match server {
                Server::New => false,
                Server::Took(taken) => *taken >= version,
                Server::Failing => true,
            })
        };
        // Who made the topic is answered in time in any case.
        let _ = tokio::time::timeout(patience, servers.wait_for(all)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer does not come at once.
    async fn waits(announced: &Announced, version: u64) -> bool {
        let answer = announced.wait(version, PATIENCE);
        let now = tokio::time::timeout(Duration::ZERO, answer);
        now.await.is_err()
    }

    #[test]
    fn an_answer_waits_for_every_name_server_that_can_be_reached() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let announced = Announced::new(3);
            announced.report(0, Some(7));
            announced.report(1, Some(6));
            assert!(waits(&announced, 6).await, "the third has said nothing yet");
            announced.report(2, None);
            assert!(!waits(&announced, 6).await);
            assert!(waits(&announced, 7).await);
            announced.report(1, Some(8));
            assert!(!waits(&announced, 7).await);
            // It came back with the table of before.
            announced.report(2, Some(7));
            assert!(waits(&announced, 8).await);
            // One that does not answer keeps nobody for ever.
            announced.wait(9, Duration::from_millis(1)).await;
        });
    }
}
