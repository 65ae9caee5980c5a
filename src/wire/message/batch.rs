//! The body of a batch send: messages one after the other, each with flag, body and properties.
//!
//! A batch is all or nothing, so it is read and checked to its end before anything is stored.

use super::properties::{self, BadProperties};
use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Bytes of an entry besides its body and properties.
pub const ENTRY_OVERHEAD: usize = 22;

/// Sizes of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Largest whole body in bytes (the broker's maximum message size).
    pub max_body: usize,
    /// Most messages in one batch.
    pub max_messages: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits {
            max_body: 4 * 1024 * 1024,
            max_messages: 32 * 1024,
        }
    }
}

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    /// The user's flag.
    pub flag: i32,
    /// Body.
    pub body: &'a [u8],
    /// Encoded properties, already checked.
    pub properties: &'a [u8],
}

/// A batch that must be refused whole (response code 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// No message at all.
    #[error("the batch is empty")]
    Empty,
    /// Larger than [`BatchLimits::max_body`].
    #[error("batch body of {0} bytes exceeds the limit")]
    TooLarge(usize),
    /// More messages than [`BatchLimits::max_messages`].
    #[error("more than {0} messages in a batch")]
    TooMany(usize),
    /// The lengths inside message `0` of the batch do not add up.
    #[error("lengths of message {0} of the batch do not add up")]
    Length(usize),
    /// Message `0` of the batch has properties that must not be stored.
    #[error("message {0} of the batch: {1}")]
    Properties(usize, BadProperties),
}

fn split_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*head), rest))
}

/// One entry and what follows it. The magic and checksum fields are ignored: clients send 0.
fn entry(bytes: &[u8]) -> Option<(BatchEntry<'_>, &[u8])> {
    let (total, _) = split_i32(bytes)?;
    let (entry, after) = bytes.split_at_checked(usize::try_from(total).ok()?)?;
    let (flag, rest) = split_i32(entry.get(12..)?)?;
    let (body_len, rest) = split_i32(rest)?;
    let (body, rest) = rest.split_at_checked(usize::try_from(body_len).ok()?)?;
    let (props_len, properties) = rest.split_first_chunk::<2>()?;
    let props_len = usize::try_from(i16::from_be_bytes(*props_len)).ok()?;
    (properties.len() == props_len).then_some((
        BatchEntry {
            flag,
            body,
            properties,
        },
        after,
    ))
}

/// Reads a whole batch body; the first fault refuses all of it.
pub fn parse<'a>(body: &'a [u8], limits: &BatchLimits) -> Result<Vec<BatchEntry<'a>>, BatchError> {
    if body.is_empty() {
        return Err(BatchError::Empty);
    }
    if body.len() > limits.max_body {
        return Err(BatchError::TooLarge(body.len()));
    }
    let mut entries = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let index = entries.len();
        if index >= limits.max_messages {
            return Err(BatchError::TooMany(limits.max_messages));
        }
        let (next, after) = entry(rest).ok_or(BatchError::Length(index))?;
        properties::check(next.properties, properties::MAX_SENT)
            .map_err(|e| BatchError::Properties(index, e))?;
        entries.push(next);
        rest = after;
    }
    Ok(entries)
}

/// Appends one entry, for our own client.
pub fn put_entry(out: &mut BytesMut, entry: &BatchEntry<'_>) -> Result<(), BatchError> {
    properties::check(entry.properties, properties::MAX_SENT)
        .map_err(|e| BatchError::Properties(0, e))?;
    let len = ENTRY_OVERHEAD + entry.body.len() + entry.properties.len();
    let total = i32::try_from(len).map_err(|_| BatchError::TooLarge(len))?;
    out.put_i32(total);
    out.put_i32(0);
    out.put_i32(0);
    out.put_i32(entry.flag);
    out.put_i32(entry.body.len() as i32);
    out.extend_from_slice(entry.body);
    out.put_i16(entry.properties.len() as i16);
    out.extend_from_slice(entry.properties);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(entries: &[BatchEntry<'_>]) -> BytesMut {
        let mut out = BytesMut::new();
        for e in entries {
            put_entry(&mut out, e).unwrap();
        }
        out
    }

    const ONE: BatchEntry<'static> = BatchEntry {
        flag: 7,
        body: b"body",
        properties: b"TAGS\x01a\x02",
    };

    #[test]
    fn lying_lengths_refuse_the_whole_batch() {
        let good = body(&[ONE, ONE]);
        let limits = BatchLimits::default();
        assert_eq!(parse(&good, &limits).unwrap(), vec![ONE, ONE]);
        let second = good.len() / 2;
        // total size, body length, properties length of the second message, each made wrong.
        for at in [second, second + 16, second + 24] {
            for delta in [-1i16, 1, i16::MIN] {
                let mut bad = good.clone();
                let field = if at == second + 24 { at } else { at + 2 };
                let old = i16::from_be_bytes([bad[field], bad[field + 1]]);
                let new = old.wrapping_add(delta).to_be_bytes();
                bad[field..field + 2].copy_from_slice(&new);
                assert_eq!(
                    parse(&bad, &limits),
                    Err(BatchError::Length(1)),
                    "{at} {delta}"
                );
            }
        }
        for total in [0i32, -1, 21, i32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&total.to_be_bytes());
            assert_eq!(parse(&bad, &limits), Err(BatchError::Length(0)), "{total}");
        }
        for cut in 1..second {
            assert!(parse(&good[..good.len() - cut], &limits).is_err());
        }
        assert_eq!(parse(b"", &limits), Err(BatchError::Empty));
    }

    #[test]
    fn counts_and_sizes_are_limited() {
        let limits = BatchLimits {
            max_body: 100,
            max_messages: 2,
        };
        let three = body(
            &[BatchEntry {
                body: b"",
                properties: b"",
                flag: 0,
            }; 3],
        );
        assert_eq!(parse(&three, &limits), Err(BatchError::TooMany(2)));
        assert_eq!(parse(&[0; 101], &limits), Err(BatchError::TooLarge(101)));
        let forged = body(&[ONE]);
        let mut forged = forged.to_vec();
        let at = forged.len() - 2;
        forged[at] = 1;
        assert_eq!(
            parse(&forged, &limits),
            Err(BatchError::Properties(0, BadProperties::Separator))
        );
    }

    proptest! {
        #[test]
        fn encode_then_parse_is_the_same(
            messages in prop::collection::vec((any::<i32>(), prop::collection::vec(any::<u8>(), 0..50)), 1..20)
        ) {
            let entries: Vec<_> = messages
                .iter()
                .map(|(flag, body)| BatchEntry { flag: *flag, body, properties: b"a\x01b\x02" })
                .collect();
            let encoded = body(&entries);
            prop_assert_eq!(parse(&encoded, &BatchLimits::default()).unwrap(), entries);
        }
    }
}
