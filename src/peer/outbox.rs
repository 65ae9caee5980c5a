//! What waits to be sent to one peer: a queue per lane, bounded in bytes.

use super::frame::{FrameBuilder, HEAD, MESSAGE_HEAD, NUMBER};
use super::{Lane, LinkState};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Most bytes of a frame besides raft's messages: heartbeats must not wait behind bulk.
const BULK_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Queue {
    messages: VecDeque<(u32, Bytes)>,
    bytes: usize,
}

#[derive(Default)]
struct Inner {
    lanes: [Queue; 3],
    state: LinkState,
    /// A message of the lane of forwarded requests was refused, and nobody was told of room since.
    wanted: bool,
}

/// What [`Outbox::fill`] leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Something is left.
    pub left: bool,
    /// There is room again for forwarded requests and answers, after one was refused.
    pub room: bool,
}

/// See the module text.
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Rung when something was queued.
    pub bell: Notify,
    /// Rung when the peer has reached this node.
    pub reached: Notify,
    max_queued: usize,
}

impl Outbox {
    /// Nothing waits; at most `max_queued` bytes may, per lane.
    pub fn new(max_queued: usize) -> Self {
        Self {
            inner: Mutex::default(),
            bell: Notify::new(),
            reached: Notify::new(),
            max_queued,
        }
    }

    /// What the peer speaks, as it said when the link was opened.
    pub fn set_version(&self, version: u16) {
        self.inner.lock().state.version = version;
    }

    /// Queues a message unless the link is down, too much waits, or no frame can hold it.
    pub fn push(&self, lane: Lane, shard: u32, bytes: Bytes, max_frame: usize) -> bool {
        let mut inner = self.inner.lock();
        let size = MESSAGE_HEAD + bytes.len();
        let queue = &mut inner.lanes[lane as usize];
        let fits = size + HEAD + NUMBER <= max_frame && queue.bytes + size <= self.max_queued;
        if !inner.state.outgoing || !fits {
            inner.state.dropped += 1;
            inner.wanted |= lane == Lane::Forward;
            return false;
        }
        let queue = &mut inner.lanes[lane as usize];
        queue.bytes += size;
        queue.messages.push_back((shard, bytes));
        inner.state.queued += size as u64;
        drop(inner);
        self.bell.notify_one();
        true
    }

    /// Moves what waits into a frame: all of raft, then a part of the rest.
    pub fn fill(&self, frame: &mut FrameBuilder, max_frame: usize) -> Filled {
        let mut inner = self.inner.lock();
        let room = max_frame - HEAD - NUMBER;
        let limits = [room, BULK_BYTES, BULK_BYTES];
        let mut left = false;
        for (lane, limit) in [Lane::Raft, Lane::Forward, Lane::Bulk]
            .into_iter()
            .zip(limits)
        {
            let begun = frame.len();
            let queue = &mut inner.lanes[lane as usize];
            let mut taken = 0;
            while let Some((_, bytes)) = queue.messages.front() {
                let size = MESSAGE_HEAD + bytes.len();
                let over = frame.len() + size > room || frame.len() - begun >= limit;
                if over {
                    left = true;
                    break;
                }
                let Some((shard, bytes)) = queue.messages.pop_front() else {
                    break;
                };
                frame.message(lane, shard, bytes);
                taken += size;
            }
            queue.bytes -= taken;
            inner.state.queued -= taken as u64;
        }
        // Half of it, so that who waited is not told again and again.
        let queued = inner.lanes[Lane::Forward as usize].bytes;
        let room = inner.wanted && queued <= self.max_queued / 2;
        inner.wanted &= !room;
        Filled { left, room }
    }

    /// The outgoing connection opened, or broke: then what waits is dropped.
    pub fn set_outgoing(&self, up: bool) {
        let mut inner = self.inner.lock();
        inner.state.outgoing = up;
        inner.wanted = false;
        if up {
            inner.state.connects += 1;
        } else {
            inner.lanes = Default::default();
            inner.state.queued = 0;
        }
    }

    /// The incoming connection opened or broke.
    pub fn set_incoming(&self, up: bool) {
        self.inner.lock().state.incoming = up;
        if up {
            self.reached.notify_one();
        }
    }

    /// Figures for people.
    pub fn state(&self) -> LinkState {
        self.inner.lock().state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 4 << 20;

    fn lens(outbox: &Outbox) -> (usize, bool) {
        let mut frame = FrameBuilder::default();
        let filled = outbox.fill(&mut frame, FRAME);
        (frame.len(), filled.left)
    }

    #[test]
    fn nothing_waits_for_a_link_that_is_down() {
        let outbox = Outbox::new(1 << 20);
        assert!(!outbox.push(Lane::Raft, 1, Bytes::from_static(b"x"), FRAME));
        outbox.set_outgoing(true);
        assert!(outbox.push(Lane::Raft, 1, Bytes::from_static(b"x"), FRAME));
        outbox.set_outgoing(false);
        outbox.set_outgoing(true);
        assert_eq!(lens(&outbox), (0, false));
        let state = outbox.state();
        assert_eq!((state.dropped, state.connects, state.queued), (1, 2, 0));
    }

    #[test]
    fn bytes_are_bounded_per_lane_and_given_back() {
        let outbox = Outbox::new(1_000);
        outbox.set_outgoing(true);
        let message = || Bytes::from(vec![0; 400]);
        let push = |lane| outbox.push(lane, 1, message(), FRAME);
        assert!(push(Lane::Raft) && push(Lane::Raft) && !push(Lane::Raft));
        assert!(push(Lane::Forward), "lanes do not share their room");
        assert_eq!(outbox.state().queued, 3 * 409);
        assert_eq!(lens(&outbox), (3 * 409, false));
        assert_eq!(outbox.state().queued, 0);
        assert!(push(Lane::Raft));
        let huge = Bytes::from(vec![0; 900]);
        assert!(!outbox.push(Lane::Bulk, 1, huge, 900), "no frame holds it");
    }

    #[test]
    fn who_was_refused_is_told_of_room_once() {
        let outbox = Outbox::new((4 << 20) + 1_000);
        outbox.set_outgoing(true);
        let push = || outbox.push(Lane::Forward, 1, Bytes::from(vec![0; 1 << 20]), FRAME);
        // Each takes one message.
        let room = || outbox.fill(&mut FrameBuilder::default(), FRAME).room;
        assert!(push() && push() && push() && push());
        assert!(
            !room() && !room() && !room() && !room(),
            "nobody was refused"
        );
        assert!(push() && push() && push() && push() && !push());
        assert!(!room(), "three of four wait");
        assert!(room(), "two wait");
        assert!(!room() && !room() && !room(), "it was told");
        assert!(push() && push() && push() && push() && !push());
        outbox.set_outgoing(false);
        outbox.set_outgoing(true);
        assert!(!room(), "a link that broke tells by that");
    }

    #[test]
    fn bulk_is_cut_and_raft_goes_first() {
        let outbox = Outbox::new(64 << 20);
        outbox.set_outgoing(true);
        for _ in 0..6 {
            assert!(outbox.push(Lane::Bulk, 1, Bytes::from(vec![0; 400_000]), FRAME));
        }
        assert!(outbox.push(Lane::Raft, 1, Bytes::from(vec![0; 3 << 20]), FRAME));
        // Raft's message, and as much bulk as the frame has room for.
        let (first, left) = lens(&outbox);
        assert!(first > 3 << 20 && first < FRAME && left);
        let (second, _) = lens(&outbox);
        assert!((1 << 20..2 << 20).contains(&second), "{second}");
    }
}
