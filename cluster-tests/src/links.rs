//! What goes wrong on the connection from one node to another: nothing gets through for a while and what
//! waits is bounded, the connection breaks with messages under way, bytes change. Frames are the
//! product's own then, and so is the decoder that must refuse them.

use crate::defects::Planted;
use crate::schedule::Event;
use crate::sim::Sim;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use troupemq::peer::frame::{self, Beat, FrameBuilder, Item};
use troupemq::peer::{Lane, PeerMessage};

/// A link is clogged for so long at most, microseconds.
const LONGEST_CLOG_US: u64 = 5_000_000;
/// An end that hears nothing for so long closes the connection, microseconds: as the product's links do.
pub(crate) const SILENT_US: u64 = 2_000_000;
/// A connection that broke is made again so soon, microseconds.
const AGAIN_US: (u64, u64) = (25_000, 1_000_000);
/// A message comes again after so long, microseconds.
const REPLAYED_US: (u64, u64) = (60_000_000, 200_000_000);
/// Most bytes of a frame.
const MAX_FRAME: usize = 32 << 20;
/// Frames that come behind one whose length is wrong, until an end finds that it hears no answer.
const FOLLOWING: usize = 4;

/// The connection from one node to another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// Nothing gets through until then, microseconds.
    clogged_until: u64,
    /// What waits then, in the order sent.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// It broke, and is made again then.
    down_until: u64,
}

impl Link {
    fn take(&mut self) -> VecDeque<Bytes> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }
}

impl Sim {
    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let nodes = self.nodes();
        &mut self.extra.links[from * nodes + to]
    }

    /// A tick of the node here: links from it may clog or break.
    pub(crate) fn link_faults(&mut self) {
        let (clogs, breaks) = (self.plan.extra.clogs, self.plan.extra.breaks);
        let (from, nodes) = (self.here(), self.nodes() as u64);
        let clogs = clogs > 0 && self.extra.rng.chance(clogs, 1000);
        let breaks = breaks > 0 && self.extra.rng.chance(breaks, 1000);
        if !clogs && !breaks {
            return;
        }
        let to = (from + 1 + self.extra.rng.below(nodes - 1) as usize) % nodes as usize;
        if clogs {
            self.clog(from, to);
        }
        if breaks {
            self.break_link(from, to, true);
        }
    }

    fn clog(&mut self, from: usize, to: usize) {
        let now = self.schedule.now_us();
        let lasts = self.extra.rng.below(LONGEST_CLOG_US);
        // What is under way in the other direction says for the acceptor that its peer lives; an end
        // may also notice nothing.
        let closes = lasts > SILENT_US && self.extra.rng.chance(1, 2);
        let link = self.link(from, to);
        if link.clogged_until > now || link.down_until > now {
            return;
        }
        link.clogged_until = now + lasts;
        self.counters.clogs += 1;
        let event = |breaks| Event::Link { from, to, breaks };
        self.schedule.after(lasts, event(false));
        if closes {
            self.schedule.after(SILENT_US, event(true));
        }
    }

    /// Nothing gets through for so long, and then all of it in order.
    pub(crate) fn hold_link(&mut self, from: usize, to: usize, lasts: u64) {
        let until = self.schedule.now_us() + lasts;
        let link = self.link(from, to);
        link.clogged_until = link.clogged_until.max(until);
        let breaks = false;
        self.schedule.after(lasts, Event::Link { from, to, breaks });
    }

    /// A clog ends, or one of the ends gives the connection up because of it.
    pub(crate) fn link_event(&mut self, from: usize, to: usize, breaks: bool) {
        let now = self.schedule.now_us();
        let clogged = self.link(from, to).clogged_until > now;
        match breaks {
            true if clogged && !self.is_calm() => self.break_link(from, to, true),
            false if !clogged => self.release(from, to),
            _ => {}
        }
    }

    /// All that waited comes at once, in its order.
    fn release(&mut self, from: usize, to: usize) {
        for bytes in self.link(from, to).take() {
            self.packet(0, from, to, bytes);
        }
    }

    /// The connection is closed, or clogged, and nobody hears the other's clock.
    pub(crate) fn is_silent(&mut self, from: usize, to: usize) -> bool {
        let now = self.schedule.now_us();
        let silent = self.does_not_answer(to);
        let link = self.link(from, to);
        silent || link.clogged_until > now || link.down_until > now
    }

    /// The link takes a message: `None` when the network is to carry it, else whether it does not drop it.
    pub(crate) fn put_on_link(&mut self, from: usize, to: usize, bytes: &Bytes) -> Option<bool> {
        let now = self.schedule.now_us();
        if self.does_not_answer(to) || self.link(from, to).down_until > now {
            self.counters.links_refused += 1;
            return Some(false);
        }
        let most = self.plan.extra.clog_bytes;
        let link = self.link(from, to);
        if link.clogged_until <= now {
            return None;
        }
        let fits = link.held_bytes + bytes.len() <= most;
        if fits {
            link.held_bytes += bytes.len();
            link.held.push_back(bytes.clone());
        }
        self.counters.clogs_full += u64::from(!fits);
        Some(fits)
    }

    /// Some messages come once more after minutes.
    pub(crate) fn keep_for_later(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let replays = self.plan.extra.replays;
        if replays == 0 || self.is_calm() || !self.extra.rng.chance(replays, 1000) {
            return;
        }
        let (least, most) = REPLAYED_US;
        let after = self.extra.rng.between(least, most);
        let bytes = bytes.clone();
        self.schedule
            .after(after, Event::Replay { from, to, bytes });
    }

    /// One of them arrives, unless the faults are over.
    pub(crate) fn replayed(&mut self, from: usize, to: usize, bytes: Bytes) {
        if !self.is_calm() {
            self.counters.replayed += 1;
            self.arrived(from, to, bytes);
        }
    }

    /// A connection breaks: what was sent first arrives still, the rest is lost, and both ends see it.
    fn break_link(&mut self, from: usize, to: usize, prefix: bool) {
        let now = self.schedule.now_us();
        let rng = &mut self.extra.rng;
        let share = if prefix { rng.below(1_000) as usize } else { 0 };
        let (least, most) = AGAIN_US;
        let again = rng.between(least, most);
        let seen = [rng.below(20_000), rng.below(20_000)];
        let keep = |n: usize| n * share / 1_000;
        let lost = self.schedule.cut_short(from, to, keep);
        let link = self.link(from, to);
        (link.clogged_until, link.down_until) = (0, now + again);
        let held = link.take();
        let kept = keep(held.len());
        let lost = lost + held.len() - kept;
        self.counters.links_broken += 1;
        self.counters.lost_with_link += lost as u64;
        for bytes in held.into_iter().take(kept) {
            self.packet(0, from, to, bytes);
        }
        for ((node, to), after) in [(from, to), (to, from)].into_iter().zip(seen) {
            self.schedule.after(after, Event::LinkClosed { node, to });
        }
    }

    /// The process here is gone, and what it had not handed to the network.
    pub(crate) fn links_gone(&mut self) {
        let (here, nodes) = (self.here(), self.nodes());
        for other in 0..nodes {
            let link = self.link(other, here);
            link.take();
            link.clogged_until = 0;
            let held = self.link(here, other).held.len() as u64;
            if held > 0 {
                let kept = self.extra.rng.below(held + 1) as usize;
                self.link(here, other).held.truncate(kept);
            }
        }
    }

    /// No faults any more.
    pub(crate) fn heal_links(&mut self) {
        for from in 0..self.nodes() {
            for to in 0..self.nodes() {
                let link = self.link(from, to);
                (link.clogged_until, link.down_until) = (0, 0);
                self.release(from, to);
            }
        }
    }

    /// A message comes off the wire; `None` when the connection was closed instead.
    pub(crate) fn off_the_wire(&mut self, from: usize, to: usize, bytes: Bytes) -> Option<Bytes> {
        let corrupt = self.plan.extra.corrupt;
        if corrupt == 0 || self.is_calm() {
            return Some(bytes);
        }
        let changes = self.extra.rng.chance(corrupt, 1000);
        if !changes && !self.extra.rng.chance(1, 50) {
            return Some(bytes);
        }
        self.counters.frames += 1;
        let number = self.extra.rng.below(1 << 40);
        let mut wire = framed(number, &bytes);
        let sent = wire.clone();
        if changes {
            self.change(&mut wire);
        }
        // A bit that changes twice is what it was.
        let changes = wire != sent;
        if self.defect == Some(Planted::ChecksumUnread) {
            wire = agreeing(wire);
        }
        match taken(wire, number) {
            Some(found) if found == bytes && !changes => Some(bytes),
            Some(_) => {
                let what = format!("node {to} takes a frame of node {from} that is not as sent");
                self.fail("I18", what);
                None
            }
            None if changes => {
                self.counters.frames_refused += 1;
                self.break_link(from, to, false);
                None
            }
            None => {
                self.fail("I18", format!("node {to} refuses what node {from} sent"));
                None
            }
        }
    }

    /// Bits, a byte or a run of bytes change, or some are missing.
    fn change(&mut self, wire: &mut BytesMut) {
        let rng = &mut self.extra.rng;
        let len = wire.len() as u64;
        let at = rng.below(len) as usize;
        match rng.below(4) {
            0 => wire[at] ^= 1 << rng.below(8),
            1 => wire[at] ^= rng.between(1, 255) as u8,
            2 => {
                let end = (at + rng.between(2, 40) as usize).min(wire.len());
                wire[at..end]
                    .iter_mut()
                    .for_each(|b| *b ^= rng.below(256) as u8);
                wire[at] ^= 1;
            }
            _ => {
                let mut rest = wire.split_off(at);
                let _ = rest.split_to((rng.between(1, 20) as usize).min(rest.len()));
                wire.unsplit(rest);
            }
        }
    }
}

/// A frame of the product's with this message between two pings.
fn framed(number: u64, bytes: &Bytes) -> BytesMut {
    let ping = |value| Beat { value, wall_ms: 1 };
    let mut frame = FrameBuilder::default();
    frame.ping(ping(1));
    frame.message(Lane::Raft, crate::SHARD.0, bytes.clone());
    frame.ping(ping(2));
    let mut wire = BytesMut::new();
    wire.put(frame.finish(number));
    wire
}

/// (planted) The checksum agrees with whatever came, as if nobody read it.
fn agreeing(wire: BytesMut) -> BytesMut {
    match wire.len() > frame::HEAD {
        true => BytesMut::from(&frame::whole(&wire[frame::HEAD..])[..]),
        false => wire,
    }
}

/// What the decoder makes of a frame and those that follow; `None` when it refuses, or waits for more
/// until the other end misses its answer.
fn taken(mut wire: BytesMut, number: u64) -> Option<Bytes> {
    let mut found = None;
    for following in 1..=FOLLOWING {
        match frame::split(&mut wire, MAX_FRAME) {
            Err(_) => return None,
            Ok(Some(body)) => {
                for item in frame::items(body, number).ok()? {
                    match item {
                        Item::Message(PeerMessage { bytes, .. }) => found = Some(bytes),
                        Item::Ping(_) | Item::Pong(_) => {}
                    }
                }
                return found;
            }
            Ok(None) => {
                let next = framed(number + following as u64, &Bytes::from_static(&[7; 100]));
                wire.unsplit(next);
            }
        }
    }
    None
}
