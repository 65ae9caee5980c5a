//! Name servers and brokers behind addresses.

use super::bodies::{self, ClusterInfo, Route, TopicList};
use super::connection::Connection;
use super::error::ClientError;
use super::message::Received;
use crate::wire::message::ids::UniqKeys;
use crate::wire::message::properties::{self, names};
use crate::wire::message::record;
use crate::wire::remoting::code::{request, response};
use crate::wire::remoting::header::Command;
use crate::wire::remoting::Val;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The topic whose route tells where unknown topics may be created.
const TEMPLATE_TOPIC: &str = "TBW102";

/// A client of a RocketMQ cluster. Connections are made when needed and kept.
#[derive(Debug)]
pub struct Client {
    name_servers: Vec<String>,
    /// The one that answered last, as every RocketMQ client stays with one.
    last_good: AtomicUsize,
    timeout: Duration,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
    keys: UniqKeys,
}

/// A message to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Body.
    pub body: &'a [u8],
    /// Properties; `UNIQ_KEY` is added when it is not among them.
    pub properties: &'a [(&'a str, &'a str)],
}

/// Where a message was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// Response code: 0, or 10 to 12 for "stored, but not confirmed by flush or replicas".
    pub code: i32,
    /// Offset message id, given by the broker.
    pub msg_id: String,
    /// Unique key, given by this client.
    pub unique_key: String,
    /// Queue.
    pub queue_id: i32,
    /// Position in the queue.
    pub queue_offset: i64,
}

/// Answer to a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The messages; empty when there are none yet, none that match, or the offset was illegal.
    pub messages: Vec<Received>,
    /// Where to pull next.
    pub next: i64,
    /// The offset asked for is outside of the queue; `next` is the nearest one inside.
    pub offset_moved: bool,
}

impl Client {
    /// A client that asks these name servers (`host:port`), with a time limit for every request.
    pub fn new(name_servers: Vec<String>, timeout: Duration) -> Self {
        let salt = millis_now() as u32;
        Self {
            name_servers,
            last_good: AtomicUsize::new(0),
            timeout,
            connections: Mutex::default(),
            keys: UniqKeys::new(IpAddr::V4(Ipv4Addr::LOCALHOST), std::process::id(), salt),
        }
    }

    /// The name servers.
    pub fn name_servers(&self) -> &[String] {
        &self.name_servers
    }

    /// The connection to an address; made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn connection(&self, addr: &str) -> Result<Arc<Connection>, ClientError> {
        if let Some(known) = self.connections.lock().get(addr).filter(|c| !c.is_closed()) {
            return Ok(known.clone());
        }
        let made = Arc::new(Connection::connect(addr, self.timeout).await?);
        self.connections
            .lock()
            .insert(addr.to_owned(), made.clone());
        Ok(made)
    }

    /// Sends a request and turns every code other than success into an error.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn call(
        &self,
        addr: &str,
        code: i32,
        ext: &[(&str, Val<'_>)],
        body: &[u8],
    ) -> Result<Command, ClientError> {
        let answer = self
            .connection(addr)
            .await?
            .request(code, ext, body, self.timeout)
            .await?;
        match answer.code {
            response::SUCCESS => Ok(answer),
            _ => Err(refused(addr, code, &answer)),
        }
    }

    /// Asks the name servers one after the other until one answers, first the one that did so last.
    async fn ask_name_servers(
        &self,
        code: i32,
        ext: &[(&str, Val<'_>)],
    ) -> Result<(String, Command), ClientError> {
        let mut first_error = None;
        let from = self.last_good.load(Relaxed);
        let (before, after) = self
            .name_servers
            .split_at(from.min(self.name_servers.len()));
        for (index, addr) in (from..).zip(after).chain((0..).zip(before)) {
            match self.call(addr, code, ext, &[]).await {
                Ok(answer) => {
                    self.last_good.store(index, Relaxed);
                    return Ok((addr.clone(), answer));
                }
                // A refusal says more than a dead server.
                Err(e) if first_error.is_none() || e.code().is_some() => first_error = Some(e),
                Err(_) => {}
            }
        }
        Err(match first_error {
            None => ClientError::NoNameServer,
            // A name server refused; a broker does not know the code.
            Some(error)
                if error
                    .code()
                    .is_some_and(|code| code != response::REQUEST_CODE_NOT_SUPPORTED) =>
            {
                error
            }
            Some(error) => ClientError::NameServer(Box::new(error)),
        })
    }

    /// The route of a topic.
    ///
    /// # Errors
    /// Code 17 when no name server knows the topic.
    pub async fn route(&self, topic: &str) -> Result<Route, ClientError> {
        let ext = [
            ("topic", Val::Str(topic)),
            ("acceptStandardJsonOnly", Val::Bool(true)),
        ];
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        let (addr, answer) = self.ask_name_servers(code, &ext).await?;
        bodies::decode(&answer.body).map_err(|what| strange(&addr, code, what))
    }

    /// Clusters and brokers.
    ///
    /// # Errors
    /// When no name server answers.
    pub async fn cluster_info(&self) -> Result<ClusterInfo, ClientError> {
        let code = request::GET_BROKER_CLUSTER_INFO;
        let (addr, answer) = self.ask_name_servers(code, &[]).await?;
        bodies::decode(&answer.body).map_err(|what| strange(&addr, code, what))
    }

    /// Names of all topics, sorted.
    ///
    /// # Errors
    /// When no name server answers.
    pub async fn topics(&self) -> Result<Vec<String>, ClientError> {
        let code = request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER;
        let (addr, answer) = self.ask_name_servers(code, &[]).await?;
        let list: TopicList =
            bodies::decode(&answer.body).map_err(|what| strange(&addr, code, what))?;
        Ok(list.topic_list.into_iter().collect())
    }

    /// Creates or changes a topic on one broker.
    ///
    /// # Errors
    /// Code 29 for a bad name or number of queues.
    pub async fn create_topic(
        &self,
        broker: &str,
        topic: &str,
        queues: u32,
        perm: i32,
    ) -> Result<(), ClientError> {
        let ext = [
            ("topic", Val::Str(topic)),
            ("defaultTopic", Val::Str(TEMPLATE_TOPIC)),
            ("readQueueNums", Val::Int(queues.into())),
            ("writeQueueNums", Val::Int(queues.into())),
            ("perm", perm.into()),
            ("topicFilterType", Val::Str("SINGLE_TAG")),
            ("topicSysFlag", Val::Int(0)),
            ("order", Val::Bool(false)),
        ];
        self.call(broker, request::UPDATE_AND_CREATE_TOPIC, &ext, &[])
            .await
            .map(|_| ())
    }

    /// Deletes a topic on one broker.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_topic_on_broker(
        &self,
        broker: &str,
        topic: &str,
    ) -> Result<(), ClientError> {
        let ext = [("topic", Val::Str(topic))];
        self.call(broker, request::DELETE_TOPIC_IN_BROKER, &ext, &[])
            .await
            .map(|_| ())
    }

    /// Removes a topic from one name server.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_topic_on_name_server(
        &self,
        name_server: &str,
        topic: &str,
        cluster: &str,
    ) -> Result<(), ClientError> {
        let ext = [
            ("topic", Val::Str(topic)),
            ("clusterName", Val::Str(cluster)),
        ];
        self.call(name_server, request::DELETE_TOPIC_IN_NAMESRV, &ext, &[])
            .await
            .map(|_| ())
    }

    /// The offset that the next message of a queue will get.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn max_offset(
        &self,
        broker: &str,
        topic: &str,
        queue: i32,
    ) -> Result<i64, ClientError> {
        self.offset(broker, request::GET_MAX_OFFSET, topic, queue)
            .await
    }

    /// The lowest offset that a queue still has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn min_offset(
        &self,
        broker: &str,
        topic: &str,
        queue: i32,
    ) -> Result<i64, ClientError> {
        self.offset(broker, request::GET_MIN_OFFSET, topic, queue)
            .await
    }

    async fn offset(
        &self,
        broker: &str,
        code: i32,
        topic: &str,
        queue: i32,
    ) -> Result<i64, ClientError> {
        let ext = [("topic", Val::Str(topic)), ("queueId", queue.into())];
        let answer = self.call(broker, code, &ext, &[]).await?;
        answer
            .req_i64("offset")
            .map_err(|e| strange(broker, code, e.to_string()))
    }

    /// A broker and queue for the `n`-th message to a topic. An unknown topic goes to a broker
    /// that creates topics, which chooses the queue (-1).
    ///
    /// # Errors
    /// Code 17 when the topic is unknown and no broker creates topics.
    pub async fn place(&self, topic: &str, n: usize) -> Result<(String, i32), ClientError> {
        let (route, known) = match self.route(topic).await {
            Err(e) if e.code() == Some(response::TOPIC_NOT_EXIST) => {
                // When the template is unknown too, the first answer is the clearer one.
                (self.route(TEMPLATE_TOPIC).await.map_err(|_| e)?, false)
            }
            other => (other?, true),
        };
        let queues = route.write_queues();
        let (addr, id) =
            queues
                .get(n.checked_rem(queues.len()).unwrap_or(0))
                .ok_or(ClientError::NoBroker {
                    topic: topic.to_owned(),
                    can: "can be written",
                })?;
        Ok((addr.clone(), if known { *id } else { -1 }))
    }

    /// Sends one message to a queue of a broker.
    ///
    /// # Errors
    /// Any [`ClientError`]; after a timeout or a closed connection the message may be stored.
    pub async fn send(
        &self,
        broker: &str,
        queue: i32,
        message: Outgoing<'_>,
    ) -> Result<SendResult, ClientError> {
        let given = message
            .properties
            .iter()
            .find(|(n, _)| *n == names::UNIQ_KEY);
        let unique_key = match given {
            Some((_, key)) => (*key).to_owned(),
            None => self.keys.next(millis_of_month(millis_now())),
        };
        let mut text = properties::encode(message.properties.iter().copied());
        if given.is_none() {
            properties::push(&mut text, names::UNIQ_KEY, &unique_key);
        }
        let text = String::from_utf8_lossy(&text);
        let ext = [
            ("a", Val::Str("CLIENT_INNER_PRODUCER")),
            ("b", Val::Str(message.topic)),
            ("c", Val::Str(TEMPLATE_TOPIC)),
            ("d", Val::Int(4)),
            ("e", queue.into()),
            ("f", Val::Int(0)),
            ("g", Val::Int(millis_now() as i64)),
            ("h", Val::Int(0)),
            ("i", Val::Str(&text)),
            ("j", Val::Int(0)),
            ("k", Val::Bool(false)),
            ("m", Val::Bool(false)),
        ];
        let code = request::SEND_MESSAGE_V2;
        let connection = self.connection(broker).await?;
        let answer = connection
            .request(code, &ext, message.body, self.timeout)
            .await?;
        if !matches!(
            answer.code,
            response::SUCCESS
                | response::FLUSH_DISK_TIMEOUT
                | response::SLAVE_NOT_AVAILABLE
                | response::FLUSH_SLAVE_TIMEOUT
        ) {
            return Err(refused(broker, code, &answer));
        }
        let bad = |e: crate::wire::remoting::HeaderError| strange(broker, code, e.to_string());
        Ok(SendResult {
            code: answer.code,
            msg_id: answer.req_str("msgId").map_err(bad)?.to_owned(),
            unique_key,
            queue_id: answer.req_i32("queueId").map_err(bad)?,
            queue_offset: answer.req_i64("queueOffset").map_err(bad)?,
        })
    }

    /// Pulls from a queue as `group`, without committing. The broker may hold the request for
    /// `suspend` when there is nothing new (none: it answers at once).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pull(
        &self,
        broker: &str,
        group: &str,
        (topic, queue, offset): (&str, i32, i64),
        expression: &str,
        suspend: Duration,
    ) -> Result<Pulled, ClientError> {
        /// May be held; the expression in the request counts.
        const SUSPEND: i32 = 1 << 1;
        const EXPRESSION: i32 = 1 << 2;
        let flag = if suspend.is_zero() {
            EXPRESSION
        } else {
            EXPRESSION | SUSPEND
        };
        let ext = [
            ("consumerGroup", Val::Str(group)),
            ("topic", Val::Str(topic)),
            ("queueId", queue.into()),
            ("queueOffset", offset.into()),
            ("maxMsgNums", Val::Int(32)),
            ("sysFlag", flag.into()),
            ("commitOffset", Val::Int(0)),
            ("suspendTimeoutMillis", Val::Int(suspend.as_millis() as i64)),
            ("subscription", Val::Str(expression)),
            ("subVersion", Val::Int(0)),
            ("expressionType", Val::Str("TAG")),
        ];
        let code = request::PULL_MESSAGE;
        let wait = self.timeout.saturating_add(suspend);
        let answer = self
            .connection(broker)
            .await?
            .request(code, &ext, &[], wait)
            .await?;
        let offset_moved = match answer.code {
            response::SUCCESS | response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY => {
                false
            }
            response::PULL_OFFSET_MOVED => true,
            _ => return Err(refused(broker, code, &answer)),
        };
        let next = answer
            .req_i64("nextBeginOffset")
            .map_err(|e| strange(broker, code, e.to_string()))?;
        let mut messages = Vec::new();
        if answer.code == response::SUCCESS {
            for parsed in record::records(&answer.body) {
                let record = parsed.map_err(|e| strange(broker, code, e.to_string()))?;
                messages.push(Received::from_record(&record));
            }
        }
        Ok(Pulled {
            messages,
            next,
            offset_moved,
        })
    }
}

fn refused(addr: &str, request: i32, answer: &Command) -> ClientError {
    let remark = answer.remark.as_deref().unwrap_or_default().to_owned();
    ClientError::Refused {
        addr: addr.to_owned(),
        request,
        code: answer.code,
        remark,
    }
}

fn strange(addr: &str, request: i32, what: String) -> ClientError {
    ClientError::Strange {
        addr: addr.to_owned(),
        request,
        what,
    }
}

fn millis_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// Milliseconds since the start of the month (UTC), the time inside a unique key.
fn millis_of_month(millis: u64) -> u64 {
    const DAY: u64 = 86_400_000;
    // Days since 1 March of year 0, in eras of 400 years (146,097 days).
    let day_of_era = (millis / DAY + 719_468) % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    day_of_month * DAY + millis % DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_the_start_of_the_month() {
        const DAY: u64 = 86_400_000;
        for (millis, wanted) in [
            (0, 0),
            (31 * DAY - 1, 31 * DAY - 1),      // end of January 1970
            (31 * DAY, 0),                     // 1 February 1970
            (951_782_400_000, 28 * DAY),       // 29 February 2000
            (951_868_800_000, 0),              // 1 March 2000
            (1_735_689_599_999, 31 * DAY - 1), // end of 2024
            (1_735_689_600_000, 0),            // 1 January 2025
            (4_107_542_400_000, 0),            // 1 March 2100, no leap year
            (4_107_456_000_000, 27 * DAY),     // 28 February 2100
        ] {
            assert_eq!(millis_of_month(millis), wanted, "{millis}");
        }
    }
}
