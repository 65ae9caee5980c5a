use super::*;

/// One connection at a node that does not lead, and a leader's end of it.
struct World {
    book: Book,
    judge: Judge,
    way: Way,
    now: Instant,
    /// Frames under way to the leader: a number, or `None` for "go on".
    link: VecDeque<Option<(u64, i32)>>,
    stopped: bool,
    /// What the leader did, by number.
    log: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            book: Book::default(),
            judge: Judge::default(),
            way: (2, 1),
            now: Instant::now(),
            link: VecDeque::new(),
            stopped: false,
            log: Vec::new(),
        }
    }

    fn request(&mut self, code: i32) -> Pending {
        let number = self.book.number();
        Pending {
            frame: Bytes::from_static(b"frame"),
            code,
            opaque: 0,
            oneway: false,
            is_answer: false,
            since: self.now,
            waits_since: self.now,
            number,
            _held: None,
        }
    }

    fn reads(&mut self, code: i32) -> u64 {
        let request = self.request(code);
        let number = request.number;
        self.book.wait(request);
        self.pump();
        number
    }

    fn pump(&mut self) {
        if self.book.may_send(self.way, self.now) {
            while let Some(request) = self.book.take_to_send(self.now) {
                if std::mem::take(&mut self.stopped) {
                    self.link.push_back(None);
                }
                self.link.push_back(Some((request.number, request.code)));
                self.book.sent(self.way, request);
            }
        }
    }

    /// The leader reads `frames` and answers in one message.
    fn leader_reads(&mut self, frames: usize, serves: bool) -> (Vec<u64>, Vec<u64>) {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            match self.link.pop_front().unwrap() {
                None => self.judge.go_on(),
                Some((number, code)) if self.judge.admits(code, serves) => {
                    self.log.push(number);
                    done.push(number);
                }
                Some((number, _)) => refused.push(number),
            }
        }
        (done, refused)
    }

    fn hears(&mut self, (done, refused): (Vec<u64>, Vec<u64>)) {
        self.book.done(&done);
        self.stopped |= self.book.refused(&refused, self.now).0;
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.pump();
            let answer = self.leader_reads(self.link.len(), true);
            self.hears(answer);
        }
    }
}

const SEND: i32 = code::SEND_MESSAGE_V2;
const PULL: i32 = code::PULL_MESSAGE;
const COMMIT: i32 = code::UPDATE_CONSUMER_OFFSET;

#[test]
fn refused_in_two_answers_they_go_on_in_order() {
    let mut w = World::new();
    let all: Vec<u64> = (0..65).map(|_| w.reads(SEND)).collect();
    let first = w.leader_reads(64, false);
    let second = w.leader_reads(1, false);
    w.hears(first);
    w.pump();
    assert!(w.link.is_empty(), "the last is still under way");
    w.hears(second);
    w.settle();
    assert_eq!(w.log, all);
}

#[test]
fn a_leader_that_begins_to_serve_between_two_does_not_take_the_second() {
    let mut w = World::new();
    let all: Vec<u64> = (0..3).map(|_| w.reads(SEND)).collect();
    let first = w.leader_reads(1, false);
    let rest = w.leader_reads(1, true);
    assert!(rest.0.is_empty(), "it waits to be told");
    w.hears(first);
    let late = w.reads(SEND);
    w.hears(rest);
    w.pump();
    assert_eq!(w.link.len(), 1, "only the third");
    w.settle();
    assert_eq!(w.log, [all, vec![late]].concat());
}

#[test]
fn what_follows_does_not_overtake_what_the_own_cores_have() {
    let mut w = World::new();
    let (one, two) = (w.request(SEND), w.request(SEND));
    let (n1, n2) = (one.number, two.number);
    assert!(w.book.direct(SEND, 5));
    w.book.begins_here(5);
    w.book.begins_here(5);
    // The lead goes to another node; the third is read before the cores refused the others.
    let n3 = w.reads(SEND);
    assert!(w.link.is_empty());
    w.book.wait(one);
    assert_eq!(w.book.ends_here(5), (false, false));
    w.pump();
    assert!(w.link.is_empty());
    w.book.wait(two);
    assert_eq!(w.book.ends_here(5), (true, false));
    w.settle();
    assert_eq!(w.log, [n1, n2, n3]);
}

#[test]
fn a_leader_again_takes_nothing_before_the_cores_gave_up_what_they_had() {
    let mut book = Book::default();
    book.begins_here(5);
    assert!(book.direct(SEND, 5));
    assert!(!book.direct(SEND, 7) && book.is_stale_here(7));
    assert!(book.direct(PULL, 7), "a pull has no place in that order");
    book.begins_here(5);
    assert_eq!(book.ends_here(7), (false, false));
    // What was refused meanwhile may come again.
    assert_eq!(book.ends_here(7), (false, true));
    assert!(book.direct(SEND, 7) && !book.is_stale_here(7));
}

#[test]
fn who_begins_to_lead_waits_for_what_the_leader_before_has() {
    let mut w = World::new();
    w.reads(SEND);
    assert!(!w.book.direct(SEND, 1));
    assert!(!w.book.may_begin_here(w.now));
    let answer = w.leader_reads(1, false);
    w.hears(answer);
    assert!(w.book.may_begin_here(w.now));
    assert!(!w.book.direct(SEND, 1), "what waits goes first");
    w.book.take(w.now);
    assert!(w.book.direct(SEND, 1));
}

#[test]
fn a_node_that_says_nothing_is_given_up() {
    let mut w = World::new();
    w.reads(SEND);
    w.reads(COMMIT);
    let pull = w.reads(PULL);
    w.way = (3, 2);
    w.reads(SEND);
    assert_eq!(w.book.stuck(w.now), None);
    w.now += STUCK;
    assert_eq!(w.book.stuck(w.now), Some(2));
    let (back, lost) = w.book.take_back(2, w.now);
    assert_eq!((back, lost.len()), (2, 1));
    w.link.clear();
    w.settle();
    assert_eq!(w.log, [2, pull, 4]);
    // Another node is not to blame for that.
    w.reads(SEND);
    w.way = (2, 3);
    w.reads(SEND);
    assert_eq!(w.book.stuck(w.now), None);
}

#[test]
fn pulls_of_a_dead_leader_wait_from_then_on() {
    let mut w = World::new();
    w.reads(PULL);
    w.reads(code::LOCK_BATCH_MQ);
    w.now += Duration::from_secs(9);
    w.book.take_back(2, w.now);
    w.now += Duration::from_secs(9);
    let late: Vec<i32> = w.book.take_late(w.now).iter().map(|r| r.code).collect();
    assert_eq!(late, [code::LOCK_BATCH_MQ]);
    w.now += Duration::from_secs(1);
    assert_eq!(w.book.take_late(w.now).len(), 1);
}

#[test]
fn what_comes_back_late_is_answered_and_not_done() {
    let mut w = World::new();
    w.reads(COMMIT);
    w.reads(SEND);
    let pull = w.reads(PULL);
    // The leader is cut off, and refuses all that it held when it hears of the next one.
    w.link.clear();
    w.now += Duration::from_secs(7);
    w.hears((vec![], vec![1, 2, pull]));
    let young = w.reads(COMMIT);
    assert_eq!(w.book.waiting(), 2, "they wait for their answer");
    w.settle();
    assert_eq!(w.log, [pull, young]);
    let late: Vec<i32> = w.book.take_late(w.now).iter().map(|r| r.code).collect();
    assert_eq!(late, [COMMIT, SEND]);
    assert_eq!(w.book.waiting(), 0);
    // The same where this node leads itself then.
    let own = w.request(COMMIT);
    w.book.wait(own);
    w.now += Duration::from_secs(7);
    assert!(w.book.first(w.now).is_none() && w.book.take(w.now).is_none());
    assert_eq!(w.book.take_late(w.now).len(), 1);
}

#[test]
fn a_lock_is_answered_before_its_client_gives_up() {
    let mut w = World::new();
    for code in [code::LOCK_BATCH_MQ, code::UNLOCK_BATCH_MQ, SEND] {
        let request = w.request(code);
        w.book.wait(request);
    }
    w.now += Duration::from_millis(850);
    assert_eq!(w.book.take_late(w.now).len(), 2);
}

#[test]
fn bytes_with_the_leader_are_bounded_and_one_frame_always_goes() {
    let mut w = World::new();
    let big = Bytes::from(vec![0; MAX_SENT as usize + 1]);
    for _ in 0..2 {
        let mut request = w.request(SEND);
        request.frame = big.clone();
        w.book.wait(request);
    }
    w.pump();
    assert_eq!((w.link.len(), w.book.waiting()), (1, 1));
    assert!(!w.book.has_room(), "nor is more read");
    w.settle();
    assert_eq!(w.log, [1, 2]);
    assert!(w.book.has_room());
}

#[test]
fn one_way_requests_are_kept_until_they_are_done() {
    let mut w = World::new();
    let mut commit = w.request(COMMIT);
    commit.oneway = true;
    let mut answer = w.request(0);
    answer.is_answer = true;
    w.book.wait(commit);
    w.book.sent(w.way, answer);
    w.pump();
    let refused = w.leader_reads(1, false);
    w.hears(refused);
    assert_eq!(w.book.waiting(), 1);
    let (back, lost) = w.book.take_back(2, w.now);
    assert_eq!((back, lost.len()), (0, 1), "the answer is not given again");
    w.settle();
    assert_eq!(w.log, [1]);
}
