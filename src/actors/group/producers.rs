//! Producer groups of one node: who is connected. Pure.

use super::members::MEMBER_TIMEOUT_MS;
use super::types::{Connection, GroupLimits};
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use std::collections::BTreeMap;

/// See the module text.
#[derive(Debug, Default)]
pub struct Producers {
    groups: BTreeMap<String, BTreeMap<ConnId, Connection>>,
    by_conn: BTreeMap<ConnId, Vec<String>>,
    last_scan_ms: i64,
}

impl Producers {
    /// A heartbeat; also drops silent producers now and then.
    pub fn heartbeat(
        &mut self,
        group: &str,
        mut connection: Connection,
        limits: &GroupLimits,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if now_ms.saturating_sub(self.last_scan_ms) >= super::core::SCAN_MS {
            self.expire(now_ms);
        }
        if connection.client_id.len() > limits.client_id_bytes {
            return Err(Refusal::Invalid(format!(
                "the client id has more than {} bytes",
                limits.client_id_bytes
            )));
        }
        let conn = connection.conn;
        let known = self.groups.get(group);
        if !known.is_some_and(|g| g.contains_key(&conn)) {
            if known.map_or(0, BTreeMap::len) >= limits.members {
                let text = format!(
                    "the group has {} members, no more are possible",
                    limits.members
                );
                return Err(Refusal::Invalid(text));
            }
            if known.is_none() && self.groups.len() >= limits.groups {
                return Err(Refusal::Busy);
            }
            let of_conn = self.by_conn.entry(conn).or_default();
            if of_conn.len() >= limits.groups_per_connection {
                let text = format!(
                    "more than {} producer groups on one connection",
                    limits.groups_per_connection
                );
                return Err(Refusal::Invalid(text));
            }
            of_conn.push(group.to_owned());
        }
        connection.last_update_ms = now_ms;
        self.groups
            .entry(group.to_owned())
            .or_default()
            .insert(conn, connection);
        Ok(())
    }

    /// One group's producer leaves.
    pub fn unregister(&mut self, group: &str, conn: ConnId) {
        self.drop_member(group, conn);
        if let Some(groups) = self.by_conn.get_mut(&conn) {
            groups.retain(|g| g != group);
            if groups.is_empty() {
                self.by_conn.remove(&conn);
            }
        }
    }

    /// All producers of a connection leave.
    pub fn conn_closed(&mut self, conn: ConnId) {
        for group in self.by_conn.remove(&conn).unwrap_or_default() {
            self.drop_member(&group, conn);
        }
    }

    fn drop_member(&mut self, group: &str, conn: ConnId) {
        if let Some(members) = self.groups.get_mut(group) {
            members.remove(&conn);
            if members.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Drops producers without a heartbeat for 120 s.
    pub fn expire(&mut self, now_ms: i64) {
        self.last_scan_ms = now_ms;
        let gone: Vec<(String, ConnId)> = self
            .groups
            .iter()
            .flat_map(|(group, members)| members.values().map(move |c| (group, c)))
            .filter(|(_, c)| now_ms.saturating_sub(c.last_update_ms) > MEMBER_TIMEOUT_MS)
            .map(|(group, c)| (group.clone(), c.conn))
            .collect();
        for (group, conn) in gone {
            self.unregister(&group, conn);
        }
    }

    /// Connections of one group.
    pub fn connections(&self, group: &str) -> Vec<Connection> {
        self.groups
            .get(group)
            .map(|g| g.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Everybody, by group.
    pub fn all(&self) -> BTreeMap<String, Vec<Connection>> {
        self.groups
            .iter()
            .map(|(name, g)| (name.clone(), g.values().cloned().collect()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(conn: u64) -> Connection {
        Connection {
            conn: ConnId(conn),
            client_id: format!("c{conn}"),
            client_addr: "127.0.0.1:1".into(),
            language: "JAVA".into(),
            version: 1,
            last_update_ms: 0,
        }
    }

    #[test]
    fn register_leave_close_expire() {
        let limits = GroupLimits::default();
        let mut table = Producers::default();
        for conn in 1..=3 {
            table
                .heartbeat("A", producer(conn), &limits, 1_000)
                .expect("registered");
        }
        table
            .heartbeat("B", producer(1), &limits, 1_000)
            .expect("registered");
        assert_eq!(table.connections("A").len(), 3);
        table.unregister("A", ConnId(2));
        assert_eq!(table.connections("A").len(), 2);
        table.conn_closed(ConnId(1));
        assert_eq!(table.all().keys().collect::<Vec<_>>(), ["A"]);
        table.expire(121_000);
        assert_eq!(table.connections("A").len(), 1);
        table.expire(121_001);
        assert!(table.all().is_empty() && table.by_conn.is_empty());
    }

    #[test]
    fn limits_hold() {
        let limits = GroupLimits {
            members: 2,
            groups_per_connection: 2,
            groups: 3,
            ..Default::default()
        };
        let mut table = Producers::default();
        for conn in [1, 2, 1] {
            table
                .heartbeat("A", producer(conn), &limits, 0)
                .expect("within limits");
        }
        assert!(matches!(
            table.heartbeat("A", producer(3), &limits, 0),
            Err(Refusal::Invalid(_))
        ));
        table
            .heartbeat("B", producer(1), &limits, 0)
            .expect("within limits");
        assert!(matches!(
            table.heartbeat("C", producer(1), &limits, 0),
            Err(Refusal::Invalid(_))
        ));
        table
            .heartbeat("C", producer(4), &limits, 0)
            .expect("within limits");
        assert_eq!(
            table.heartbeat("D", producer(5), &limits, 0),
            Err(Refusal::Busy)
        );
    }
}
