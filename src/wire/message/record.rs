//! The stored message record: what brokers keep and what pull, view and query answers carry.

use super::crc::body_crc;
use crate::model::record as layout;
use crate::model::record::{
    MAGIC_V1, MAGIC_V2, MIN_RECORD_LEN, SYS_BORN_HOST_V6, SYS_STORE_HOST_V6,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// Longest properties a record can hold: its length field is a signed 16-bit number.
pub const MAX_PROPERTIES: usize = i16::MAX as usize;
/// Longest topic of a v1 record, and the limit for names clients may choose.
pub const MAX_TOPIC_V1: usize = 127;

/// Everything a record is made of.
#[derive(Debug, Clone, Copy)]
pub struct RecordInput<'a> {
    /// Topic name; longer than 127 bytes makes a v2 record, which old clients cannot read.
    pub topic: &'a str,
    /// Body as the producer sent it, compressed or not.
    pub body: &'a [u8],
    /// Queue id.
    pub queue_id: i32,
    /// The user's flag.
    pub flag: i32,
    /// Queue offset; 0 when patched later.
    pub queue_offset: i64,
    /// Physical offset; 0 when patched later.
    pub phys_offset: i64,
    /// System flags; the two host bits are set here from the addresses.
    pub sys_flag: i32,
    /// Producer's clock, ms.
    pub born_ts: i64,
    /// Producer's address.
    pub born_host: SocketAddr,
    /// Broker's clock, ms; 0 when patched later.
    pub store_ts: i64,
    /// Broker's advertised address; becomes part of the message id.
    pub store_host: SocketAddr,
    /// How often consumption failed before.
    pub reconsume_times: i32,
    /// Physical offset of the half message of a committed transaction, else 0.
    pub prepared_txn_offset: i64,
    /// Encoded properties.
    pub properties: &'a [u8],
}

/// A message that does not fit the record format (response code 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Empty topic, or longer than 32767 bytes.
    #[error("topic of {0} bytes does not fit")]
    Topic(usize),
    /// Longer than [`MAX_PROPERTIES`].
    #[error("properties of {0} bytes exceed 32767")]
    Properties(usize),
    /// The record would exceed 2 GiB.
    #[error("message too large")]
    TooLarge,
}

fn ip_len(host: &SocketAddr) -> usize {
    if host.is_ipv4() {
        4
    } else {
        16
    }
}

/// An IPv4 address that arrived through an IPv6 socket counts as IPv4: C++ clients misread
/// records with IPv6 hosts.
fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

/// Bytes before the body, with addresses of IPv6.
const MAX_HEAD: usize = 112;

fn put_host(out: &mut &mut [u8], host: &SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u32(host.port().into());
}

impl RecordInput<'_> {
    /// Bytes the record will take.
    pub fn encoded_len(&self) -> usize {
        let topic = self.topic.len();
        let hosts = ip_len(&canonical(self.born_host)) + ip_len(&canonical(self.store_host));
        let v2 = usize::from(topic > MAX_TOPIC_V1);
        MIN_RECORD_LEN - 8 + hosts + v2 + topic + self.body.len() + self.properties.len()
    }

    /// Appends the record to `out` and gives its length. Nothing is written on an error.
    pub fn encode(&self, out: &mut BytesMut) -> Result<usize, RecordError> {
        let topic = self.topic.as_bytes();
        if topic.is_empty() || topic.len() > i16::MAX as usize {
            return Err(RecordError::Topic(topic.len()));
        }
        if self.properties.len() > MAX_PROPERTIES {
            return Err(RecordError::Properties(self.properties.len()));
        }
        let len = self.encoded_len();
        let total = i32::try_from(len).map_err(|_| RecordError::TooLarge)?;
        let (born, store) = (canonical(self.born_host), canonical(self.store_host));
        let v2 = topic.len() > MAX_TOPIC_V1;
        let mut sys_flag = self.sys_flag & !(SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6);
        if born.is_ipv6() {
            sys_flag |= SYS_BORN_HOST_V6;
        }
        if store.is_ipv6() {
            sys_flag |= SYS_STORE_HOST_V6;
        }

        out.reserve(len);
        let mut bytes = [0; MAX_HEAD];
        let mut head = &mut bytes[..];
        head.put_i32(total);
        head.put_u32(if v2 { MAGIC_V2 } else { MAGIC_V1 });
        head.put_u32(body_crc(self.body));
        head.put_i32(self.queue_id);
        head.put_i32(self.flag);
        head.put_i64(self.queue_offset);
        head.put_i64(self.phys_offset);
        head.put_i32(sys_flag);
        head.put_i64(self.born_ts);
        put_host(&mut head, &born);
        head.put_i64(self.store_ts);
        put_host(&mut head, &store);
        head.put_i32(self.reconsume_times);
        head.put_i64(self.prepared_txn_offset);
        head.put_i32(self.body.len() as i32);
        let used = MAX_HEAD - head.len();
        out.extend_from_slice(&bytes[..used]);
        out.extend_from_slice(self.body);
        if v2 {
            out.put_u16(topic.len() as u16);
        } else {
            out.put_u8(topic.len() as u8);
        }
        out.extend_from_slice(topic);
        out.put_u16(self.properties.len() as u16);
        out.extend_from_slice(self.properties);
        Ok(len)
    }
}

/// Bytes that are no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadRecord {
    /// A length field points outside of the record, or the parts do not fill it exactly.
    #[error("record lengths do not add up")]
    Length,
    /// Neither v1 nor v2.
    #[error("unknown record magic {0:08x}")]
    Magic(u32),
    /// The body's checksum differs.
    #[error("body checksum mismatch")]
    Crc,
    /// The topic is empty or not UTF-8.
    #[error("bad topic")]
    Topic,
    /// A port above 65535.
    #[error("bad host")]
    Host,
}

/// A checked record; fields are read where they lie.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    raw: &'a [u8],
    born_host: SocketAddr,
    store_host: SocketAddr,
    /// Position of the store timestamp.
    store_at: usize,
    /// Position after the store host.
    tail_at: usize,
    topic: &'a str,
    body: (usize, usize),
    properties: (usize, usize),
}

fn array<const N: usize>(raw: &[u8], at: usize) -> Result<[u8; N], BadRecord> {
    let end = at.checked_add(N).ok_or(BadRecord::Length)?;
    let bytes = raw.get(at..end).ok_or(BadRecord::Length)?;
    bytes.try_into().map_err(|_| BadRecord::Length)
}

fn host(raw: &[u8], at: usize, v6: bool) -> Result<(SocketAddr, usize), BadRecord> {
    let (ip, port_at) = if v6 {
        (IpAddr::V6(Ipv6Addr::from(array::<16>(raw, at)?)), at + 16)
    } else {
        (IpAddr::V4(Ipv4Addr::from(array::<4>(raw, at)?)), at + 4)
    };
    let port = u32::from_be_bytes(array(raw, port_at)?);
    let port = u16::try_from(port).map_err(|_| BadRecord::Host)?;
    Ok((SocketAddr::new(ip, port), port_at + 4))
}

impl<'a> RecordView<'a> {
    /// Checks the first record of `bytes`: all lengths, the magic, and the body's checksum.
    pub fn parse(bytes: &'a [u8]) -> Result<RecordView<'a>, BadRecord> {
        let view = Self::parse_unverified(bytes)?;
        if body_crc(view.body()) != view.body_crc() {
            return Err(BadRecord::Crc);
        }
        Ok(view)
    }

    /// Like [`RecordView::parse`] without the checksum: for records read from our own checked
    /// log, or whose body is not looked at.
    pub fn parse_unverified(bytes: &'a [u8]) -> Result<RecordView<'a>, BadRecord> {
        let len = layout::record_len(bytes).ok_or(BadRecord::Length)?;
        let raw = &bytes[..len];
        let magic = u32::from_be_bytes(array(raw, layout::MAGIC_AT)?);
        let v2 = match magic {
            MAGIC_V1 => false,
            MAGIC_V2 => true,
            other => return Err(BadRecord::Magic(other)),
        };
        let sys_flag = i32::from_be_bytes(array(raw, layout::SYS_FLAG_AT)?);
        let (born_host, store_at) =
            host(raw, layout::BORN_HOST_AT, sys_flag & SYS_BORN_HOST_V6 != 0)?;
        let (store_host, tail_at) = host(raw, store_at + 8, sys_flag & SYS_STORE_HOST_V6 != 0)?;

        let body_at = tail_at + 16;
        let body_len = i32::from_be_bytes(array(raw, tail_at + 12)?);
        let body_len = usize::try_from(body_len).map_err(|_| BadRecord::Length)?;
        let topic_len_at = body_at.checked_add(body_len).ok_or(BadRecord::Length)?;
        let (topic_len, topic_at) = if v2 {
            let n = i16::from_be_bytes(array(raw, topic_len_at)?);
            let n = usize::try_from(n).map_err(|_| BadRecord::Length)?;
            (n, topic_len_at + 2)
        } else {
            let [n] = array(raw, topic_len_at)?;
            (usize::from(n), topic_len_at + 1)
        };
        let props_len_at = topic_at + topic_len;
        let topic = raw.get(topic_at..props_len_at).ok_or(BadRecord::Length)?;
        let topic = std::str::from_utf8(topic).map_err(|_| BadRecord::Topic)?;
        if topic.is_empty() {
            return Err(BadRecord::Topic);
        }
        let props_len = i16::from_be_bytes(array(raw, props_len_at)?);
        let props_len = usize::try_from(props_len).map_err(|_| BadRecord::Length)?;
        let props_at = props_len_at + 2;
        if props_at + props_len != len {
            return Err(BadRecord::Length);
        }
        Ok(RecordView {
            raw,
            born_host,
            store_host,
            store_at,
            tail_at,
            topic,
            body: (body_at, topic_len_at),
            properties: (props_at, len),
        })
    }

    fn i32_at(&self, at: usize) -> i32 {
        array(self.raw, at).map_or(0, i32::from_be_bytes)
    }

    fn i64_at(&self, at: usize) -> i64 {
        array(self.raw, at).map_or(0, i64::from_be_bytes)
    }

    /// The record's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// Length of the record.
    pub fn total_size(&self) -> usize {
        self.raw.len()
    }

    /// Whether the topic has a two-byte length (magic v2).
    pub fn is_v2(&self) -> bool {
        self.i32_at(layout::MAGIC_AT) as u32 == MAGIC_V2
    }

    /// Checksum of the body as stored in the record.
    pub fn body_crc(&self) -> u32 {
        self.i32_at(layout::BODY_CRC_AT) as u32
    }

    /// Queue id.
    pub fn queue_id(&self) -> i32 {
        self.i32_at(layout::QUEUE_ID_AT)
    }

    /// The user's flag.
    pub fn flag(&self) -> i32 {
        self.i32_at(layout::FLAG_AT)
    }

    /// Queue offset.
    pub fn queue_offset(&self) -> i64 {
        self.i64_at(layout::QUEUE_OFFSET_AT)
    }

    /// Physical offset.
    pub fn phys_offset(&self) -> i64 {
        self.i64_at(layout::PHYS_OFFSET_AT)
    }

    /// System flags.
    pub fn sys_flag(&self) -> i32 {
        self.i32_at(layout::SYS_FLAG_AT)
    }

    /// Producer's clock, ms.
    pub fn born_ts(&self) -> i64 {
        self.i64_at(layout::BORN_TIMESTAMP_AT)
    }

    /// Producer's address.
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// Broker's clock, ms.
    pub fn store_ts(&self) -> i64 {
        self.i64_at(self.store_at)
    }

    /// Broker's address.
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// How often consumption failed before.
    pub fn reconsume_times(&self) -> i32 {
        self.i32_at(self.tail_at)
    }

    /// Physical offset of the half message.
    pub fn prepared_txn_offset(&self) -> i64 {
        self.i64_at(self.tail_at + 4)
    }

    /// Body as stored.
    pub fn body(&self) -> &'a [u8] {
        &self.raw[self.body.0..self.body.1]
    }

    /// Topic name.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Encoded properties (see `properties`).
    pub fn properties(&self) -> &'a [u8] {
        &self.raw[self.properties.0..self.properties.1]
    }

    /// The value of one property.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        super::properties::get(self.properties(), name)
    }

    /// The record as input, to be stored again with changes (retry, delay, transactions).
    pub fn to_input(&self) -> RecordInput<'a> {
        RecordInput {
            topic: self.topic,
            body: self.body(),
            queue_id: self.queue_id(),
            flag: self.flag(),
            queue_offset: self.queue_offset(),
            phys_offset: self.phys_offset(),
            sys_flag: self.sys_flag(),
            born_ts: self.born_ts(),
            born_host: self.born_host,
            store_ts: self.store_ts(),
            store_host: self.store_host,
            reconsume_times: self.reconsume_times(),
            prepared_txn_offset: self.prepared_txn_offset(),
            properties: self.properties(),
        }
    }
}

impl std::fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordView")
            .field("topic", &self.topic)
            .field("queue_id", &self.queue_id())
            .field("queue_offset", &self.queue_offset())
            .field("phys_offset", &self.phys_offset())
            .field("body_len", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// Records one after the other, as in the body of a pull answer. Stops after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

/// Walks the concatenated records in `bytes`, checking each.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = RecordView::parse(self.rest);
        self.rest = match &parsed {
            Ok(view) => &self.rest[view.total_size()..],
            Err(_) => &[],
        };
        Some(parsed)
    }
}

/// Splits concatenated records into shared slices, without looking inside beyond their lengths.
pub fn split_records(mut bytes: Bytes) -> Result<Vec<Bytes>, BadRecord> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let len = layout::record_len(&bytes).ok_or(BadRecord::Length)?;
        out.push(bytes.split_to(len));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn input<'a>(topic: &'a str, properties: &'a [u8]) -> RecordInput<'a> {
        RecordInput {
            topic,
            body: b"body",
            queue_id: 1,
            flag: 2,
            queue_offset: 3,
            phys_offset: 4,
            sys_flag: SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6,
            born_ts: 5,
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_ts: 6,
            store_host: "127.0.0.1:2".parse().unwrap(),
            reconsume_times: 7,
            prepared_txn_offset: 8,
            properties,
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_written() {
        let mut out = BytesMut::new();
        let long = "t".repeat(32768);
        let props = vec![b'p'; 32768];
        assert_eq!(input("", b"").encode(&mut out), Err(RecordError::Topic(0)));
        let topic = input(&long, b"").encode(&mut out);
        assert_eq!(topic, Err(RecordError::Topic(32768)));
        let properties = input("t", &props).encode(&mut out);
        assert_eq!(properties, Err(RecordError::Properties(32768)));
        assert!(out.is_empty());
        assert!(input("t", &props[1..]).encode(&mut out).is_ok());
    }

    #[test]
    fn host_bits_come_from_the_addresses() {
        let mut out = BytesMut::new();
        let mapped = RecordInput {
            born_host: "[::ffff:10.0.0.1]:9".parse().unwrap(),
            ..input("t", b"")
        };
        mapped.encode(&mut out).unwrap();
        let view = RecordView::parse(&out).unwrap();
        assert_eq!(view.sys_flag(), 0);
        assert_eq!(view.born_host(), "10.0.0.1:9".parse().unwrap());
    }

    proptest! {
        #[test]
        fn encode_then_parse_is_the_same(
            topic in "[a-zA-Z%_-]{1,300}",
            body in prop::collection::vec(any::<u8>(), 0..200),
            numbers in any::<(i32, i32, i64, i64, i64, i64, i32, i64)>(),
            v6 in any::<(bool, bool)>(),
        ) {
            let host = |v6| if v6 { "[2001:db8::1]:65535" } else { "10.1.2.3:0" };
            let given = RecordInput {
                body: &body,
                queue_id: numbers.0,
                flag: numbers.1,
                queue_offset: numbers.2,
                phys_offset: numbers.3,
                born_ts: numbers.4,
                store_ts: numbers.5,
                reconsume_times: numbers.6,
                prepared_txn_offset: numbers.7,
                born_host: host(v6.0).parse().unwrap(),
                store_host: host(v6.1).parse().unwrap(),
                ..input(&topic, b"a\x01b\x02")
            };
            let mut out = BytesMut::new();
            prop_assert_eq!(given.encode(&mut out), Ok(given.encoded_len()));
            let back = RecordView::parse(&out).unwrap().to_input();
            prop_assert_eq!(back.sys_flag & SYS_BORN_HOST_V6 != 0, v6.0);
            prop_assert_eq!(back.sys_flag & SYS_STORE_HOST_V6 != 0, v6.1);
            let expected = RecordInput { sys_flag: back.sys_flag, ..given };
            prop_assert_eq!(format!("{back:?}"), format!("{expected:?}"));
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = RecordView::parse_unverified(&bytes);
            let _ = split_records(bytes.into());
        }
    }
}
