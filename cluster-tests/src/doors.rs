//! Clients that are connected to any node and send one message after the other, without waiting for answers. What
//! is not done on their node goes to the leader, as the product's book of forwarded requests decides.
//!
//! Between a node and a leader lies a link that keeps its order, is slow, and breaks; what was on its way is lost
//! then.

mod next;

use crate::clients::Waiting;
use crate::defects::Planted;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use crate::view::make_record;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use troupemq::actors::queue::core::QueueInput;
use troupemq::gateway::book::{Book, Judge, Pending, Way};
use troupemq::model::append::{AppendBatch, AppendRequest, RecordMeta};
use troupemq::model::outcome::{Outcome, Refusal};
use troupemq::model::policy::{AckPolicy, FlushPolicy};
use troupemq::model::{Position, QueueKey, TopicId};
use troupemq::storage::SimRng;
use troupemq::wire::remoting::code::request::SEND_MESSAGE_V2;

const TOPIC: &str = "topic-0";
/// A turn of some connection comes so often, microseconds.
const TURN_US: u64 = 250_000;
/// And of one whose own node is about to lead, for so long.
const TURN_OF_NEXT_US: u64 = 8_000;
/// A frame takes so long on its link at most, and a broken link is noticed within this time, microseconds.
const LINK_US: u64 = 30_000;
const NOTICED_US: u64 = 800_000;
/// Producers of connections have numbers from here on.
const PRODUCERS: u32 = 2_000;

/// Where a request was begun, and who waits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A connection of the same node, in this time of serving.
    Here { door: u64, number: u64 },
    /// Another node, by a link.
    Link {
        node: usize,
        link: u64,
        door: u64,
        number: u64,
    },
}

/// What goes over a link.
#[derive(Debug, Clone)]
pub enum Frame {
    Request {
        number: u64,
        uid: u64,
        key: QueueKey,
    },
    /// All that was refused is back.
    GoOn,
    Done {
        number: u64,
        answer: Told,
    },
    Refused {
        number: u64,
    },
}

/// What a client is told.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    Stored(Position, u64),
    /// Nothing happened.
    Refused,
    Unknown,
}

struct Door {
    /// Never the same for two connections.
    id: u64,
    node: usize,
    life: u64,
    book: Book,
    /// The leader refused something, and has to be told to go on.
    stopped: bool,
    queue: u64,
    /// What is not answered yet.
    open: BTreeMap<u64, (u64, QueueKey)>,
}

/// All connections, the links between nodes, and the leaders' ends of them.
pub struct Doors {
    rng: SimRng,
    epoch: Instant,
    doors: Vec<Door>,
    next: u64,
    /// The number of the present link from one node to another.
    links: BTreeMap<(usize, usize), u64>,
    /// When the last frame of a link arrives.
    tails: BTreeMap<(usize, usize), u64>,
    broken: BTreeSet<(usize, usize, u64)>,
    /// By leader, node, link and connection.
    judges: BTreeMap<(usize, usize, u64, u64), Judge>,
    /// A connection whose node is to lead next, while its requests are with the leader of now.
    next_leads: Option<(u64, u64)>,
}

impl Doors {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SimRng::new(seed ^ 0x646f_6f72_7321_2121),
            epoch: Instant::now(),
            doors: Vec::new(),
            next: 0,
            links: BTreeMap::new(),
            tails: BTreeMap::new(),
            broken: BTreeSet::new(),
            judges: BTreeMap::new(),
            next_leads: None,
        }
    }

    fn link(&self, from: usize, to: usize) -> u64 {
        self.links.get(&(from, to)).copied().unwrap_or(0)
    }

    fn at(&mut self, id: u64) -> Option<&mut Door> {
        self.doors.iter_mut().find(|door| door.id == id)
    }
}

impl Sim {
    fn instant(&self) -> Instant {
        self.doors.epoch + Duration::from_micros(self.schedule.now_us())
    }

    /// A turn of some connection: it sends, and what waits is looked at.
    pub(crate) fn doors_turn(&mut self) {
        let open = self.doors.doors.iter().any(|door| !door.open.is_empty());
        if self.is_calm() && !open {
            return;
        }
        let now_us = self.schedule.now_us();
        self.doors.next_leads.take_if(|(_, until)| *until < now_us);
        let hurried = self.doors.next_leads.map(|(id, _)| id);
        let most = hurried.map_or(TURN_US, |_| TURN_OF_NEXT_US);
        let next = self.doors.rng.between(500, most);
        self.schedule.after(next, Event::Doors);
        let nodes = self.nodes() as u64;
        while !self.is_calm() && self.doors.doors.len() < self.plan.doors as usize {
            self.doors.next += 1;
            let node = self.doors.rng.below(nodes) as usize;
            let queue = self.doors.rng.below(u64::from(self.plan.queues));
            self.enter(node);
            let door = Door {
                id: self.doors.next,
                node,
                life: self.life,
                book: Book::default(),
                stopped: false,
                queue,
                open: BTreeMap::new(),
            };
            self.doors.doors.push(door);
        }
        let ids: Vec<u64> = self.doors.doors.iter().map(|door| door.id).collect();
        let one = self.doors.rng.below(ids.len().max(1) as u64) as usize;
        for (at, id) in ids.into_iter().enumerate() {
            if self.go_to(id) {
                let its_turn = hurried.map_or(at == one, |hurried| hurried == id);
                if its_turn && !self.is_calm() && self.lull_left() == 0 {
                    for _ in 0..self.doors.rng.between(1, 4) {
                        self.door_sends(id);
                    }
                }
                self.pump(id);
            }
        }
    }

    /// Steps to the node of a connection. `false`: it does not run, or not now.
    fn go_to(&mut self, id: u64) -> bool {
        let Some((node, life)) = self.doors.at(id).map(|door| (door.node, door.life)) else {
            return false;
        };
        self.enter(node);
        self.life == life && self.node.is_some() && self.paused_until <= self.schedule.now_us()
    }

    fn door_sends(&mut self, id: u64) {
        let Some(topic) = self.view.topics.get(TOPIC).map(|t| t.id) else {
            return;
        };
        let Some(queue) = self.doors.at(id).map(|door| door.queue as u32) else {
            return;
        };
        let key = QueueKey::new(TopicId(topic), queue);
        let producer = PRODUCERS + id as u32;
        let uid = self.new_uid(producer, key, FlushPolicy::Sync, None);
        self.see(Seen::Pipelined { uid, door: id });
        self.counters.pipelined += 1;
        let now = self.instant();
        let serves = self.view.serving.is_some();
        let serving = self.node.as_ref().map_or(0, |node| node.shard.epoch());
        let Some(door) = self.doors.at(id) else {
            return;
        };
        let number = door.book.number();
        door.open.insert(number, (uid, key));
        let direct = serves && door.book.direct(SEND_MESSAGE_V2, serving);
        if direct {
            door.book.begins_here(serving);
            self.begin(From::Here { door: id, number }, uid, key);
            return self.leads_no_more(id);
        }
        door.book.wait(pending(number, uid, now));
    }

    /// What waits goes on if it may.
    fn pump(&mut self, id: u64) {
        let (here, now) = (self.here(), self.instant());
        let Some(node) = &self.node else { return };
        let (serving, leader) = (node.shard.epoch(), node.shard.raft().leader() as usize);
        let serves = self.view.serving.is_some();
        let any_way = self.defect == Some(Planted::BookForgetsWay);
        loop {
            let to = match leader {
                0 => here,
                leader => leader - 1,
            };
            let way: Way = (to as u64 + 1, self.doors.link(here, to));
            let Some(door) = self.doors.at(id) else {
                return;
            };
            if serves {
                let may = door.book.may_begin_here(now);
                let Some(next) = may.then(|| door.book.take(now)).flatten() else {
                    break;
                };
                let Some((uid, key)) = door.open.get(&next.number).copied() else {
                    continue;
                };
                door.book.begins_here(serving);
                let number = next.number;
                self.begin(From::Here { door: id, number }, uid, key);
                continue;
            }
            if to == here {
                break;
            }
            if !(door.book.may_send(way, now) || any_way) {
                if let Some(stuck) = door.book.stuck(now) {
                    self.counters.stuck += 1;
                    self.break_tunnel(here, stuck as usize - 1);
                }
                break;
            }
            let Some(next) = door.book.take_to_send(now) else {
                break;
            };
            let number = next.number;
            let go_on = std::mem::take(&mut door.stopped);
            let found = door.open.get(&number).copied();
            door.book.sent(way, next);
            let Some((uid, key)) = found else { continue };
            self.counters.forwarded += 1;
            if go_on {
                self.say(to, way.1, id, Frame::GoOn);
            }
            self.say(to, way.1, id, Frame::Request { number, uid, key });
            self.leads_next(id, to);
        }
        let late = self.doors.at(id).map(|door| door.book.take_late(now));
        for request in late.into_iter().flatten() {
            self.counters.waited_too_long += 1;
            self.door_told(id, request.number, Told::Refused);
        }
    }

    /// A frame goes from the node here by a link, whoever opened that.
    fn say(&mut self, to: usize, link: u64, door: u64, frame: Frame) {
        let here = self.here();
        let delay = self.doors.rng.below(LINK_US);
        let at = self.schedule.now_us() + delay;
        let tail = self.doors.tails.entry((here, to)).or_default();
        *tail = at.max(*tail + 1);
        let after = *tail - self.schedule.now_us();
        let from = here;
        let event = Event::Relay {
            from,
            to,
            link,
            door,
            frame,
        };
        self.schedule.after(after, event);
    }

    /// A frame arrives.
    pub(crate) fn relayed(&mut self, from: usize, link: u64, door: u64, frame: Frame) {
        let here = self.here();
        let is_answer = matches!(frame, Frame::Done { .. } | Frame::Refused { .. });
        let (client, leader) = if is_answer {
            (here, from)
        } else {
            (from, here)
        };
        let cut = self.group.as_ref().is_some_and(|g| g.is_cut(from, here));
        let resets = !self.is_calm() && self.doors.rng.chance(1, 400);
        if self.doors.broken.contains(&(client, leader, link)) {
            return;
        }
        if cut || resets || self.node.is_none() {
            self.doors.broken.insert((client, leader, link));
            let after = self.doors.rng.below(NOTICED_US);
            let lost = Event::RelayLost {
                node: client,
                to: leader,
                link,
            };
            return self.schedule.after(after, lost);
        }
        match frame {
            Frame::Request { number, uid, key } => {
                let able = self.view.serving.is_some();
                let lax = self.defect == Some(Planted::JudgeForgets);
                let at = (here, from, link, door);
                let judge = self.doors.judges.entry(at).or_default();
                if !(judge.admits(SEND_MESSAGE_V2, able) || lax && able) {
                    self.counters.refused_by_judge += 1;
                    return self.say(from, link, door, Frame::Refused { number });
                }
                let from = From::Link {
                    node: from,
                    link,
                    door,
                    number,
                };
                self.begin(from, uid, key);
            }
            Frame::GoOn => {
                let at = (here, from, link, door);
                self.doors.judges.entry(at).or_default().go_on();
            }
            Frame::Done { number, answer } => {
                let found = self.doors.at(door).map(|d| d.book.done(&[number]));
                if found.is_some_and(|found| !found.is_empty()) {
                    self.door_told(door, number, answer);
                }
                self.pump_if_there(door);
            }
            Frame::Refused { number } => {
                let now = self.instant();
                if let Some(door) = self.doors.at(door) {
                    door.stopped |= door.book.refused(&[number], now).0;
                }
                self.pump_if_there(door);
            }
        }
    }

    fn pump_if_there(&mut self, door: u64) {
        let here = self.here();
        if self.go_to(door) {
            self.pump(door);
        }
        self.enter(here);
    }

    /// A link from one node to another is lost, with all that is on it.
    fn break_tunnel(&mut self, from: usize, to: usize) {
        let link = self.doors.link(from, to);
        self.relay_lost(from, to, link);
    }

    /// The node notices that.
    pub(crate) fn relay_lost(&mut self, from: usize, to: usize, link: u64) {
        self.doors.broken.insert((from, to, link));
        if self.doors.link(from, to) != link {
            return;
        }
        self.counters.links_lost += 1;
        self.doors.links.insert((from, to), link + 1);
        let now = self.instant();
        let again = self.defect == Some(Planted::BookSendsAgain);
        let mut lost = Vec::new();
        for door in self.doors.doors.iter_mut().filter(|d| d.node == from) {
            let (_, gone) = door.book.take_back(to as u64 + 1, now);
            // Another link, another end of it, that refused nothing.
            door.stopped = false;
            for request in gone {
                match again {
                    true => door.book.wait(request),
                    false => lost.push((door.id, request.number)),
                }
            }
        }
        for (door, number) in lost {
            self.door_told(door, number, Told::Unknown);
        }
    }

    /// The queue's core is asked.
    fn begin(&mut self, from: From, uid: u64, key: QueueKey) {
        let here = self.here();
        let policy = AckPolicy::STRICTEST;
        let token = self.clients.slot(here, Waiting::Forwarded { from });
        let records = make_record(uid, 0);
        let size = records.len() as u32;
        let batch = AppendBatch {
            metas: vec![RecordMeta { size, tag: 0 }],
            records,
            requests: vec![AppendRequest {
                token,
                count: 1,
                policy,
            }],
        };
        let fired = Vec::new();
        self.post_queue(key, QueueInput::Append { batch, fired });
    }

    /// It answered.
    pub(crate) fn forwarded(&mut self, from: From, outcome: Outcome) {
        let moves = matches!(outcome, Outcome::Refused(Refusal::NotLeader));
        let answer = match outcome {
            Outcome::Appended {
                base_offset,
                position,
                ..
            } => Told::Stored(position, base_offset),
            Outcome::Refused(why) if why != Refusal::Indeterminate => Told::Refused,
            _ => Told::Unknown,
        };
        match from {
            From::Here { door, number } => {
                let serving = self.node.as_ref().map_or(0, |node| node.shard.epoch());
                let now = self.instant();
                let Some(of) = self.doors.at(door) else {
                    return;
                };
                let found = of.open.get(&number).copied();
                if let (Some((uid, _)), true) = (found, moves) {
                    of.book.wait(pending(number, uid, now));
                }
                of.book.ends_here(serving);
                if !moves {
                    self.door_told(door, number, answer);
                }
                self.pump_if_there(door);
            }
            From::Link {
                node,
                link,
                door,
                number,
            } => {
                let at = (self.here(), node, link, door);
                let lax = self.defect == Some(Planted::JudgeForgets);
                if moves {
                    if !lax {
                        self.doors
                            .judges
                            .entry(at)
                            .or_default()
                            .refused(SEND_MESSAGE_V2);
                    }
                    return self.say(node, link, door, Frame::Refused { number });
                }
                self.say(node, link, door, Frame::Done { number, answer });
            }
        }
    }

    /// A client is answered, once.
    fn door_told(&mut self, id: u64, number: u64, told: Told) {
        let Some(door) = self.doors.at(id) else {
            return;
        };
        let Some((uid, _)) = door.open.remove(&number) else {
            return self.fail(
                "I7",
                format!("request {number} of connection {id} is answered twice"),
            );
        };
        match told {
            Told::Stored(at, offset) => {
                self.counters.pipelined_acked += 1;
                self.acked(uid, at, Some(offset), AckPolicy::STRICTEST);
            }
            Told::Refused => {
                self.counters.refused += 1;
                self.see(Seen::Refused { uid });
            }
            Told::Unknown => {
                self.counters.unknown += 1;
                self.see(Seen::Unknown { uid });
            }
        }
    }

    /// The node here went away, with its connections and the ends of links.
    pub(crate) fn doors_disconnected(&mut self) {
        let here = self.here();
        let all = std::mem::take(&mut self.doors.doors);
        let (gone, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| d.node == here);
        self.doors.doors = stay;
        for (uid, _) in gone.into_iter().flat_map(|door| door.open.into_values()) {
            self.counters.unknown += 1;
            self.see(Seen::Unknown { uid });
        }
        self.doors.judges.retain(|at, _| at.0 != here);
        for node in (0..self.nodes()).filter(|node| *node != here) {
            let link = self.doors.link(node, here);
            self.doors.broken.insert((node, here, link));
            let after = self.doors.rng.below(NOTICED_US);
            let to = here;
            self.schedule
                .after(after, Event::RelayLost { node, to, link });
            // The process that comes back opens its links anew.
            let own = self.doors.link(here, node);
            self.doors.broken.insert((here, node, own));
            self.doors.links.insert((here, node), own + 1);
        }
    }

    /// Requests that no client of a connection was answered.
    pub(crate) fn open_at_doors(&self) -> usize {
        self.doors.doors.iter().map(|door| door.open.len()).sum()
    }
}

fn pending(number: u64, uid: u64, now: Instant) -> Pending {
    Pending {
        frame: Bytes::copy_from_slice(&uid.to_be_bytes()),
        code: SEND_MESSAGE_V2,
        opaque: 0,
        oneway: false,
        is_answer: false,
        since: now,
        waits_since: now,
        number,
        _held: None,
    }
}
