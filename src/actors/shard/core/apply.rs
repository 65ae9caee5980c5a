//! From a committed entry to rows, visible records and answers.

use super::*;
use crate::actors::effect::Truncated;
use crate::raft::entry::Command;

impl ShardCore {
    pub(super) fn apply(&mut self, entry: LogEntry, out: &mut Vec<Effect>) -> bool {
        let filling = self.machine.is_filling();
        let applied = match self.machine.apply(&entry) {
            Ok(applied) => applied,
            Err(error) => {
                self.fail(error.to_string(), out);
                return false;
            }
        };
        // A snapshot's members are newer.
        let anyway = self.options.defect == Some(Defect::MembersWhileFilling); // (planted)
        if entry.kind != 0 && (!filling || anyway) {
            self.base.not_before(entry.index);
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
            self.under_way.applied(&event);
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
        // A crash in between must find the rows that tell where queues begin now.
        if let Some((first, term)) = self.trim_to.take() {
            out.push(Effect::Disk(DiskWork::Trim { first, term }));
        }
        if filling && !self.machine.is_filling() {
            self.filled = Some(FilledAt {
                index: entry.index,
                queues: self.queue_bounds(),
            });
        }
        let commands = match commands {
            Some(commands) => commands,
            None => self.settle(&entry, &dropped, out),
        };
        for id in commands {
            let result = Ok(entry.index);
            out.push(Effect::Proposal { id, result });
        }
        self.digest(entry.index, out);
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
            Event::Trimmed { queues, cut } => {
                self.trimming = false;
                for (key, min) in queues {
                    let publish = Publish::Trimmed { key, min };
                    match self.filled {
                        Some(_) => self.later.push(publish),
                        None => out.push(Effect::Publish(publish)),
                    }
                }
                if let Some((first, term)) = cut {
                    self.raft.trimmed(first, term);
                    self.mend.trimmed(first);
                    self.trim_to = Some((first, term));
                    self.base.not_before(entry.index);
                }
                return;
            }
        };
        match self.filled {
            Some(_) => self.later.push(publish),
            None => out.push(Effect::Publish(publish)),
        }
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
            Self::answer(&mut flight, Stage::Committed, out);
            commands.append(&mut flight.proposals);
        }
        commands
    }
}

impl ShardCore {
    /// Begins anew with a leader's snapshot. Returns false when that is not possible.
    pub(super) fn install(
        &mut self,
        snapshot: Snapshot,
        mut hard_state: HardState,
        out: &mut Vec<Effect>,
    ) -> bool {
        let (index, term) = (snapshot.index, snapshot.term);
        let ops = match self.machine.from_base((index, term), &snapshot.base) {
            Ok((machine, ops)) => {
                self.machine = machine;
                ops
            }
            Err(why) => return self.fail(format!("snapshot at {index}: {why}"), out),
        };
        // The log ends there for now.
        hard_state.commit = index;
        self.mend.clear();
        out.push(Effect::Disk(DiskWork::Install {
            first: index + 1,
            term,
            hard_state,
            ops,
        }));
        out.push(Effect::Publish(Publish::Installed));
        self.digests.forget_own();
        self.filled = None;
        self.later.clear();
        if !self.machine.is_filling() {
            out.push(Effect::Publish(Publish::Filled(self.queue_bounds())));
        }
        true
    }

    fn queue_bounds(&self) -> Vec<(QueueKey, u64, u64)> {
        let queues = self.machine.queues();
        queues.map(|(key, m)| (key, m.min, m.next)).collect()
    }

    /// State rows up to `stored` can be read.
    pub(super) fn tell_filled(&mut self, stored: u64, out: &mut Vec<Effect>) {
        if let Some(filled) = self.filled.take_if(|filled| filled.index <= stored) {
            out.push(Effect::Publish(Publish::Filled(filled.queues)));
            out.extend(self.later.drain(..).map(Effect::Publish));
        }
    }

    /// Tells what was answered for and is lost to another leader.
    pub(super) fn tell_replaced(&self, replaced: &[LogEntry], out: &mut Vec<Effect>) {
        let mut lost = Truncated::default();
        let mut queues: BTreeMap<QueueKey, (u64, u64)> = BTreeMap::new();
        for e in replaced
            .iter()
            .filter(|e| entry::was_early(e.kind, &e.data))
        {
            if lost.entries == 0 {
                lost.first = e.index;
            }
            lost.last = e.index;
            lost.entries += 1;
            let commands = entry::decode(e.index, &e.data).map_or(vec![], |e| e.commands);
            for command in commands {
                match command {
                    Command::Append(block) => {
                        let count = block.metas.len() as u64;
                        let (from, to) = (block.base, block.base + count.saturating_sub(1));
                        let known = queues.entry(block.key).or_insert((from, to));
                        *known = (known.0.min(from), known.1.max(to));
                        lost.messages += count;
                    }
                    Command::Schedule { .. } => lost.messages += 1,
                    _ => {}
                }
            }
        }
        if lost.entries > 0 && self.options.defect != Some(Defect::LossUntold) {
            let ranges = queues.into_iter().map(|(key, (from, to))| (key, from, to));
            lost.queues = ranges.collect();
            out.push(Effect::Publish(Publish::AckedTruncated(lost)));
        }
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
