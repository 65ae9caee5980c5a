//! Changes of metadata, offsets, locks and members: what clients ask for, and what the log says.

use crate::clients::Waiting;
use crate::schedule::Mail;
use crate::seen::Seen;
use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;
use troupemq::model::command::{MetaOp, QueueOffset};
use troupemq::raft::entry::{decode, Command};
use troupemq::raft::members::{changes_of, Change, Members};
use troupemq::storage::{LogEntry, LogStore};

/// No topic has this id: the state machine passes over it.
const NO_TOPIC: u32 = u32::MAX;

impl Sim {
    /// A client asks the node here for a change.
    pub fn command(&mut self, op: MetaOp, what: &'static str) {
        let id = self.ask_change(what);
        let op = marked(op, id);
        let change = text_of(&op);
        self.see(Seen::Asked { id, change });
        let epoch = self.node.as_ref().map_or(0, |n| n.shard.epoch());
        let input = ShardInput::Propose { id, epoch, op };
        match self.plan.queue_stalls {
            0 => self.post_shard(input),
            _ => {
                self.clients.decided.insert(id, epoch);
                self.post(Mail::Decided(input));
            }
        }
    }

    /// A group's core asks for a change, under this number; what is to be proposed.
    pub(crate) fn asked_for(&mut self, id: u64, op: MetaOp) -> MetaOp {
        // Who holds a lock is read back, so nothing is added to that.
        let op = match op {
            MetaOp::Locks(_) => op,
            op => marked(op, id),
        };
        let change = text_of(&op);
        self.see(Seen::Asked { id, change });
        op
    }

    /// An operator asks the node here for other members.
    pub fn command_members(&mut self, changes: Vec<Change>) {
        let id = self.ask_change("members");
        let change = text_of_members(&changes);
        self.see(Seen::Asked { id, change });
        self.post_shard(ShardInput::Members { id, changes });
    }

    fn ask_change(&mut self, what: &'static str) -> u64 {
        let here = self.here();
        let token = self.clients.slot(here, Waiting::Command { what });
        self.timeout(token);
        token.slot
    }

    /// An entry is committed, and these were the members before it.
    pub(crate) fn see_changes(&mut self, entry: &LogEntry, before: Option<&Members>) {
        let index = entry.index;
        match changes_in(entry) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                if gives_vote_back(entry, before) {
                    // The leader asks for that by itself.
                    let change = changes[0].clone();
                    self.see(Seen::Asked { id: 0, change });
                }
                self.see(Seen::Changes { index, changes });
            }
            Err(what) => self.fail("I2", what),
        }
    }

    /// A node alone has applied the log up to this entry.
    pub(crate) fn see_changes_to(&mut self, applied: u64) {
        let first = self.store.bounds(crate::SHARD).map_or(1, |b| b.first);
        let from = (self.entries_shown + 1).max(first);
        let entries = self
            .store
            .read(crate::SHARD, from, applied + 1, u64::MAX)
            .unwrap_or_default();
        for entry in &entries {
            self.see_changes(entry, None);
        }
        self.entries_shown = self.entries_shown.max(applied);
    }
}

/// The request as nobody else asks for it, where that can be.
fn marked(mut op: MetaOp, id: u64) -> MetaOp {
    let mark = ("asked".to_owned(), id.to_string());
    match &mut op {
        MetaOp::PutTopic(topic) | MetaOp::EnsureTopic(topic) => {
            topic.attributes.extend([mark]);
        }
        MetaOp::PutGroup(group) | MetaOp::EnsureGroup(group) => {
            group.attributes.extend([mark]);
        }
        MetaOp::CommitOffsets(commit) => commit.offsets.push(QueueOffset {
            topic: NO_TOPIC,
            queue: id as u32,
            offset: 0,
        }),
        MetaOp::Locks(change) => {
            for lock in change.queues.iter_mut().filter(|l| !l.client.is_empty()) {
                lock.client = format!("{}-{id}", lock.client);
            }
        }
        MetaOp::DeleteTopic(_) | MetaOp::DeleteGroup(_) | MetaOp::Trim(_) => {}
    }
    op
}

/// What was asked for, as text: the same for the request and the entry.
fn text_of(op: &MetaOp) -> String {
    let mut op = op.clone();
    if let MetaOp::Locks(change) = &mut op {
        // The leader's stamp.
        change.at_ms = 0;
    }
    format!("{op:?}")
}

fn text_of_members(changes: &[Change]) -> String {
    format!("members {changes:?}")
}

/// A member that came with a new store gets its vote back, as the leader or somebody else asked.
fn gives_vote_back(entry: &LogEntry, before: Option<&Members>) -> bool {
    match changes_of(entry) {
        Ok((changes, _)) if entry.kind != 0 => match changes[..] {
            [Change::AddVoter(node)] => before.is_some_and(|m| m.returning.contains(&node)),
            _ => false,
        },
        _ => false,
    }
}

/// Names of topics that an entry only asks to be there.
pub(crate) fn ensured(entry: &LogEntry) -> Vec<String> {
    let decoded = match entry.kind {
        0 if !entry.data.is_empty() => decode(entry.index, &entry.data).ok(),
        _ => None,
    };
    let commands = decoded.into_iter().flat_map(|decoded| decoded.commands);
    let (mut ensured, mut others) = (Vec::new(), Vec::new());
    for command in commands {
        let Command::Meta(command) = command else {
            continue;
        };
        match command.op {
            Some(MetaOp::EnsureTopic(topic)) => ensured.push(topic.name),
            Some(MetaOp::PutTopic(topic)) => others.push(topic.name),
            Some(MetaOp::DeleteTopic(name)) => others.push(name),
            _ => {}
        }
    }
    ensured.retain(|name| !others.contains(name));
    ensured
}

/// The changes that somebody asked for.
fn changes_in(entry: &LogEntry) -> Result<Vec<String>, String> {
    if entry.kind != 0 {
        let (changes, admits) = changes_of(entry)?;
        return Ok(match changes.is_empty() || admits {
            true => Vec::new(),
            false => vec![text_of_members(&changes)],
        });
    }
    if entry.data.is_empty() {
        return Ok(Vec::new());
    }
    let decoded = decode(entry.index, &entry.data).map_err(|e| e.to_string())?;
    let ops = decoded.commands.into_iter().filter_map(|c| match c {
        Command::Meta(command) => command.op,
        _ => None,
    });
    let asked = ops.filter(|op| !matches!(op, MetaOp::Trim(_)));
    Ok(asked.map(|op| text_of(&op)).collect())
}
