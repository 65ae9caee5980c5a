//! I16 of members: whoever asks a leader who is in a group is told exactly those that were heard by it and have
//! neither left nor been silent for too long.

use super::Checker;
use crate::consumers::seen::{GroupSeen, Time};
use crate::seen::Seen;
use std::collections::{BTreeMap, BTreeSet};
use troupemq::actors::group::members::MEMBER_TIMEOUT_MS;

/// See the module text.
#[derive(Default)]
pub struct GroupMembers {
    /// By connection: client, and when it was heard.
    heard: BTreeMap<(Time, usize), BTreeMap<u64, (String, i64)>>,
}

impl Checker for GroupMembers {
    fn id(&self) -> &'static str {
        "I16"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        let Seen::Group(seen) = seen else {
            return Ok(());
        };
        match seen {
            GroupSeen::Beat {
                time,
                group,
                client,
                conn,
                now_ms,
            } => {
                let heard = self.heard.entry((*time, *group)).or_default();
                heard.insert(*conn, (client.clone(), *now_ms));
            }
            GroupSeen::Gone { time, group, conn } => {
                let heard = self.heard.entry((*time, *group)).or_default();
                heard.remove(conn);
            }
            GroupSeen::Scan {
                time,
                group,
                now_ms,
            } => {
                let heard = self.heard.entry((*time, *group)).or_default();
                heard.retain(|_, (_, at)| now_ms - *at <= MEMBER_TIMEOUT_MS);
            }
            GroupSeen::List {
                time,
                group,
                clients,
            } => {
                let heard = self.heard.get(&(*time, *group));
                let heard = heard.into_iter().flat_map(BTreeMap::values);
                let right: BTreeSet<&String> = heard.map(|(client, _)| client).collect();
                if !clients.iter().eq(right.iter().copied()) {
                    return Err(format!(
                        "members of group {group} at {time:?} are {right:?}, and {clients:?} is told"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::judge;
    use super::*;

    #[test]
    fn members_too_many_or_too_few_are_seen() {
        let run = |history: &[Seen]| judge(&mut GroupMembers::default(), history, None);
        let time = (0, 1, 1);
        let beat = |client: &str, conn, now_ms| {
            Seen::Group(GroupSeen::Beat {
                time,
                group: 0,
                client: client.into(),
                conn,
                now_ms,
            })
        };
        let list = |time, clients: &[&str]| {
            let clients = clients.iter().map(|c| (*c).to_owned()).collect();
            Seen::Group(GroupSeen::List {
                time,
                group: 0,
                clients,
            })
        };
        let scan = |now_ms| {
            Seen::Group(GroupSeen::Scan {
                time,
                group: 0,
                now_ms,
            })
        };
        let gone = Seen::Group(GroupSeen::Gone {
            time,
            group: 0,
            conn: 1,
        });
        let both = [beat("a", 1, 0), beat("b", 2, 50_000)];
        let and = |more: &[Seen]| run(&[&both[..], more].concat());
        assert!(and(&[list(time, &["a", "b"])]).is_none());
        assert!(and(&[list(time, &["a"])]).is_some());
        assert!(and(&[gone.clone(), list(time, &["b"])]).is_none());
        assert!(and(&[gone, list(time, &["a", "b"])]).is_some());
        assert!(and(&[scan(120_000), list(time, &["a", "b"])]).is_none());
        assert!(and(&[scan(120_001), list(time, &["b"])]).is_none());
        assert!(and(&[scan(120_001), list(time, &["a", "b"])]).is_some());
        // Another time of serving begins with nobody.
        assert!(and(&[list((0, 1, 2), &[])]).is_none());
    }
}
