//! The one queue of things to happen. Messages to one mailbox keep their order; between mailboxes
//! the seed decides.

use crate::consumers::shell::GroupMail;
use crate::consumers::Told;
use crate::doors::Frame;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use troupemq::actors::effect::{DiskWork, Effect};
use troupemq::actors::queue::core::QueueInput;
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::timer::core::TimerInput;
use troupemq::model::outcome::{Outcome, Refusal, Token};
use troupemq::model::QueueKey;
use troupemq::raft::entry::TimerKey;

/// Where messages of the node wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mailbox {
    Shard,
    /// A queue's actor; another one after it slept.
    Queue(QueueKey, u64),
    Timer,
    Disk,
    Loader,
    /// Who decides on commands for clients.
    Deciders,
    Clients,
    /// A group's actor; another one after it slept.
    Group(usize, u64),
}

impl Mailbox {
    /// Its thread may stand still while the rest goes on.
    fn stalls(self) -> bool {
        matches!(self, Mailbox::Queue(..) | Mailbox::Deciders)
    }
}

/// A message between parts of the node, or from it to its clients.
#[derive(Debug, Clone)]
pub enum Mail {
    Shard(ShardInput),
    /// Build an entry now; the time is read when it is handled.
    Flush,
    Queue(QueueKey, u64, QueueInput),
    /// For a queue that may be asleep, by way of the shard.
    Forward(QueueKey, QueueInput),
    /// A queue would go to sleep.
    Retire(QueueKey, u64),
    /// The shard asks a queue that nobody can reach any more whether it is idle still.
    AskIdle(QueueKey, u64),
    IdleIs(QueueKey, u64, bool),
    FromTimer(Vec<Effect>),
    /// A command that was decided on, on its way to the shard.
    Decided(ShardInput),
    /// A pull that found nothing, on its way to its queue.
    Parking(QueueKey, QueueInput),
    Timer(TimerInput),
    Disk(DiskWork),
    Load(Vec<(TimerKey, QueueKey)>),
    Answer(Token, Outcome),
    Proposal(u64, Result<u64, Refusal>),
    /// For the actor of a consumer group: group, its actor, what.
    Group(usize, u64, Box<GroupMail>),
    /// A group's actor wants its state: group, its actor, number, the group's id.
    LoadGroup(usize, u64, u64, u32),
    /// To a member of a group.
    Told(u64, Told),
}

impl Mail {
    /// Whoever takes it looks at the clock.
    pub fn reads_clock(&self) -> bool {
        matches!(
            self,
            Mail::Flush
                | Mail::Shard(ShardInput::Tick { .. })
                | Mail::Timer(TimerInput::Tick { .. })
        )
    }

    /// Its mailbox.
    pub fn to(&self) -> Mailbox {
        match self {
            Mail::Shard(_)
            | Mail::Flush
            | Mail::Forward(..)
            | Mail::Retire(..)
            | Mail::IdleIs(..)
            | Mail::LoadGroup(..)
            | Mail::FromTimer(_) => Mailbox::Shard,
            Mail::Group(group, life, _) => Mailbox::Group(*group, *life),
            Mail::Queue(key, life, _) | Mail::AskIdle(key, life) => Mailbox::Queue(*key, *life),
            Mail::Timer(_) => Mailbox::Timer,
            Mail::Disk(_) => Mailbox::Disk,
            Mail::Load(_) => Mailbox::Loader,
            Mail::Answer(..) | Mail::Proposal(..) | Mail::Told(..) => Mailbox::Clients,
            Mail::Decided(_) | Mail::Parking(..) => Mailbox::Deciders,
        }
    }
}

/// Something to happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// Gone when the node crashed meanwhile.
    Mail {
        node: usize,
        life: u64,
        mail: Mail,
    },
    DiskStep {
        node: usize,
        life: u64,
    },
    /// The node is ended from outside, or because its storage failed.
    Crash {
        node: usize,
        life: u64,
        power: bool,
    },
    Restart {
        node: usize,
        life: u64,
    },
    /// A bad moment, see [`crate::moments`].
    Stop {
        node: usize,
        life: u64,
        wipe: bool,
        power: bool,
    },
    /// The power of several machines fails.
    PowerCut,
    /// The process is stopped for so long.
    Pause {
        node: usize,
        lasts_us: u64,
    },
    /// Whoever leads hands over to this node.
    LeadAgain {
        node: usize,
    },
    /// Nothing gets through from one node to another, or between them.
    Cut {
        from: usize,
        to: usize,
        both: bool,
        until: u64,
    },
    Tick {
        node: usize,
    },
    /// A message between nodes arrives.
    Packet {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// A message arrives once more, long after.
    Replay {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// A node hears another's clock.
    Clock {
        from: usize,
        to: usize,
        wall_ms: i64,
    },
    /// A node hears the digest of another's state.
    Digest {
        from: usize,
        to: usize,
        at: (u64, u64),
    },
    /// A link is clogged no more, or breaks because it is. See [`crate::links`].
    Link {
        from: usize,
        to: usize,
        breaks: bool,
    },
    /// A node sees its connection to another close.
    LinkClosed {
        node: usize,
        to: usize,
    },
    /// The faults stopped a while ago: somebody must serve.
    Probe,
    Client,
    /// A turn of connections that are forwarded.
    Doors,
    /// What was forwarded, or its answer, arrives.
    Relay {
        from: usize,
        to: usize,
        link: u64,
        door: u64,
        frame: Frame,
    },
    /// A node notices that its link to another is lost.
    RelayLost {
        node: usize,
        to: usize,
        link: u64,
    },
    /// A turn of some member of a consumer group.
    Members,
    Timeout {
        slot: u64,
    },
}

impl Event {
    /// The node whose process it needs, and which waits while that is stopped.
    pub fn node(&self) -> Option<usize> {
        match self {
            Event::Mail { node, .. }
            | Event::DiskStep { node, .. }
            | Event::Tick { node }
            | Event::LinkClosed { node, .. }
            | Event::RelayLost { node, .. } => Some(*node),
            Event::Relay { to, .. }
            | Event::Packet { to, .. }
            | Event::Replay { to, .. }
            | Event::Clock { to, .. }
            | Event::Digest { to, .. } => Some(*to),
            _ => None,
        }
    }
}

struct Entry {
    at_us: u64,
    seq: u64,
    /// Boxed: the heap moves its entries about.
    event: Box<Event>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.seq).cmp(&(other.at_us, other.seq))
    }
}

/// See the module text.
#[derive(Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<Entry>>,
    /// When the last message of a mailbox will be taken.
    tails: BTreeMap<(usize, Mailbox), u64>,
    now_us: u64,
    seq: u64,
    /// Of what was popped last.
    popped: u64,
}

impl Schedule {
    /// Virtual time, microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Happens after `delay_us`.
    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.seq += 1;
        let entry = Entry {
            at_us: self.now_us + delay_us,
            seq: self.seq,
            event: Box::new(event),
        };
        self.heap.push(Reverse(entry));
    }

    /// What was popped last happens later, and before everything at that time that was put in after it.
    pub fn put_off(&mut self, delay_us: u64, event: Event) {
        let entry = Entry {
            at_us: self.now_us + delay_us,
            seq: self.popped,
            event: Box::new(event),
        };
        self.heap.push(Reverse(entry));
    }

    /// Puts a message into its mailbox, behind those already there (unless `overtake`).
    pub fn post(&mut self, (node, life): (usize, u64), delay_us: u64, mail: Mail, overtake: bool) {
        let tail = self.tails.entry((node, mail.to())).or_default();
        let mut at = self.now_us + delay_us;
        if !overtake {
            at = at.max(*tail);
            *tail = at;
        }
        let now = self.now_us;
        self.after(at - now, Event::Mail { node, life, mail });
    }

    /// All mailboxes of a node are empty: it is gone.
    pub fn forget_mailboxes(&mut self, node: usize) {
        self.tails.retain(|(of, _), _| *of != node);
    }

    /// Messages between nodes that would arrive later than that from now are lost.
    pub fn lose_late(&mut self, delay_us: u64) {
        let last = self.now_us + delay_us;
        let late = |e: &Entry| e.at_us > last && matches!(*e.event, Event::Packet { .. });
        self.heap.retain(|Reverse(e)| !late(e));
    }

    /// Of the messages on their way from one node to another only so many arrive as `keep` makes of
    /// their number: those that were sent first. How many are lost.
    pub fn cut_short(&mut self, from: usize, to: usize, keep: impl Fn(usize) -> usize) -> usize {
        let on_it = |e: &Entry| match *e.event {
            Event::Packet { from: f, to: t, .. } => (f, t) == (from, to),
            _ => false,
        };
        let under_way = self.heap.iter().filter(|Reverse(e)| on_it(e));
        let mut sent: Vec<u64> = under_way.map(|Reverse(e)| e.seq).collect();
        sent.sort_unstable();
        let lost = sent.split_off(keep(sent.len()));
        if let Some(first) = lost.first() {
            self.heap.retain(|Reverse(e)| !on_it(e) || e.seq < *first);
        }
        lost.len()
    }

    /// No digest that is under way arrives: who sent it is gone.
    pub fn forget_digests(&mut self) {
        let digest = |e: &Entry| matches!(*e.event, Event::Digest { .. });
        self.heap.retain(|Reverse(e)| !digest(e));
    }

    /// What waits in mailboxes that stall for longer than that from now is taken then.
    pub fn hurry_queues(&mut self, delay_us: u64) {
        let last = self.now_us + delay_us;
        let entries = std::mem::take(&mut self.heap).into_iter();
        let hurried = entries.map(|Reverse(mut e)| {
            if matches!(&*e.event, Event::Mail { mail, .. } if mail.to().stalls()) {
                // Those that are early enough are before it still, and the others keep their order.
                e.at_us = e.at_us.min(last);
            }
            Reverse(e)
        });
        self.heap = hurried.collect();
        for ((_, mailbox), tail) in &mut self.tails {
            if mailbox.stalls() {
                *tail = (*tail).min(last);
            }
        }
    }

    /// The next thing to happen.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(entry) = self.heap.pop()?;
        self.now_us = entry.at_us;
        self.popped = entry.seq;
        Some((entry.at_us, *entry.event))
    }
}
