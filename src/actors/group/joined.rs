//! Which consumer groups connections belong to, and how much of subscriptions each brought. Pure.

use super::types::{GroupLimits, Subscription};
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Memory of a subscription besides its texts.
const OVERHEAD: usize = 256;

/// About so much memory a subscription takes, bytes.
pub fn bytes_of(subscription: &Subscription) -> usize {
    let tags: usize = subscription.tags.iter().map(|tag| tag.len() + 24).sum();
    let texts = subscription.topic.len() + subscription.sub_string.len();
    OVERHEAD + texts + subscription.expression_type.len() + tags + subscription.codes.len() * 4
}

#[derive(Debug)]
struct Place {
    group: Arc<str>,
    /// Of the subscriptions told last.
    bytes: usize,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Joined {
    by_conn: FxHashMap<ConnId, Vec<Place>>,
    bytes: usize,
}

impl Joined {
    /// Whether a connection that joins `ahead` other groups first may join this one.
    pub fn may_join(
        &self,
        group: &str,
        conn: ConnId,
        ahead: usize,
        limits: &GroupLimits,
    ) -> Result<(), Refusal> {
        let groups = self.by_conn.get(&conn).map_or(&[][..], |groups| groups);
        let known = groups.iter().any(|place| &*place.group == group);
        if !known && groups.len() + ahead >= limits.groups_per_connection {
            let text = format!(
                "more than {} consumer groups on one connection",
                limits.groups_per_connection
            );
            return Err(Refusal::Invalid(text));
        }
        Ok(())
    }

    /// A connection is heard of as a member. `bytes`: of its subscriptions, when it told them.
    pub fn join(
        &mut self,
        group: &str,
        conn: ConnId,
        bytes: Option<usize>,
        limits: &GroupLimits,
    ) -> Result<(), Refusal> {
        self.may_join(group, conn, 0, limits)?;
        let groups = self.by_conn.get(&conn).map_or(&[][..], |groups| groups);
        let of_conn: usize = groups.iter().map(|place| place.bytes).sum();
        let place = groups.iter().find(|place| &*place.group == group);
        let before = place.map_or(0, |place| place.bytes);
        let bytes = bytes.unwrap_or(before);
        if of_conn - before + bytes > limits.subscription_bytes_per_connection {
            let text = format!(
                "more than {} bytes of subscriptions on one connection",
                limits.subscription_bytes_per_connection
            );
            return Err(Refusal::Invalid(text));
        }
        // Who brings no more than before is never turned away.
        if bytes > before && self.bytes - before + bytes > limits.subscription_bytes {
            return Err(Refusal::Busy);
        }
        self.bytes = self.bytes - before + bytes;
        let groups = self.by_conn.entry(conn).or_default();
        match groups.iter_mut().find(|place| &*place.group == group) {
            Some(place) => place.bytes = bytes,
            None => groups.push(Place {
                group: group.into(),
                bytes,
            }),
        }
        Ok(())
    }

    /// Connections left a group.
    pub fn leave(&mut self, group: &str, gone: &[ConnId]) {
        for conn in gone {
            let Some(groups) = self.by_conn.get_mut(conn) else {
                continue;
            };
            if let Some(at) = groups.iter().position(|place| &*place.group == group) {
                self.bytes -= groups.swap_remove(at).bytes;
            }
            if groups.is_empty() {
                self.by_conn.remove(conn);
            }
        }
    }

    /// Takes out the groups of a closed connection.
    pub fn take(&mut self, conn: ConnId) -> Vec<Arc<str>> {
        let groups = self.by_conn.remove(&conn).unwrap_or_default();
        self.bytes -= groups.iter().map(|place| place.bytes).sum::<usize>();
        groups.into_iter().map(|place| place.group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    #[test]
    fn groups_and_bytes_are_bounded_and_come_back() {
        let limits = GroupLimits {
            groups_per_connection: 2,
            subscription_bytes_per_connection: 100,
            subscription_bytes: 150,
            ..GroupLimits::default()
        };
        let mut joined = Joined::default();
        assert_eq!(joined.join("g", A, Some(60), &limits), Ok(()));
        assert_eq!(joined.join("g", A, Some(40), &limits), Ok(()));
        let invalid = |result| matches!(result, Err(Refusal::Invalid(_)));
        assert!(invalid(joined.join("h", A, Some(61), &limits)));
        assert_eq!(joined.may_join("h", A, 0, &limits), Ok(()));
        assert!(invalid(joined.may_join("h", A, 1, &limits)));
        assert_eq!(joined.may_join("g", A, 9, &limits), Ok(()));
        assert_eq!(joined.join("h", A, Some(60), &limits), Ok(()));
        assert!(invalid(joined.join("i", A, None, &limits)));
        // A short heartbeat changes nothing.
        assert_eq!(joined.join("h", A, None, &limits), Ok(()));
        assert_eq!(joined.bytes, 100);
        assert_eq!(joined.join("g", B, Some(51), &limits), Err(Refusal::Busy));
        assert_eq!(joined.join("g", B, Some(50), &limits), Ok(()));
        assert!(joined.join("h", A, Some(61), &limits).is_err());
        assert_eq!(joined.join("h", A, Some(60), &limits), Ok(()), "as before");
        joined.leave("h", &[A, B]);
        assert_eq!(joined.bytes, 90);
        assert_eq!(joined.take(A), ["g".into()] as [Arc<str>; 1]);
        assert!(joined.take(A).is_empty());
        joined.leave("g", &[B]);
        assert!(joined.bytes == 0 && joined.by_conn.is_empty());
    }
}
