//! Group actors behind their handle, over a shard that is a table.

use super::directory::{Done, GroupStore, StateFuture};
use super::handle::Groups;
use super::members_tests::beat;
use super::types::*;
use crate::actors::link::{ClientLink, ConnId, Notice};
use crate::actors::shard::handle::{GroupState, QueueBounds};
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::{GroupId, QueueKey, TopicId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const BOUNDS: QueueBounds = QueueBounds { min: 0, max: 100 };

fn queue(n: u32) -> QueueKey {
    QueueKey::new(TopicId(1), n)
}

/// Applies every command at once.
#[derive(Default)]
struct Table {
    groups: Mutex<BTreeMap<String, u32>>,
    offsets: Mutex<BTreeMap<(u32, u32), u64>>,
    commands: AtomicU64,
}

impl GroupStore for Table {
    fn group_id(&self, name: &str) -> Option<GroupId> {
        self.groups.lock().get(name).map(|id| GroupId(*id))
    }
    fn notices_enabled(&self, name: &str) -> bool {
        name != "quiet"
    }
    fn epoch(&self) -> u64 {
        1
    }
    fn propose(&self, _: u64, op: MetaOp, done: Done) {
        let index = self.commands.fetch_add(1, Ordering::SeqCst) + 1;
        if let MetaOp::CommitOffsets(c) = op {
            for o in c.offsets {
                self.offsets.lock().insert((o.topic, o.queue), o.offset);
            }
        }
        done(Ok(index));
    }
    fn load(&self, _: GroupId) -> StateFuture {
        let offsets = self.offsets.lock().iter().map(|(k, o)| (*k, *o)).collect();
        Box::pin(async move {
            Ok(GroupState {
                offsets,
                locks: vec![],
            })
        })
    }
}

#[derive(Default)]
struct Link {
    heard: Mutex<Vec<(ConnId, Notice)>>,
    rechecked: Mutex<Vec<String>>,
}

impl ClientLink for Link {
    fn notify(&self, conn: ConnId, notice: &Notice) {
        self.heard.lock().push((conn, notice.clone()));
    }

    fn recheck_pulls(&self, group: &str) {
        self.rechecked.lock().push(group.to_owned());
    }
}

struct Bench {
    groups: Groups,
    table: Arc<Table>,
    link: Arc<Link>,
    now: Arc<AtomicI64>,
}

fn bench(limits: GroupLimits) -> Bench {
    let table = Arc::new(Table::default());
    table.groups.lock().insert("G".into(), 1);
    let link = Arc::new(Link::default());
    let now = Arc::new(AtomicI64::new(0));
    let clock = now.clone();
    let groups = Groups::with_store(
        table.clone(),
        actix_rt::Arbiter::current(),
        link.clone(),
        limits,
        Arc::new(move || clock.load(Ordering::SeqCst)),
        Duration::from_millis(5),
    );
    Bench {
        groups,
        table,
        link,
        now,
    }
}

async fn until(mut reached: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if reached() {
            return;
        }
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not reached within 10 s");
}

#[test]
fn members_are_visible_when_answered_and_leave_with_their_connection() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        b.groups
            .heartbeat("G", beat(1, "a", &["T"]))
            .await
            .expect("ok");
        b.groups
            .heartbeat("G", beat(2, "b", &["T"]))
            .await
            .expect("ok");
        b.groups
            .heartbeat("quiet", beat(2, "b", &["U"]))
            .await
            .expect("members need no state");
        assert_eq!(b.groups.consumer_ids("G"), ["a", "b"]);
        assert!(
            b.groups.subscription("G", "T").is_some() && b.groups.subscription("G", "U").is_none()
        );
        assert_eq!(b.groups.groups_of_topic("U"), ["quiet"]);
        assert_eq!(b.groups.online(), ["G", "quiet"]);
        let heard: Vec<u64> = b
            .link
            .heard
            .lock()
            .drain(..)
            .map(|(conn, _)| conn.0)
            .collect();
        assert_eq!(heard, [1, 1, 2]);
        let rechecked = b.link.rechecked.lock().clone();
        assert_eq!(rechecked, ["G", "quiet"], "when other messages are wanted");

        b.groups.conn_closed(ConnId(2));
        until(|| b.groups.consumer_ids("G") == ["a"] && b.groups.online() == ["G"]).await;
        let changed = Notice::MembersChanged { group: "G".into() };
        assert_eq!(*b.link.heard.lock(), [(ConnId(1), changed)]);
        b.groups.unregister("G", ConnId(1), "a").await.expect("ok");
        assert!(b.groups.members("G").is_none());
        b.groups
            .unregister("nobody", ConnId(1), "a")
            .await
            .expect("ok");
    });
}

#[test]
fn offsets_locks_and_resets_work_end_to_end() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        assert_eq!(b.groups.query_offset("G", queue(0)).await, Ok(None));
        b.groups.commit_offset("G", queue(0), 7, BOUNDS);
        assert_eq!(b.groups.query_offset("G", queue(0)).await, Ok(Some(7)));
        let waited = b.groups.commit_offset_wait("G", queue(1), 9, BOUNDS).await;
        assert_eq!(waited, Ok(Committed::Applied));
        let beyond = b
            .groups
            .commit_offset_wait("G", queue(1), 101, BOUNDS)
            .await;
        assert!(matches!(beyond, Err(Refusal::Invalid(_))));
        let all = b.groups.offsets_of("G").await.expect("known");
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            [((1, 0), 7), ((1, 1), 9)]
        );

        assert_eq!(
            b.groups.lock("G", "a", vec![queue(0), queue(1)]).await,
            Ok(vec![queue(0), queue(1)])
        );
        assert_eq!(
            b.groups.lock("G", "b", vec![queue(1), queue(2)]).await,
            Ok(vec![queue(2)])
        );
        b.groups.unlock("G", "a", vec![queue(1)]).await.expect("ok");
        assert_eq!(
            b.groups.lock("G", "b", vec![queue(1)]).await,
            Ok(vec![queue(1)])
        );

        b.groups
            .reset_offsets("G", "T", 1, vec![(0, 3)])
            .await
            .expect("applied");
        assert_eq!(b.groups.reset_position("G", queue(0), 8), Some(3));
        assert_eq!(b.groups.reset_position("G", queue(1), 8), None);
        let ignored = b.groups.commit_offset_wait("G", queue(0), 8, BOUNDS).await;
        assert_eq!(ignored, Ok(Committed::ResetPending));
        assert_eq!(b.groups.reset_position("G", queue(0), 3), None);
        assert_eq!(
            b.groups.reset_position("G", queue(0), 4),
            None,
            "the reset is over"
        );
        assert_eq!(
            b.groups.commit_offset_wait("G", queue(0), 4, BOUNDS).await,
            Ok(Committed::Applied)
        );

        let missing = b.groups.query_offset("missing", queue(0)).await;
        assert_eq!(missing, Err(Refusal::NotFound("group")));
        assert_eq!(
            b.groups.awake(),
            1,
            "nobody is woken for a group that is not there"
        );
    });
}

#[test]
fn a_one_way_commit_reaches_the_shard_by_itself() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        b.groups.commit_offset("G", queue(0), 1, BOUNDS);
        b.groups.commit_offset("G", queue(0), 2, BOUNDS);
        b.groups.commit_offset("G", queue(0), -1, BOUNDS);
        let seen = b.groups.offsets_of("G").await.expect("known");
        assert_eq!(
            (seen[&(1, 0)], b.table.commands.load(Ordering::SeqCst)),
            (2, 0)
        );
        // The core's clock is the test's.
        b.now.store(250, Ordering::SeqCst);
        until(|| b.table.offsets.lock().get(&(1, 0)) == Some(&2)).await;
        assert_eq!(b.table.commands.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn an_idle_group_sleeps_and_wakes_with_its_state() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        b.groups
            .heartbeat("G", beat(1, "a", &["T"]))
            .await
            .expect("ok");
        b.groups
            .commit_offset_wait("G", queue(0), 5, BOUNDS)
            .await
            .expect("applied");
        b.now.store(121_000, Ordering::SeqCst);
        until(|| b.groups.online().is_empty()).await;
        assert_eq!(b.groups.awake(), 1);
        b.now.store(600_000, Ordering::SeqCst);
        until(|| b.groups.awake() == 0).await;
        assert_eq!(b.groups.query_offset("G", queue(0)).await, Ok(Some(5)));
        assert_eq!(b.groups.awake(), 1);
    });
}

#[test]
fn a_request_that_races_with_sleep_is_answered() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        for round in 1..200 {
            // Every tick may put it to sleep.
            b.now.store(round * 1_000_000, Ordering::SeqCst);
            if round % 3 == 0 {
                actix_rt::time::sleep(Duration::from_millis(round as u64 % 7)).await;
            }
            let offset = round % 100;
            let got = b
                .groups
                .commit_offset_wait("G", queue(round as u32), offset, BOUNDS)
                .await;
            assert_eq!(got, Ok(Committed::Applied));
            assert_eq!(
                b.groups.query_offset("G", queue(round as u32)).await,
                Ok(Some(offset as u64))
            );
        }
    });
}

#[test]
fn a_deleted_group_is_forgotten() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        b.groups
            .heartbeat("G", beat(1, "a", &["T"]))
            .await
            .expect("ok");
        b.groups
            .commit_offset_wait("G", queue(0), 5, BOUNDS)
            .await
            .expect("applied");
        b.table.groups.lock().clear();
        b.table.offsets.lock().clear();
        b.groups.group_deleted("G");
        until(|| b.groups.online().is_empty()).await;
        assert_eq!(
            b.groups.query_offset("G", queue(0)).await,
            Err(Refusal::NotFound("group"))
        );
        b.table.groups.lock().insert("G".into(), 2);
        assert_eq!(b.groups.query_offset("G", queue(0)).await, Ok(None));
    });
}

#[test]
fn limits_are_kept() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits {
            groups: 2,
            groups_per_connection: 2,
            ..Default::default()
        });
        b.groups
            .heartbeat("A", beat(1, "a", &["T"]))
            .await
            .expect("ok");
        b.groups
            .heartbeat("B", beat(1, "a", &["T"]))
            .await
            .expect("ok");
        let third = b.groups.heartbeat("C", beat(1, "a", &["T"])).await;
        assert!(matches!(third, Err(Refusal::Invalid(_))));
        assert_eq!(
            b.groups.heartbeat("C", beat(2, "a", &["T"])).await,
            Err(Refusal::Busy)
        );
        let refused = b.groups.heartbeat("A", beat(3, "", &["T"])).await;
        assert!(matches!(refused, Err(Refusal::Invalid(_))));
    });
}

#[test]
fn producers_come_and_go() {
    actix_rt::System::new().block_on(async {
        let b = bench(GroupLimits::default());
        let producer = |conn| Connection {
            conn: ConnId(conn),
            client_id: "p".into(),
            client_addr: "127.0.0.1:9".into(),
            language: "GO".into(),
            version: 1,
            last_update_ms: 0,
        };
        b.groups.producer_heartbeat("P", producer(1)).expect("ok");
        b.groups.producer_heartbeat("P", producer(2)).expect("ok");
        b.groups.conn_closed(ConnId(1));
        assert_eq!(b.groups.producer_connections("P").len(), 1);
        b.now.store(120_001, Ordering::SeqCst);
        assert!(b.groups.producers().is_empty());
    });
}
