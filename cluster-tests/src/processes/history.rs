//! What clients asked, what they were answered and what they received, with monotonic times.

use super::rng::mix;
use std::io::Write;
use std::path::Path;

/// Topics of the load.
pub const TOPICS: [&str; 6] = [
    "load-0",
    "load-1",
    "load-2",
    "load-3",
    "load-delay",
    "load-java",
];
/// The topic of delayed messages; those before it take all others.
pub const DELAYED: u8 = 4;
/// The topic of Java clients.
pub const JAVA: u8 = 5;
/// Queues of a topic on each shard.
pub const QUEUES: u8 = 4;
/// Bytes of a body.
const BODY: usize = 1024;

/// Producer and number.
pub type Id = (u32, u32);

/// A queue of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: u8,
    pub shard: u8,
    pub queue: u8,
}

/// What came of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `SEND_OK`, and the offset.
    Acked(i64),
    /// Another code: the message is refused, or the code leaves it open.
    Refused(i32),
    /// No answer: the message may be stored or not.
    Unknown,
    /// No connection could be made: the message was not sent.
    NotSent,
}

/// One attempt to send one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub id: Id,
    /// For a refused or unknown attempt: where it was meant to go.
    pub place: Place,
    /// The node that was asked; counts from 0.
    pub node: u8,
    /// Microseconds since the beginning of the run.
    pub begin: u64,
    pub end: u64,
    /// Delay asked for, in milliseconds.
    pub delay_ms: u32,
    pub answer: Answer,
}

/// A message that a consumer received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub place: Place,
    pub offset: i64,
    /// `None` when the body is not one that was sent.
    pub id: Option<Id>,
    /// Microseconds since the beginning of the run.
    pub at: u64,
}

/// The life of a consumer of one queue, from one start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub place: Place,
    /// The offset that the broker had for it at its start; 0 when there was none.
    pub from: i64,
    pub got: Vec<Got>,
    /// Offsets whose commit was answered with success, in order.
    pub committed: Vec<i64>,
    /// Pulls answered with "offset moved".
    pub moved: u32,
}

/// A read of a queue's maximum offset just after an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetRead {
    pub place: Place,
    pub node: u8,
    pub acked: i64,
    pub max: i64,
    pub at: u64,
}

/// Everything of one run.
#[derive(Debug, Default)]
pub struct History {
    pub sent: Vec<Sent>,
    pub sessions: Vec<Session>,
    pub reads: Vec<OffsetRead>,
    /// Messages, batches and ordered messages whose attempts all failed: when and why.
    pub failed: Vec<(u64, String)>,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Per shard: when its prober was acknowledged.
    pub acks: Vec<Vec<u64>>,
}

impl History {
    /// Acknowledged messages.
    pub fn acked(&self) -> usize {
        let acked = |s: &&Sent| matches!(s.answer, Answer::Acked(_));
        self.sent.iter().filter(acked).count()
    }

    /// Writes it as text, one line for each thing.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
        let place =
            |p: &Place| format!("{}\t{}\t{}", TOPICS[usize::from(p.topic)], p.shard, p.queue);
        writeln!(
            out,
            "# sent\tproducer\tnumber\ttopic\tshard\tqueue\tnode\tbegin\tend\tanswer"
        )?;
        for s in &self.sent {
            writeln!(
                out,
                "sent\t{}\t{}\t{}\t{}\t{}\t{}\t{:?}",
                s.id.0,
                s.id.1,
                place(&s.place),
                s.node,
                s.begin,
                s.end,
                s.answer
            )?;
        }
        for (at, why) in &self.failed {
            writeln!(out, "failed\t{at}\t{why}")?;
        }
        for read in &self.reads {
            let (node, at) = (read.node, read.at);
            let what = format!("{}\t{}", read.acked, read.max);
            writeln!(out, "read\t{}\t{node}\t{what}\t{at}", place(&read.place))?;
        }
        for (n, session) in self.sessions.iter().enumerate() {
            let (at, from) = (place(&session.place), session.from);
            writeln!(
                out,
                "session\t{n}\t{at}\t{from}\tcommitted {:?}",
                session.committed
            )?;
            for got in &session.got {
                writeln!(out, "got\t{n}\t{}\t{:?}\t{}", got.offset, got.id, got.at)?;
            }
        }
        out.flush()
    }
}

/// The body of a message: its id, a check sum and a filler that follow from it.
pub fn body(id: Id) -> Vec<u8> {
    let sum = mix(u64::from(id.0) << 32 | u64::from(id.1));
    let mut out = format!("{}:{}:{sum:016x}:", id.0, id.1).into_bytes();
    let mut word = sum;
    while out.len() < BODY {
        word = mix(word.wrapping_add(1));
        out.extend(format!("{word:016x}").into_bytes());
    }
    out.truncate(BODY);
    out
}

/// The id of a body, when it is exactly as sent.
pub fn id_of(bytes: &[u8]) -> Option<Id> {
    let head = bytes.get(..bytes.len().min(40))?;
    let mut parts = head.split(|b| *b == b':');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let id = (number()?, number()?);
    (bytes == body(id)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_body_has_no_id() {
        let good = body((7, 4711));
        assert_eq!(good.len(), BODY);
        assert_eq!(id_of(&good), Some((7, 4711)));
        for at in [0, 2, 10, 500, BODY - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(id_of(&bad), None, "{at}");
        }
        assert_eq!(id_of(&good[..BODY - 1]), None);
        assert_eq!(id_of(b""), None);
    }
}
