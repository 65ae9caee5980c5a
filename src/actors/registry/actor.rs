//! The actix shell of the name server: one writer of the published tables.

use super::core::{RegisterReply, RegistryCore, SCAN_MS};
use super::kv::KvTable;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::routing::{AdvertisedAddr, BrokerRegistration, DataVersion, QueueData};
use actix::prelude::*;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Requests that may wait in the mailbox.
const MAILBOX: usize = 4_096;

/// Stores the KV table's text durably; an error's text goes to the log.
pub type StoreKv = Box<dyn Fn(&str) -> Result<(), String> + Send>;
/// Wall-clock ms.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What handles send.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) enum Mail {
    Register {
        reg: Box<BrokerRegistration>,
        conn: Option<ConnId>,
        reply: Reply<RegisterReply>,
    },
    Unregister {
        cluster: String,
        broker_name: String,
        broker_id: i64,
        addr: AdvertisedAddr,
        reply: Reply<()>,
    },
    Heartbeat {
        cluster: String,
        broker_name: String,
        addr: AdvertisedAddr,
        reply: Reply<()>,
    },
    QueryDataVersion {
        cluster: String,
        broker_name: String,
        addr: AdvertisedAddr,
        version: DataVersion,
        reply: Reply<(bool, Option<DataVersion>)>,
    },
    WritePerm {
        broker_name: String,
        add: bool,
        reply: Reply<u32>,
    },
    DeleteTopic {
        topic: String,
        cluster: Option<String>,
        reply: Reply<()>,
    },
    RegisterTopic {
        topic: String,
        queues: Vec<QueueData>,
        reply: Reply<()>,
    },
    PutKv {
        namespace: String,
        key: String,
        value: String,
        reply: Reply<()>,
    },
    DeleteKv {
        namespace: String,
        key: String,
        reply: Reply<()>,
    },
    ConnClosed {
        conn: ConnId,
    },
}

/// See the module text.
pub(super) struct RegistryActor {
    pub(super) core: Arc<RwLock<RegistryCore>>,
    pub(super) store_kv: StoreKv,
    pub(super) clock: Clock,
}

impl RegistryActor {
    fn change_kv(&self, next: Result<KvTable, Refusal>) -> Result<(), Refusal> {
        let next = next?;
        // Disk first: what is answered and what readers see is stored.
        if let Err(error) = (self.store_kv)(&next.to_json()) {
            tracing::error!(error, "the KV configuration was not stored");
            return Err(Refusal::Unavailable(
                "the KV configuration could not be stored",
            ));
        }
        self.core.write().set_kv(next);
        Ok(())
    }

    fn expire(&self) {
        for (broker, id) in self.core.write().expire((self.clock)()) {
            tracing::warn!(broker, id, "broker dropped: no heartbeat");
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(Duration::from_millis(SCAN_MS as u64), |actor, _| {
            actor.expire()
        });
    }
}

impl Handler<Mail> for RegistryActor {
    type Result = ();

    fn handle(&mut self, mail: Mail, _: &mut Self::Context) {
        let now_ms = (self.clock)();
        // A caller that is gone is not an error.
        match mail {
            Mail::Register { reg, conn, reply } => {
                let _ = reply.send(self.core.write().register(*reg, conn, now_ms));
            }
            Mail::Unregister {
                cluster,
                broker_name,
                broker_id,
                addr,
                reply,
            } => {
                self.core
                    .write()
                    .unregister(&cluster, &broker_name, broker_id, &addr);
                let _ = reply.send(Ok(()));
            }
            Mail::Heartbeat {
                cluster,
                broker_name,
                addr,
                reply,
            } => {
                self.core
                    .write()
                    .heartbeat(&cluster, &broker_name, &addr, now_ms);
                let _ = reply.send(Ok(()));
            }
            Mail::QueryDataVersion {
                cluster,
                broker_name,
                addr,
                version,
                reply,
            } => {
                let answer = self.core.write().query_data_version(
                    &cluster,
                    &broker_name,
                    &addr,
                    version,
                    now_ms,
                );
                let _ = reply.send(Ok(answer));
            }
            Mail::WritePerm {
                broker_name,
                add,
                reply,
            } => {
                let mut core = self.core.write();
                let count = if add {
                    core.add_write_perm(&broker_name)
                } else {
                    core.wipe_write_perm(&broker_name)
                };
                let _ = reply.send(Ok(count));
            }
            Mail::DeleteTopic {
                topic,
                cluster,
                reply,
            } => {
                self.core.write().delete_topic(&topic, cluster.as_deref());
                let _ = reply.send(Ok(()));
            }
            Mail::RegisterTopic {
                topic,
                queues,
                reply,
            } => {
                let _ = reply.send(self.core.write().register_topic(&topic, queues));
            }
            Mail::PutKv {
                namespace,
                key,
                value,
                reply,
            } => {
                let next = self.core.read().kv.with(namespace, key, value);
                let _ = reply.send(self.change_kv(next));
            }
            Mail::DeleteKv {
                namespace,
                key,
                reply,
            } => {
                let next = self.core.read().kv.without(&namespace, &key);
                let _ = reply.send(next.map_or(Ok(()), |next| self.change_kv(Ok(next))));
            }
            Mail::ConnClosed { conn } => self.core.write().conn_closed(conn),
        }
    }
}
