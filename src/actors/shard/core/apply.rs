//! From a committed entry to rows, visible records and answers.

use super::*;

impl ShardCore {
    pub(super) fn apply(&mut self, entry: LogEntry, out: &mut Vec<Effect>) -> bool {
        let applied = match self.machine.apply(&entry) {
            Ok(applied) => applied,
            Err(error) => {
                self.fail(error.to_string(), out);
                return false;
            }
        };
        if entry.kind != 0 {
            if let Err(why) = self.raft.apply_members(&entry) {
                self.fail(why, out);
                return false;
            }
        }
        self.raft.applied(entry.index);
        let mut dropped = BTreeSet::new();
        let appended: usize = applied.events.iter().map(appended_bytes).sum();
        // Slices keep their entry in memory: worth it only when they are most of it.
        let copy = appended < entry.data.len() / 2;
        let mut commands = None;
        for event in applied.events {
            // A message stored before its topic went is answered before the topic goes.
            if commands.is_none() && matches!(event, Event::TopicDeleted { .. }) {
                commands = Some(self.settle(&entry, &dropped, out));
            }
            self.publish(event, &entry, applied.at_ms, copy, &mut dropped, out);
        }
        // (planted)
        let ahead = u64::from(self.options.defect == Some(Defect::AppliedAhead));
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let batch = StateBatch { ops: applied.rows };
        out.push(Effect::Disk(DiskWork::State {
            ticket,
            batch,
            applied: entry.index + ahead,
        }));
        let commands = match commands {
            Some(commands) => commands,
            None => self.settle(&entry, &dropped, out),
        };
        for id in commands {
            let result = Ok(entry.index);
            out.push(Effect::Proposal { id, result });
        }
        true
    }

    pub(super) fn publish(
        &mut self,
        event: Event,
        entry: &LogEntry,
        at_ms: i64,
        copy: bool,
        dropped: &mut BTreeSet<(QueueKey, u64)>,
        out: &mut Vec<Effect>,
    ) {
        let publish = match event {
            Event::Appended(block) => {
                let (block, data) = match copy {
                    true => detached(block, &entry.data),
                    false => (block, entry.data.clone()),
                };
                Publish::Appended {
                    index: entry.index,
                    at_ms,
                    block,
                    data,
                }
            }
            Event::AppendDropped(block) => {
                dropped.insert((block.key, block.base));
                return;
            }
            Event::TimerAdded { timer, target } => {
                return out.push(Effect::ToTimer(TimerInput::Added { timer, target }));
            }
            Event::TimerFired(timer) => {
                return out.push(Effect::ToTimer(TimerInput::Fired(timer)));
            }
            Event::Topic(topic) => Publish::Topic(topic),
            Event::TopicDeleted { name, id } => Publish::TopicDeleted { name, id },
            Event::Group(group) => Publish::Group(group),
            Event::GroupDeleted { name, id } => Publish::GroupDeleted { name, id },
            Event::Offsets {
                group,
                offsets,
                reset,
            } => Publish::Offsets {
                group: GroupId(group),
                offsets,
                reset,
            },
            Event::Locks {
                group,
                queues,
                at_ms,
            } => Publish::Locks {
                group: GroupId(group),
                queues,
                at_ms,
            },
            Event::Trimmed {
                queues,
                first,
                term,
            } => {
                self.trimming = false;
                for (key, min) in queues {
                    out.push(Effect::Publish(Publish::Trimmed { key, min }));
                }
                self.raft.trimmed(first, term);
                return out.push(Effect::Disk(DiskWork::Trim { first, term }));
            }
        };
        out.push(Effect::Publish(publish));
    }

    /// Answers what waited for an applied entry, and drops what another leader's entry replaced.
    /// Returns the entry's own proposals: they are answered once all it changed is published.
    pub(super) fn settle(
        &mut self,
        entry: &LogEntry,
        dropped: &BTreeSet<(QueueKey, u64)>,
        out: &mut Vec<Effect>,
    ) -> Vec<u64> {
        let mut commands = Vec::new();
        while let Some(flight) = self.in_flight.front() {
            if flight.index > entry.index {
                break;
            }
            let Some(mut flight) = self.in_flight.pop_front() else {
                break;
            };
            let by_index = self.options.defect == Some(Defect::ReplyByIndex); // (planted)
            if flight.index != entry.index || (flight.term != entry.term && !by_index) {
                self.abandon(flight, Refusal::Indeterminate, out);
                continue;
            }
            for block in flight
                .blocks
                .iter()
                .filter(|b| dropped.contains(&(b.key, b.base)))
            {
                let (epoch, why) = (flight.epoch, Refusal::NotFound("topic"));
                out.push(Effect::ToQueue(
                    block.key,
                    QueueInput::Abandoned { epoch, why },
                ));
            }
            flight
                .blocks
                .retain(|b| !dropped.contains(&(b.key, b.base)));
            Self::answer(&flight, Stage::Committed, out);
            commands.append(&mut flight.proposals);
        }
        commands
    }
}

/// Bytes of records an event makes visible.
fn appended_bytes(event: &Event) -> usize {
    match event {
        Event::Appended(block) => block.records_len as usize,
        _ => 0,
    }
}

/// The block with a copy of its own records.
fn detached(mut block: AppendBlock, data: &Bytes) -> (AppendBlock, Bytes) {
    let from = block.records_at as usize;
    let own = Bytes::copy_from_slice(&data[from..from + block.records_len as usize]);
    block.records_at = 0;
    (block, own)
}
