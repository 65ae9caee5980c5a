//! Tests of the queue core.

use super::*;
use crate::model::append::{AppendRequest, RecordMeta};
use crate::model::policy::AckPolicy;
use crate::model::TopicId;

fn token(slot: u64) -> Token {
    Token { sink: 0, slot }
}
fn batch(slots: &[(u64, u32)], policy: AckPolicy) -> AppendBatch {
    let mut b = AppendBatch::default();
    for (slot, count) in slots {
        b.requests.push(AppendRequest {
            token: token(*slot),
            count: *count,
            policy,
        });
        for _ in 0..*count {
            b.metas.push(RecordMeta {
                size: 0,
                tag: *slot as i32,
            });
        }
    }
    b
}
fn queue() -> QueueCore {
    QueueCore::new(QueueKey::new(TopicId(1), 0), 1, 10)
}
fn answers(out: &[Effect]) -> Vec<(u64, u64)> {
    out.iter()
        .filter_map(|e| match e {
            Effect::Answer(t, Outcome::Appended { base_offset, .. }) => {
                Some((t.slot, *base_offset))
            }
            _ => None,
        })
        .collect()
}
const FIRST: Position = Position {
    index: 5,
    ordinal: 0,
};

#[test]
fn a_late_record_is_told_once_and_becomes_visible() {
    let mut q = queue();
    let mut out = Vec::new();
    let policy = AckPolicy::STRICTEST;
    q.step(
        QueueInput::Append {
            batch: batch(&[(1, 2), (2, 1)], policy),
            fired: vec![],
        },
        &mut out,
    );
    out.clear();
    let late = QueueInput::Late {
        why: Late::Replica,
        base: 10,
        count: 2,
        first: FIRST,
    };
    q.step(late.clone(), &mut out);
    q.step(late, &mut out);
    let expected = Effect::Answer(
        token(1),
        Outcome::Late {
            why: Late::Replica,
            base_offset: 10,
            position: FIRST,
        },
    );
    assert_eq!(format!("{out:?}"), format!("{:?}", [expected]));
    out.clear();
    q.step(
        QueueInput::Reached {
            stage: Stage::Committed,
            base: 10,
            count: 3,
            first: FIRST,
            tags: vec![0, 0, 0],
        },
        &mut out,
    );
    assert_eq!(answers(&out), [(2, 12)]);
    assert_eq!(q.visible, 13);
}

#[test]
fn offsets_follow_each_other_and_replies_wait_for_commit() {
    let mut q = queue();
    let mut out = Vec::new();
    q.step(
        QueueInput::Append {
            batch: batch(&[(1, 1), (2, 3)], AckPolicy::STRICTEST),
            fired: vec![],
        },
        &mut out,
    );
    q.step(
        QueueInput::Append {
            batch: batch(&[(3, 1)], AckPolicy::STRICTEST),
            fired: vec![],
        },
        &mut out,
    );
    let bases: Vec<u64> = out
        .iter()
        .filter_map(|e| match e {
            Effect::ToShard(ShardInput::Append(p)) => Some(p.base),
            _ => None,
        })
        .collect();
    assert_eq!(bases, [10, 14]);
    out.clear();
    let reached = |stage| QueueInput::Reached {
        stage,
        base: 10,
        count: 4,
        first: FIRST,
        tags: vec![],
    };
    q.step(reached(Stage::Appended), &mut out);
    assert!(
        answers(&out).is_empty(),
        "SYNC_MASTER does not answer at the leader's append"
    );
    q.step(reached(Stage::Committed), &mut out);
    assert_eq!(answers(&out), [(1, 10), (2, 11)]);
    assert_eq!(q.pending(), 1);
}

#[test]
fn what_an_earlier_epoch_left_behind_closes_nothing() {
    let mut q = queue();
    let mut out = Vec::new();
    let abandoned = |epoch| QueueInput::Abandoned {
        epoch,
        why: Refusal::NotLeader,
    };
    q.step(abandoned(0), &mut out);
    assert!(!q.is_closed());
    q.step(abandoned(1), &mut out);
    assert!(q.is_closed());
}

#[test]
fn async_master_is_answered_once_when_appended() {
    let mut q = queue();
    let mut out = Vec::new();
    q.step(
        QueueInput::Append {
            batch: batch(&[(1, 1)], AckPolicy::LEADER_APPENDED),
            fired: vec![],
        },
        &mut out,
    );
    for stage in [Stage::Appended, Stage::Committed] {
        q.step(
            QueueInput::Reached {
                stage,
                base: 10,
                count: 1,
                first: FIRST,
                tags: vec![],
            },
            &mut out,
        );
    }
    assert_eq!(answers(&out), [(1, 10)]);
}

#[test]
fn a_parked_pull_wakes_for_matching_data_once_or_at_its_deadline() {
    let mut q = queue();
    let mut out = Vec::new();
    let park = |slot, offset, tags: Option<Vec<i32>>| {
        QueueInput::Park(ParkRequest {
            token: token(slot),
            offset,
            deadline_ms: 100,
            tags: tags.map(Into::into),
        })
    };
    q.step(park(1, 9, None), &mut out);
    assert!(
        matches!(&out[..], [Effect::Answer(_, Outcome::Wake { data: true })]),
        "already there"
    );
    out.clear();
    q.step(park(2, 10, Some(vec![7])), &mut out);
    q.step(park(3, 10, Some(vec![8])), &mut out);
    q.step(park(4, 10, None), &mut out);
    q.step(
        QueueInput::Reached {
            stage: Stage::Committed,
            base: 10,
            count: 1,
            first: FIRST,
            tags: vec![7],
        },
        &mut out,
    );
    let woken: Vec<u64> = out
        .iter()
        .filter_map(|e| match e {
            Effect::Answer(t, Outcome::Wake { data: true }) => Some(t.slot),
            _ => None,
        })
        .collect();
    assert_eq!(woken, [2, 4]);
    out.clear();
    q.step(QueueInput::Tick { now_ms: 100 }, &mut out);
    assert!(matches!(&out[..], [Effect::Answer(t, Outcome::Wake { data: false })] if t.slot == 3));
}

#[test]
fn a_closed_queue_answers_everything_and_takes_nothing() {
    let mut q = queue();
    let mut out = Vec::new();
    let append = |slot| QueueInput::Append {
        batch: batch(&[(slot, 1)], AckPolicy::STRICTEST),
        fired: vec![],
    };
    q.step(append(1), &mut out);
    out.clear();
    q.step(QueueInput::Closed(Refusal::Indeterminate), &mut out);
    q.step(append(2), &mut out);
    let refusals: Vec<_> = out
        .iter()
        .filter_map(|e| match e {
            Effect::Answer(t, Outcome::Refused(why)) => Some((t.slot, why.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(
        refusals,
        [(1, Refusal::Indeterminate), (2, Refusal::NotLeader)]
    );
}
