//! Members of the shard: kept, and changed by an operator's word.

use super::*;

impl ShardCore {
    /// Keeps the members as they are now.
    pub(super) fn keep_members(&self, out: &mut Vec<Effect>) {
        let batch = StateBatch {
            ops: vec![self.machine.members_row()],
        };
        out.push(Effect::Disk(DiskWork::Stage { batch }));
    }

    /// Proposes a change of the members; whoever asked is answered once it is applied.
    pub(super) fn change_members(&mut self, id: u64, changes: &[Change], out: &mut Vec<Effect>) {
        let early = self.options.defect == Some(Defect::MembersWhenProposed); // (planted)
        let result = match self.raft.propose_members(changes) {
            Ok(index) if early => Ok(index),
            Ok(index) => {
                self.in_flight.push_back(InFlight {
                    index,
                    term: self.raft.term(),
                    epoch: self.epoch,
                    blocks: vec![],
                    schedules: vec![],
                    proposals: vec![id],
                    early_done: true,
                    since: self.ticks,
                    late: true,
                });
                return self.drive(out);
            }
            Err(MemberError::NotLeader) => Err(Refusal::NotLeader),
            Err(MemberError::Pending) => Err(Refusal::Busy),
            Err(why) => Err(Refusal::Invalid(why.to_string())),
        };
        out.push(Effect::Proposal { id, result });
    }
}
