//! Positions inside a stored message record, and the three fields a shard fills in late.
//!
//! A record is encoded once by the wire room, before its offsets are known; the queue and shard
//! cores then write the queue offset, the physical offset and the store time in place. Those
//! rooms do not know the wire format, so the few positions they need are named here.

use thiserror::Error;

/// Total size of the record, 4 bytes big-endian, itself included.
pub const TOTAL_SIZE_AT: usize = 0;
/// Record version: [`MAGIC_V1`] or [`MAGIC_V2`].
pub const MAGIC_AT: usize = 4;
/// CRC-32 of the stored body with the top bit cleared.
pub const BODY_CRC_AT: usize = 8;
/// Queue id, 4 bytes.
pub const QUEUE_ID_AT: usize = 12;
/// The user's flag, 4 bytes, stored as it came.
pub const FLAG_AT: usize = 16;
/// Queue offset, 8 bytes.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Physical offset, 8 bytes.
pub const PHYS_OFFSET_AT: usize = 28;
/// System flags, 4 bytes (see the `SYS_*` bits).
pub const SYS_FLAG_AT: usize = 36;
/// Born timestamp in milliseconds, 8 bytes.
pub const BORN_TIMESTAMP_AT: usize = 40;
/// Born host: 4 or 16 address bytes, then a 4-byte port.
pub const BORN_HOST_AT: usize = 48;

/// Magic of a record with a one-byte topic length.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record with a two-byte topic length (topics longer than 127 bytes).
pub const MAGIC_V2: u32 = 0xDAA3_20AB;

/// The body is compressed.
pub const SYS_COMPRESSED: i32 = 1;
/// The topic's filter type is MULTI_TAG.
pub const SYS_MULTI_TAGS: i32 = 1 << 1;
/// The two transaction bits: 0 none, 4 prepared, 8 commit, 12 rollback.
pub const SYS_TRANSACTION_MASK: i32 = 0b11 << 2;
/// Transaction bits of a half message.
pub const SYS_TRANSACTION_PREPARED: i32 = 1 << 2;
/// Transaction bits of a committed message.
pub const SYS_TRANSACTION_COMMIT: i32 = 2 << 2;
/// Transaction bits of a rolled-back message.
pub const SYS_TRANSACTION_ROLLBACK: i32 = 3 << 2;
/// The born host is an IPv6 address.
pub const SYS_BORN_HOST_V6: i32 = 1 << 4;
/// The store host is an IPv6 address.
pub const SYS_STORE_HOST_V6: i32 = 1 << 5;
/// The record holds an inner batch that must be unwrapped.
pub const SYS_NEED_UNWRAP: i32 = 1 << 6;
/// The record is an inner batch.
pub const SYS_INNER_BATCH: i32 = 1 << 7;

/// Smallest record that can exist: IPv4 hosts, v1, empty body, topic and properties.
pub const MIN_RECORD_LEN: usize = 91;

/// The bytes given are no record: too short, or their length fields disagree with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a message record (too short or wrong length)")]
pub struct NotARecord;

fn be_i32(record: &[u8], at: usize) -> Option<i32> {
    let bytes = record.get(at..at.checked_add(4)?)?;
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

fn be_i64(record: &[u8], at: usize) -> Option<i64> {
    let bytes = record.get(at..at.checked_add(8)?)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

/// Total length of the first record in `bytes`, from its length field. `None` when the field is
/// missing, below [`MIN_RECORD_LEN`], or longer than `bytes`.
pub fn record_len(bytes: &[u8]) -> Option<usize> {
    let len = usize::try_from(be_i32(bytes, TOTAL_SIZE_AT)?).ok()?;
    (MIN_RECORD_LEN..=bytes.len()).contains(&len).then_some(len)
}

/// Position of the store timestamp: 56 with an IPv4 born host, 68 with an IPv6 one.
pub fn store_timestamp_at(record: &[u8]) -> Option<usize> {
    let v6 = be_i32(record, SYS_FLAG_AT)? & SYS_BORN_HOST_V6 != 0;
    Some(BORN_HOST_AT + if v6 { 20 } else { 8 })
}

/// Writes the three fields that are known only when the record is proposed. `record` must be
/// exactly one record.
pub fn patch(
    record: &mut [u8],
    queue_offset: i64,
    phys: i64,
    store_ts: i64,
) -> Result<(), NotARecord> {
    if record_len(record) != Some(record.len()) {
        return Err(NotARecord);
    }
    let store_at = store_timestamp_at(record).ok_or(NotARecord)?;
    for (at, value) in [
        (QUEUE_OFFSET_AT, queue_offset),
        (PHYS_OFFSET_AT, phys),
        (store_at, store_ts),
    ] {
        record
            .get_mut(at..at + 8)
            .ok_or(NotARecord)?
            .copy_from_slice(&value.to_be_bytes());
    }
    Ok(())
}

/// How the properties of a parked timer message end: this, [`DEQUEUED_DIGITS`] digits, [`DEQUEUED_END`].
/// Whoever parks the message writes the digits of the time when it is due.
pub const DEQUEUED: &[u8] = b"\x02TIMER_DEQUEUE_MS\x01";
/// Digits of the time in ms.
pub const DEQUEUED_DIGITS: usize = 13;
/// Ends the property, and the record.
pub const DEQUEUED_END: u8 = 2;

/// Writes when a parked timer message is handed to its queue into the record, which keeps its
/// length. A record without that property at its end, and a time of other than 13 digits, change
/// nothing.
pub fn stamp_dequeued(record: &mut [u8], at_ms: i64) {
    let digits = format!("{at_ms:013}");
    let Some((&mut DEQUEUED_END, before)) = record.split_last_mut() else {
        return;
    };
    let Some(at) = before.len().checked_sub(DEQUEUED_DIGITS) else {
        return;
    };
    let (head, time) = before.split_at_mut(at);
    if head.ends_with(DEQUEUED)
        && time.iter().all(u8::is_ascii_digit)
        && digits.len() == DEQUEUED_DIGITS
        && at_ms >= 0
    {
        time.copy_from_slice(digits.as_bytes());
    }
}

/// Queue id of a record.
pub fn queue_id(record: &[u8]) -> Option<i32> {
    be_i32(record, QUEUE_ID_AT)
}

/// Queue offset of a record.
pub fn queue_offset(record: &[u8]) -> Option<i64> {
    be_i64(record, QUEUE_OFFSET_AT)
}

/// Physical offset of a record.
pub fn phys_offset(record: &[u8]) -> Option<i64> {
    be_i64(record, PHYS_OFFSET_AT)
}

/// System flags of a record.
pub fn sys_flag(record: &[u8]) -> Option<i32> {
    be_i32(record, SYS_FLAG_AT)
}

/// Store timestamp of a record, in milliseconds since the epoch.
pub fn store_timestamp(record: &[u8]) -> Option<i64> {
    be_i64(record, store_timestamp_at(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(len: usize, sys_flag: i32) -> Vec<u8> {
        let mut record = vec![0u8; len];
        record[0..4].copy_from_slice(&(len as i32).to_be_bytes());
        record[SYS_FLAG_AT..SYS_FLAG_AT + 4].copy_from_slice(&sys_flag.to_be_bytes());
        record
    }

    #[test]
    fn patch_writes_the_three_fields_where_readers_look() {
        for (flag, at) in [(0, 56), (SYS_BORN_HOST_V6, 68)] {
            let mut record = fake(120, flag);
            patch(&mut record, 7, i64::MAX, 1_700_000_000_000).unwrap();
            assert_eq!(queue_offset(&record), Some(7));
            assert_eq!(phys_offset(&record), Some(i64::MAX));
            assert_eq!(store_timestamp(&record), Some(1_700_000_000_000));
            assert_eq!(store_timestamp_at(&record), Some(at));
        }
    }

    #[test]
    fn the_time_of_dequeuing_is_written_only_where_it_was_left_room() {
        let parked = |end: &str| [&b"record\x01x"[..], end.as_bytes()].concat();
        let stamped = |end: &str, at_ms| {
            let mut record = parked(end);
            stamp_dequeued(&mut record, at_ms);
            record
        };
        let with = "\x02TIMER_DEQUEUE_MS\x011800000000000\x02";
        assert_eq!(
            stamped(with, 1_800_000_001_234),
            parked("\x02TIMER_DEQUEUE_MS\x011800000001234\x02")
        );
        for at_ms in [-1, i64::MIN, i64::MAX, 10_000_000_000_000] {
            assert_eq!(stamped(with, at_ms), parked(with), "{at_ms}");
        }
        for other in [
            "",
            "\x02",
            "\x02TIMER_DEQUEUE_MS\x01180000000000\x02",
            "\x02TIMER_DEQUEUE_MS\x01180000000000x\x02",
            "\x02TIMER_DEQUEUE_MS\x011800000000000",
            "XTIMER_DEQUEUE_MS\x011800000000000\x02",
        ] {
            assert_eq!(
                stamped(other, 1_800_000_001_234),
                parked(other),
                "{other:?}"
            );
        }
        stamp_dequeued(&mut [], 1);
    }

    #[test]
    fn wrong_lengths_are_refused_and_nothing_is_written() {
        let mut short = fake(90, 0);
        assert_eq!(patch(&mut short, 1, 1, 1), Err(NotARecord));
        let mut two = fake(120, 0);
        two.extend(fake(120, 0));
        let before = two.clone();
        assert_eq!(patch(&mut two, 1, 1, 1), Err(NotARecord));
        assert_eq!(two, before);
        assert_eq!(record_len(&two), Some(120));
        let mut liar = fake(120, 0);
        liar[0..4].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(record_len(&liar), None);
        assert_eq!(record_len(&[0, 0]), None);
    }
}
