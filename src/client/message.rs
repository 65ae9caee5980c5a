//! Messages as a consumer sees them.

use crate::wire::message::record::RecordView;
use bytes::Bytes;
use flate2::read::ZlibDecoder;
use std::io::Read;

/// Most bytes a compressed body may inflate to.
const MAX_INFLATED: u64 = 64 << 20;
/// sysFlag bit 0: the body is compressed.
const COMPRESSED: i32 = 1;
/// sysFlag bits 8 to 10: 0 or 3 zlib, 1 LZ4, 2 ZSTD.
const COMPRESSION_SHIFT: i32 = 8;

/// A message that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Topic in the record.
    pub topic: String,
    /// Queue id.
    pub queue_id: i32,
    /// Position in the queue.
    pub queue_offset: i64,
    /// When the broker stored it, ms since 1970.
    pub store_timestamp: i64,
    /// How often it was tried before.
    pub reconsume_times: i32,
    /// Properties in the order of the record.
    pub properties: Vec<(String, String)>,
    /// The body, inflated when it was compressed with zlib.
    pub body: Bytes,
    /// Name of the compression that was left as it is.
    pub still_compressed: Option<&'static str>,
}

impl Received {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub(super) fn from_record(record: &RecordView<'_>) -> Self {
        let stored = record.body();
        let (body, still_compressed) = if record.sys_flag() & COMPRESSED == 0 {
            (Bytes::copy_from_slice(stored), None)
        } else {
            match (record.sys_flag() >> COMPRESSION_SHIFT) & 7 {
                0 | 3 => match inflate(stored) {
                    Some(body) => (body, None),
                    None => (Bytes::copy_from_slice(stored), Some("zlib")),
                },
                1 => (Bytes::copy_from_slice(stored), Some("LZ4")),
                2 => (Bytes::copy_from_slice(stored), Some("ZSTD")),
                _ => (Bytes::copy_from_slice(stored), Some("unknown compression")),
            }
        };
        Self {
            topic: record.topic().to_owned(),
            queue_id: record.queue_id(),
            queue_offset: record.queue_offset(),
            store_timestamp: record.store_ts(),
            reconsume_times: record.reconsume_times(),
            properties: crate::wire::message::properties::iter(record.properties())
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
            body,
            still_compressed,
        }
    }
}

/// `None` when the stream is broken or too long.
fn inflate(stored: &[u8]) -> Option<Bytes> {
    let mut out = Vec::new();
    let mut limited = ZlibDecoder::new(stored).take(MAX_INFLATED + 1);
    limited.read_to_end(&mut out).ok()?;
    (out.len() as u64 <= MAX_INFLATED).then(|| out.into())
}
