//! What a shard's shell is sent, and its answers to questions.

use super::actor::ShardActor;
use super::core::ShardInput;
use super::handle::{GroupState, ProposalResult, ReplicaView};
use crate::actors::abort::AbortOnPanic;
use crate::actors::effect::Effect;
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::GroupId;
use crate::raft::members::Change;
use crate::storage::Done;
use actix::prelude::*;
use tokio::sync::oneshot;

/// An event for the shard's core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ShardMail(pub ShardInput);

/// What the timer core asks for.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromTimer(pub Vec<Effect>);

/// The writer finished something.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DiskDone(pub Done);

/// A metadata command and who waits for it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ProposeMail {
    pub op: MetaOp,
    /// See [`ShardStatus::epoch`](super::status::ShardStatus::epoch).
    pub epoch: u64,
    pub done: Box<dyn FnOnce(ProposalResult) + Send>,
}

/// Asks for a group's offsets and locks.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GroupStateMail {
    pub group: GroupId,
    pub done: oneshot::Sender<Result<GroupState, Refusal>>,
}

/// Asks how far the replicas are.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReplicasMail {
    pub done: oneshot::Sender<ReplicaView>,
}

/// A change of members and who waits for it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MembersMail {
    pub changes: Vec<Change>,
    pub done: oneshot::Sender<ProposalResult>,
}

impl Handler<MembersMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, mail: MembersMail, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        let id = self.next_proposal;
        self.next_proposal += 1;
        let done = mail.done;
        let tell = move |result| {
            let _ = done.send(result);
        };
        self.waiting.insert(id, Box::new(tell));
        let changes = mail.changes;
        self.input(ShardInput::Members { id, changes }, ctx);
    }
}

impl Handler<GroupStateMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, mail: GroupStateMail, _: &mut Self::Context) {
        let machine = self.core.machine();
        let state = GroupState {
            offsets: machine.offsets_of(mail.group.0),
            locks: machine.locks_of(mail.group.0),
        };
        let answer = match self.core.serving() {
            Some(_) => Ok(state),
            None => Err(Refusal::NotLeader),
        };
        let _ = mail.done.send(answer);
    }
}

impl Handler<ReplicasMail> for ShardActor {
    type Result = ();
    fn handle(&mut self, mail: ReplicasMail, _: &mut Self::Context) {
        let raft = self.core.raft();
        let members = raft.members();
        let mut others = raft.progress();
        for other in &mut others {
            other.behind = raft.bytes_behind(other.matched);
        }
        let _ = mail.done.send(ReplicaView {
            term: raft.term(),
            leader: raft.leader(),
            last: raft.next_index() - 1,
            committed: raft.committed(),
            applied: self.core.machine().applied.0,
            voters: members.voters.to_vec(),
            learners: members.learners.to_vec(),
            others,
        });
    }
}
