//! `troupe message …`, on the remoting protocol against any RocketMQ.

use super::topic::explain;
use super::{print_line, text, Cluster, Failure};
use crate::client::{Client, ClientError, Outgoing, Received};
use crate::wire::message::properties::names;
use crate::wire::remoting::code::response;
use clap::{Args, Subcommand};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The group that RocketMQ's own tools read with; every broker has it.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// How long a broker may hold a pull.
const SUSPEND: Duration = Duration::from_secs(15);
/// Time between two looks for new queues, and after an error.
const ROUTE_PERIOD: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum MessageCommand {
    /// Send a message
    Send(SendArgs),
    /// Print messages as they arrive
    Tail(TailArgs),
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// Topic
    topic: String,
    /// Body; `-` reads it from standard input
    body: String,
    /// Tag
    #[arg(long, value_parser = text::property_text)]
    tag: Option<String>,
    /// Key to look the message up by; may be repeated
    #[arg(long = "key", value_name = "KEY", value_parser = text::property_text)]
    keys: Vec<String>,
    /// Property; may be repeated
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = text::property)]
    properties: Vec<(String, String)>,
    /// Delay level: 1 is the shortest, 18 the longest of RocketMQ's defaults
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=64))]
    delay_level: Option<u32>,
    /// How often to send it, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Topic
    topic: String,
    /// Begin with the oldest message instead of the next one
    #[arg(long)]
    from_start: bool,
    /// Stop after this many messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only messages with one of these tags, `A || B`
    #[arg(long, default_value = "*", value_name = "TAGS")]
    tags: String,
    /// Consumer group to read as; its offsets are not changed
    #[arg(long, default_value = TOOLS_GROUP)]
    group: String,
    #[command(flatten)]
    cluster: Cluster,
}

pub(super) async fn run(command: MessageCommand) -> Result<(), Failure> {
    match command {
        MessageCommand::Send(args) => send(args).await,
        MessageCommand::Tail(args) => tail(args).await,
    }
}

async fn send(args: SendArgs) -> Result<(), Failure> {
    let body = body(&args.body)?;
    let keys = args.keys.join(" ");
    let delay = args.delay_level.map(|l| l.to_string());
    let mut properties: Vec<(&str, &str)> = args
        .properties
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    properties.extend(args.tag.as_deref().map(|t| (names::TAGS, t)));
    properties.extend((!keys.is_empty()).then_some((names::KEYS, keys.as_str())));
    properties.extend(delay.as_deref().map(|d| (names::DELAY, d)));
    let client = args.cluster.client();
    for n in 0..args.count {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let (broker, queue) = client
            .place(&args.topic, n)
            .await
            .map_err(|e| explain(e, &args.topic))?;
        let message = Outgoing {
            topic: &args.topic,
            body: &body,
            properties: &properties,
        };
        let sent = client
            .send(&broker, queue, message)
            .await
            .map_err(|e| explain(e, &args.topic))?;
        let confirmed = match sent.code {
            response::SUCCESS => "SEND_OK",
            code => response::name(code),
        };
        print_line(&format!(
            "{confirmed}  {}/{}/{}  id={}  unique key={}",
            args.topic, sent.queue_id, sent.queue_offset, sent.msg_id, sent.unique_key
        ))?;
    }
    Ok(())
}

fn body(given: &str) -> Result<Vec<u8>, Failure> {
    if given != "-" {
        return Ok(given.as_bytes().to_vec());
    }
    let mut body = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut body)
        .map_err(|e| format!("standard input: {e}"))?;
    Ok(body)
}

async fn tail(args: TailArgs) -> Result<(), Failure> {
    let client = Arc::new(args.cluster.client());
    let tail = Arc::new(Tail {
        client: client.clone(),
        topic: args.topic,
        group: args.group,
        tags: args.tags,
    });
    let (to_printer, mut messages) = mpsc::channel::<Result<Received, Failure>>(1_024);
    let mut readers = JoinSet::new();
    let mut known = BTreeSet::new();
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut first = true;
    let mut look = tokio::time::interval(ROUTE_PERIOD);
    while left > 0 {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => {
                    print_line(&text::message_line(&message?))?;
                    left -= 1;
                }
                None => break,
            },
            _ = look.tick() => {
                let route = match tail.client.route(&tail.topic).await {
                    Ok(route) => route,
                    Err(e) if first => return Err(explain(e, &tail.topic)),
                    // The name server may be away for a while; the readers go on.
                    Err(_) => continue,
                };
                let queues = route.read_queues();
                if queues.is_empty() && first {
                    let topic = tail.topic.clone();
                    return Err(ClientError::NoBroker { topic, can: "can be read" }.to_string());
                }
                for place in queues {
                    if known.insert(place.clone()) {
                        // A queue that came later is read from its start.
                        let from_start = args.from_start || !first;
                        let offset = tail.start(&place, from_start).await.map_err(|e| e.to_string())?;
                        readers.spawn(tail.clone().read(place, offset, to_printer.clone()));
                    }
                }
                first = false;
            }
        }
    }
    Ok(())
}

/// What all readers of one `tail` share.
struct Tail {
    client: Arc<Client>,
    topic: String,
    group: String,
    tags: String,
}

impl Tail {
    async fn start(
        &self,
        (broker, queue): &(String, i32),
        from_start: bool,
    ) -> Result<i64, ClientError> {
        if from_start {
            self.client.min_offset(broker, &self.topic, *queue).await
        } else {
            self.client.max_offset(broker, &self.topic, *queue).await
        }
    }

    /// Hands on the messages of one queue, for ever. A refusal ends the whole command; a lost
    /// connection is tried again.
    async fn read(
        self: Arc<Self>,
        (broker, queue): (String, i32),
        mut offset: i64,
        to_printer: mpsc::Sender<Result<Received, Failure>>,
    ) {
        loop {
            let place = (self.topic.as_str(), queue, offset);
            match self
                .client
                .pull(&broker, &self.group, place, &self.tags, SUSPEND)
                .await
            {
                Ok(pulled) => {
                    let nothing = pulled.messages.is_empty() && pulled.next == offset;
                    offset = pulled.next;
                    for message in pulled.messages {
                        if to_printer.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    if nothing {
                        // A server that does not hold the request must not be asked in a loop.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                Err(e) if e.code().is_some_and(|c| c != response::SYSTEM_BUSY) => {
                    let _ = to_printer.send(Err(e.to_string())).await;
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}
