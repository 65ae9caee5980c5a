//! Entries whose stored copy cannot be read: another replica is asked for each, and what it gives is kept
//! beside the bad copy. Only committed entries travel, which are the same on every replica that has them.
//!
//! ```text
//! 128 u8 | kind u8 | index u64 | stored form of the entry, of kind "here it is"
//! ```
//!
//! The first byte is none of raft's versions: a node that does not know these messages counts them as
//! refused, and is asked again later.
//!
//! An entry is lost once every member has said that it has none either; a node that is away may have it, so
//! it is waited for. Who reads a lost entry goes on behind it.

use super::*;
use crate::storage::entry as stored;

/// The first byte of these messages.
const VERSION: u8 = 128;
const HEAD: usize = 10;
const ASK: u8 = 1;
const HERE: u8 = 2;
const NONE: u8 = 3;

/// Entries asked for at a time, and written: each may be as large as a message may be.
const MAX_ASKED: usize = 4;
/// Bad entries that are remembered; what is read beyond them is found again.
const MAX_BAD: usize = 100_000;

/// Where the search for a good copy stands.
#[derive(Debug, Default)]
struct Search {
    /// Members that have no good copy.
    without: BTreeSet<u64>,
    /// Member asked last, and the tick in which it was.
    asked: Option<(u64, u64)>,
    waits: bool,
    /// A good copy is on its way to the disk.
    writes: bool,
}

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Mend {
    searches: BTreeMap<u64, Search>,
    lost: BTreeSet<u64>,
}

impl Mend {
    fn open(&self) -> usize {
        let busy = |s: &&Search| s.waits || s.writes;
        self.searches.values().filter(busy).count()
    }

    /// The log begins at `first` now.
    pub fn trimmed(&mut self, first: u64) {
        self.searches = self.searches.split_off(&first);
        self.lost = self.lost.split_off(&first);
    }

    /// Another log took this one's place.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The message is one of these.
pub(super) fn is_ours(bytes: &Bytes) -> bool {
    bytes.first() == Some(&VERSION)
}

fn message(kind: u8, index: u64, entry: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEAD + entry.len());
    out.extend([VERSION, kind]);
    out.extend(index.to_be_bytes());
    out.extend(entry);
    out.into()
}

impl ShardCore {
    /// A message of another replica: about bad entries, or one of raft's.
    pub(super) fn message(&mut self, from: u64, bytes: &Bytes, out: &mut Vec<Effect>) {
        if is_ours(bytes) {
            if let Err(why) = self.hear_of_bad(from, bytes, out) {
                self.refused_messages = (self.refused_messages.0 + 1, Some(why));
            }
            return;
        }
        if let Err(why) = self.raft.step(from, bytes) {
            if let MessageError::OtherLog { index, .. } = why {
                return self.other_log(index, &why, out);
            }
            self.refused_messages = (self.refused_messages.0 + 1, Some(why));
        }
        self.drive(out);
    }

    /// Bad entries for which a good copy is sought, and those that nobody has.
    pub fn bad_entries(&self) -> (usize, usize) {
        (self.mend.searches.len(), self.mend.lost.len())
    }

    /// A read of the log found this entry bad.
    pub(super) fn bad_entry(&mut self, index: u64, out: &mut Vec<Effect>) {
        let mend = &mut self.mend;
        // Only what is committed is the same everywhere, and what is applied is committed.
        let known = mend.searches.contains_key(&index) || mend.lost.contains(&index);
        if known || index > self.machine.applied.0 || mend.searches.len() >= MAX_BAD {
            return;
        }
        mend.searches.insert(index, Search::default());
        out.push(Effect::Publish(Publish::BadEntry { index }));
        self.search(out);
    }

    /// Rows of the state cannot be read. Others have them: this replica ends, and is filled anew after its
    /// next start. Alone it goes on with what can be read.
    pub(super) fn bad_state(&mut self, why: String, out: &mut Vec<Effect>) {
        if !self.raft.members().is_alone(self.raft.id()) {
            out.push(Effect::Disk(DiskWork::Condemn(why.clone())));
            self.fail(format!("state rows cannot be read: {why}"), out);
        }
    }

    /// Asks for what nobody was asked for yet.
    fn search(&mut self, out: &mut Vec<Effect>) {
        let (me, leader) = (self.raft.id(), self.raft.leader());
        let mut others = self.raft.members().nodes();
        others.retain(|node| *node != me);
        others.sort_unstable();
        others.dedup();
        let mut room = MAX_ASKED.saturating_sub(self.mend.open());
        let mut lost = Vec::new();
        for (index, search) in &mut self.mend.searches {
            if search.waits || search.writes {
                continue;
            }
            let may = |node: &&u64| !search.without.contains(node);
            let after = search.asked.map(|(node, _)| node);
            let leads = || others.iter().filter(may).find(|n| **n == leader);
            let next = match after {
                None => leads().or_else(|| others.iter().find(may)),
                Some(last) => {
                    let later = others.iter().filter(may).find(|n| **n > last);
                    later.or_else(|| others.iter().find(may))
                }
            };
            match next {
                None => lost.push(*index),
                Some(_) if room == 0 => break,
                Some(node) => {
                    room -= 1;
                    search.waits = true;
                    search.asked = Some((*node, self.ticks));
                    let (to, bytes) = (*node, message(ASK, *index, &[]));
                    out.push(Effect::Send { to, bytes });
                }
            }
        }
        for index in lost {
            self.mend.searches.remove(&index);
            self.mend.lost.insert(index);
            out.push(Effect::Publish(Publish::LostEntry { index }));
        }
    }

    /// Who does not answer is asked again, after the others.
    pub(super) fn tick_mend(&mut self, out: &mut Vec<Effect>) {
        if self.mend.searches.is_empty() {
            return;
        }
        let (now, patience) = (self.ticks, self.raft.election_ticks() as u64);
        let gives_up = self.options.defect == Some(Defect::SilentHasNone); // (planted)
        for search in self.mend.searches.values_mut() {
            let late = |(_, at): (u64, u64)| now >= at + patience;
            if search.waits && search.asked.is_none_or(late) {
                search.waits = false;
                let silent = search.asked.filter(|_| gives_up);
                search.without.extend(silent.map(|(node, _)| node));
            }
        }
        self.search(out);
    }

    /// A message of another replica about a bad entry.
    pub(super) fn hear_of_bad(
        &mut self,
        from: u64,
        bytes: &Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), MessageError> {
        if !self.raft.members().nodes().contains(&from) {
            return Err(MessageError::Stranger(from));
        }
        let head = bytes.first_chunk::<HEAD>();
        let head = head.ok_or(MessageError::Malformed("too short"))?;
        let index = head[2..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        match head[1] {
            ASK if index <= self.machine.applied.0 => {
                out.push(Effect::Disk(DiskWork::Copy { to: from, index }));
            }
            // It may be here later.
            ASK => {}
            HERE => {
                let term = self.raft.term();
                let Some(search) = self.mend.searches.get_mut(&index) else {
                    return Ok(());
                };
                let entry = stored::decode(index, &bytes[HEAD..]);
                let entry = entry.map_err(|_| MessageError::Malformed("a copy is bad"))?;
                if entry.term == 0 || entry.term > term {
                    return Err(MessageError::Impossible("an entry of a later term"));
                }
                if search.waits && !search.writes {
                    (search.waits, search.writes) = (false, true);
                    out.push(Effect::Disk(DiskWork::Mend { entry }));
                }
            }
            NONE => {
                if let Some(search) = self.mend.searches.get_mut(&index) {
                    search.without.insert(from);
                    search.waits &= search.asked.is_some_and(|(node, _)| node != from);
                    self.search(out);
                }
            }
            _ => return Err(MessageError::Malformed("a kind that is not known here")),
        }
        Ok(())
    }

    /// The answer to a replica that asked for an entry.
    pub(super) fn copied(
        &mut self,
        to: u64,
        index: u64,
        entry: Option<&LogEntry>,
        out: &mut Vec<Effect>,
    ) {
        let mut copy = Vec::new();
        let found =
            entry.is_some_and(|e| stored::encode(e, self.raft.committed(), &mut copy).is_ok());
        let kind = if found { HERE } else { NONE };
        let bytes = message(kind, index, &copy);
        out.push(Effect::Send { to, bytes });
    }

    /// The good copy is on the disk.
    pub(super) fn mended(&mut self, index: u64, out: &mut Vec<Effect>) {
        if self.mend.searches.remove(&index).is_some() {
            out.push(Effect::Publish(Publish::Mended { index }));
            self.search(out);
        }
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
