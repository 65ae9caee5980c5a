//! Entries whose durability class takes longer than clients are to wait: they are told which part
//! is missing, as RocketMQ's status codes 10, 11 and 12 do, and the entry goes on.

use super::*;

impl ShardCore {
    /// Called once a tick.
    pub(super) fn tell_late(&mut self, out: &mut Vec<Effect>) {
        let Patience { flush, replicas } = self.options.patience;
        let over = |since: u64, limit: u64| limit > 0 && self.ticks - since >= limit;
        let written = self.raft.persisted_index();
        let mut alone = None;
        for flight in &mut self.in_flight {
            let why = if flight.index > written {
                over(flight.since, flush).then_some(Late::Flush)
            } else if over(flight.since, replicas) {
                let alone = *alone.get_or_insert_with(|| {
                    let me = self.raft.id();
                    let progress = self.raft.progress();
                    !progress.iter().any(|p| p.voter && p.active && p.node != me)
                });
                Some(if alone {
                    Late::NoReplica
                } else {
                    Late::Replica
                })
            } else {
                None
            };
            let Some(why) = why else {
                continue;
            };
            if std::mem::replace(&mut flight.late, true) {
                continue;
            }
            for block in &flight.blocks {
                let late = QueueInput::Late {
                    why,
                    base: block.base,
                    count: block.tags.len() as u32,
                    first: block.first,
                };
                out.push(Effect::ToQueue(block.key, late));
            }
            for (token, position, _) in &mut flight.schedules {
                if token.is_some() {
                    let (base_offset, position) = (0, *position);
                    let late = Outcome::Late {
                        why,
                        base_offset,
                        position,
                    };
                    out.push(Effect::Answer(*token, late));
                    *token = Token::NONE;
                }
            }
        }
    }
}
