use super::lock::LockRow;
use super::log_segment::LogSegment;
use super::queue::QueueMeta;
use super::timer::TimerRow;
use super::*;
use crate::model::{GroupId, Position, QueueKey, TopicId};
use crate::storage::StoreError;
use proptest::prelude::*;

/// Small numbers often, so that fields are equal often; and the extremes.
fn num32() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, 250u32..260, any::<u32>(), Just(u32::MAX)]
}

fn num64() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, 250u64..260, any::<u64>(), Just(u64::MAX)]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![-3i64..3, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
}

fn shard() -> impl Strategy<Value = ShardId> {
    num32().prop_map(ShardId)
}

fn queue() -> impl Strategy<Value = QueueKey> {
    (num32(), num32()).prop_map(|(t, q)| QueueKey::new(TopicId(t), q))
}

fn within(range: &KeyRange, key: &[u8]) -> bool {
    range.0.as_slice() <= key && key < range.1.as_slice()
}

/// Byte order is logical order, parsing gives back the parts, and a key is in its kind's range
/// and in no other kind's.
fn check<T: Ord + Clone + std::fmt::Debug>(
    kind: Kind,
    shard_of: impl Fn(&T) -> ShardId,
    a: &T,
    b: &T,
    key: impl Fn(&T) -> Vec<u8>,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<(), TestCaseError> {
    let (ka, kb) = (key(a), key(b));
    prop_assert_eq!(ka.cmp(&kb), a.cmp(b));
    prop_assert_eq!(parse(&ka), Some(a.clone()));
    let mut longer = ka.clone();
    longer.push(0);
    prop_assert_eq!(parse(&longer), None);
    prop_assert_eq!(parse(&ka[..ka.len() - 1]), None);
    for other in 1..=11u8 {
        let range = KeyBuf::new(shard_of(a), other, 0).range();
        prop_assert_eq!(within(&range, &ka), other == kind as u8);
    }
    prop_assert!(within(&all_of_kind(shard_of(a), kind), &ka));
    prop_assert!(within(&all_of_shard(shard_of(a)), &ka));
    prop_assert_eq!(
        within(&all_of_shard(shard_of(b)), &ka),
        shard_of(a) == shard_of(b)
    );
    Ok(())
}

proptest! {
    #[test]
    fn one_field_keys(a in (shard(), num32()), b in (shard(), num32())) {
        let topics = [a, b].map(|(s, n)| (s, TopicId(n)));
        check(Kind::Topic, |t| t.0, &topics[0], &topics[1], |t| topic::key(t.0, t.1), topic::parse)?;
        let groups = [a, b].map(|(s, n)| (s, GroupId(n)));
        check(Kind::Group, |t| t.0, &groups[0], &groups[1], |t| group::key(t.0, t.1), group::parse)?;
        check(Kind::Applied, |t| *t, &a.0, &b.0, |t| applied::key(*t), applied::parse)?;
        check(Kind::Counters, |t| *t, &a.0, &b.0, |t| counters::key(*t), counters::parse)?;
    }

    #[test]
    fn queue_keys(a in (shard(), queue()), b in (shard(), queue())) {
        check(Kind::Queue, |t| t.0, &(a.0, a.1.topic, a.1.queue), &(b.0, b.1.topic, b.1.queue),
            |t| queue::key(t.0, QueueKey::new(t.1, t.2)),
            |k| queue::parse(k).map(|(s, q)| (s, q.topic, q.queue)))?;
        let range = queue::topic_range(b.0, b.1.topic);
        prop_assert_eq!(within(&range, &queue::key(a.0, a.1)), a.0 == b.0 && a.1.topic == b.1.topic);
    }

    #[test]
    fn index_keys(a in (shard(), queue(), num64()), b in (shard(), queue(), num64())) {
        check(Kind::Index, |t| t.0, &(a.0, a.1.topic, a.1.queue, a.2), &(b.0, b.1.topic, b.1.queue, b.2),
            |t| index::key(t.0, QueueKey::new(t.1, t.2), t.3),
            |k| index::parse(k).map(|(s, q, o)| (s, q.topic, q.queue, o)))?;
        let key = index::key(a.0, a.1, a.2);
        let same = a.0 == b.0 && a.1 == b.1;
        prop_assert_eq!(within(&index::queue_range(b.0, b.1), &key), same);
        prop_assert_eq!(within(&index::below(b.0, b.1, b.2), &key), same && a.2 < b.2);
        let range = index::topic_range(b.0, b.1.topic);
        prop_assert_eq!(within(&range, &key), a.0 == b.0 && a.1.topic == b.1.topic);
    }

    #[test]
    fn offset_and_lock_keys(a in (shard(), num32(), queue()), b in (shard(), num32(), queue())) {
        let flat = |t: &(ShardId, u32, QueueKey)| (t.0, GroupId(t.1), t.2.topic, t.2.queue);
        check(Kind::Offset, |t| t.0, &flat(&a), &flat(&b),
            |t| offset::key(t.0, t.1, QueueKey::new(t.2, t.3)),
            |k| offset::parse(k).map(|(s, g, q)| (s, g, q.topic, q.queue)))?;
        check(Kind::Lock, |t| t.0, &flat(&a), &flat(&b),
            |t| lock::key(t.0, t.1, QueueKey::new(t.2, t.3)),
            |k| lock::parse(k).map(|(s, g, q)| (s, g, q.topic, q.queue)))?;
        let same = a.0 == b.0 && a.1 == b.1;
        let key = offset::key(a.0, GroupId(a.1), a.2);
        prop_assert_eq!(within(&offset::group_range(b.0, GroupId(b.1)), &key), same);
        let range = offset::topic_range(b.0, GroupId(b.1), b.2.topic);
        prop_assert_eq!(within(&range, &key), same && a.2.topic == b.2.topic);
        let key = lock::key(a.0, GroupId(a.1), a.2);
        prop_assert_eq!(within(&lock::group_range(b.0, GroupId(b.1)), &key), same);
    }

    #[test]
    fn timer_keys(a in (shard(), signed(), num64(), num32()), b in (shard(), signed(), num64(), num32())) {
        let pos = |index, ordinal| Position { index, ordinal };
        check(Kind::Timer, |t| t.0, &a, &b, |t| timer::key(t.0, t.1, pos(t.2, t.3)),
            |k| timer::parse(k).map(|(s, due, p)| (s, due, p.index, p.ordinal)))?;
        let range = timer::due_range(b.0, b.1);
        prop_assert_eq!(within(&range, &timer::key(a.0, a.1, pos(a.2, a.3))), a.0 == b.0 && a.1 <= b.1);
    }

    #[test]
    fn segment_keys(a in (shard(), num64(), queue()), b in (shard(), num64(), queue())) {
        check(Kind::LogSegment, |t| t.0, &(a.0, a.1), &(b.0, b.1), |t| log_segment::key(t.0, t.1), log_segment::parse)?;
        let flat = |t: &(ShardId, u64, QueueKey)| (t.0, t.1, t.2.topic, t.2.queue);
        check(Kind::SegmentQueue, |t| t.0, &flat(&a), &flat(&b),
            |t| segment_queue::key(t.0, t.1, QueueKey::new(t.2, t.3)),
            |k| segment_queue::parse(k).map(|(s, n, q)| (s, n, q.topic, q.queue)))?;
        let range = segment_queue::segment_range(b.0, b.1);
        prop_assert_eq!(within(&range, &segment_queue::key(a.0, a.1, a.2)), a.0 == b.0 && a.1 == b.1);
    }

    #[test]
    fn values_read_back(n in (num64(), num64(), num64()), m in (num32(), num32(), num32()), t in (signed(), signed()),
        items in prop::collection::vec((num32(), any::<i32>()), 1..40), client in ".{0,20}", q in queue()) {
        let row = index::IndexRow { log_index: n.0, records_at: m.0, first_ordinal: m.1, store_ts: t.0, items };
        prop_assert_eq!(index::IndexRow::decode(&row.encode()), Ok(row.clone()));
        let meta = QueueMeta { next: n.0.max(n.1), min: n.0.min(n.1), segment: n.0 };
        prop_assert_eq!(QueueMeta::decode(&meta.encode()), Ok(meta));
        let lock = LockRow { client, at_ms: t.0 };
        prop_assert_eq!(LockRow::decode(&lock.encode()), Ok(lock.clone()));
        let timer = TimerRow { queue: q, records_at: m.0, size: m.1 };
        prop_assert_eq!(TimerRow::decode(&timer.encode()), Ok(timer));
        let segment = LogSegment { first_index: n.0, last_index: n.1, bytes: n.2, min_ts: t.0, max_ts: t.1, last_term: n.0, closed: n.1 % 2 == 0 };
        prop_assert_eq!(LogSegment::decode(&segment.encode()), Ok(segment));
        let counters = counters::Counters { next_topic: m.0, next_group: m.1 };
        prop_assert_eq!(counters::Counters::decode(&counters.encode()), Ok(counters));
        prop_assert_eq!(applied::decode(&applied::encode(n.0)), Ok(n.0));
        prop_assert_eq!(offset::decode(&offset::encode(n.0)), Ok(n.0));
        prop_assert_eq!(segment_queue::decode(&segment_queue::encode(n.0)), Ok(n.0));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = index::IndexRow::decode(&bytes);
        let _ = QueueMeta::decode(&bytes);
        let _ = LockRow::decode(&bytes);
        let _ = TimerRow::decode(&bytes);
        let _ = LogSegment::decode(&bytes);
        let _ = counters::Counters::decode(&bytes);
        let _ = index::parse(&bytes);
        let _ = timer::parse(&bytes);
    }
}

#[test]
fn records_lie_one_behind_the_other() {
    let row = index::IndexRow {
        records_at: 100,
        items: vec![(30, 1), (50, 2), (7, 3)],
        ..Default::default()
    };
    assert_eq!(row.record(0), Some((100, 30)));
    assert_eq!(row.record(2), Some((180, 7)));
    assert_eq!(row.record(3), None);
}

#[test]
fn broken_values_are_corrupt() {
    let row = index::IndexRow {
        log_index: 1,
        items: vec![(1, 1)],
        ..Default::default()
    };
    let good = row.encode();
    for len in 0..good.len() {
        assert!(
            matches!(
                index::IndexRow::decode(&good[..len]),
                Err(StoreError::Corrupt(_))
            ),
            "length {len}"
        );
    }
    let empty = index::IndexRow::default().encode();
    assert!(matches!(
        index::IndexRow::decode(&empty),
        Err(StoreError::Corrupt(_))
    ));
    let bounds = QueueMeta {
        next: 1,
        min: 2,
        segment: 0,
    }
    .encode();
    assert!(matches!(
        QueueMeta::decode(&bounds),
        Err(StoreError::Corrupt(_))
    ));
    assert!(matches!(
        applied::decode(&[0; 7]),
        Err(StoreError::Corrupt(_))
    ));
}
