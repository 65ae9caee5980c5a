//! REGISTER_BROKER (103): the plain and the compressed form.

use super::config::{DataVersion, TopicConfig, TopicConfigWrapper, TopicQueueMappingInfo};
use super::{decode, encode, lenient, BodyError};
use crate::wire::message::crc::body_crc;
use crate::wire::remoting::code::VERSION_5_0_0;
use flate2::write::ZlibEncoder;
use flate2::Compression;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// Largest inflated body in bytes (about 150,000 topics).
pub const MAX_INFLATED: usize = 16 * 1024 * 1024;
/// Most topics in one registration.
pub const MAX_TOPICS: usize = 200_000;

/// What a broker registers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Obsolete.
    #[serde(deserialize_with = "lenient::nullable")]
    pub filter_server_list: Vec<String>,
    /// Topics and their version.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic_config_serialize_wrapper: TopicConfigWrapper,
}

impl RegisterBrokerBody {
    /// Reads the body of 103 in either form. Stock 5.x brokers say `compressed=false` with a
    /// compressed body, so the form is told by the bytes. `crc` is the header's `bodyCrc32` (0 is
    /// not checked), `version` the frame's. No body means version zero and no topics.
    pub fn parse(body: &[u8], crc: i32, version: i32) -> Result<Self, BodyError> {
        if crc != 0 && body_crc(body) as i32 != crc {
            return Err(BodyError::Crc);
        }
        if body.is_empty() {
            return Ok(RegisterBrokerBody::default());
        }
        if is_zlib(body) {
            return parse_inflated(&inflate(body)?, version);
        }
        let parsed: RegisterBrokerBody = decode(body)?;
        let topics = &parsed.topic_config_serialize_wrapper.topic_config_table;
        if topics.len() > MAX_TOPICS {
            return Err(BodyError::Limit("200000 topics"));
        }
        Ok(parsed)
    }
}

impl RegisterBrokerBody {
    /// The compressed form for a frame of this version, which stock name servers read too. It is
    /// about a tenth of the plain one, and has no room for `order` and `topicSysFlag`.
    ///
    /// # Errors
    /// Never in practice: it is written to memory.
    pub fn compressed(&self, version: i32) -> std::io::Result<Vec<u8>> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let out = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut out = BlockWriter(out);
        out.block(&encode(&wrapper.data_version))?;
        out.int(wrapper.topic_config_table.len())?;
        for topic in wrapper.topic_config_table.values() {
            let text = format!(
                "{} {} {} {} {} ",
                topic.topic_name,
                topic.read_queue_nums,
                topic.write_queue_nums,
                topic.perm,
                topic.topic_filter_type,
            );
            let mut text = text.into_bytes();
            text.extend(encode(&topic.attributes));
            out.block(&text)?;
        }
        out.block(&encode(&self.filter_server_list))?;
        if version >= VERSION_5_0_0 {
            out.int(wrapper.topic_queue_mapping_info_map.len())?;
            for info in wrapper.topic_queue_mapping_info_map.values() {
                out.block(&encode(info))?;
            }
        }
        out.0.finish()
    }
}

/// Blocks with their length before them.
struct BlockWriter(ZlibEncoder<Vec<u8>>);

impl BlockWriter {
    fn int(&mut self, n: usize) -> std::io::Result<()> {
        let n = i32::try_from(n).unwrap_or(i32::MAX);
        self.0.write_all(&n.to_be_bytes())
    }

    fn block(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.int(bytes.len())?;
        self.0.write_all(bytes)
    }
}

/// A zlib stream: deflate with a 32 KiB window, and the header's own check.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [0x78, flg, ..] if (0x7800 | u32::from(*flg)) % 31 == 0)
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(body)
        .take(MAX_INFLATED as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| BodyError::Compressed("not a zlib stream"))?;
    if out.len() > MAX_INFLATED {
        return Err(BodyError::Limit("16 MiB inflated"));
    }
    Ok(out)
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn int(&mut self) -> Result<usize, BodyError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<4>()
            .ok_or(BodyError::Compressed("too short"))?;
        self.0 = rest;
        usize::try_from(i32::from_be_bytes(*head))
            .map_err(|_| BodyError::Compressed("negative length"))
    }

    fn block(&mut self) -> Result<&'a [u8], BodyError> {
        let len = self.int()?;
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(BodyError::Compressed("a length exceeds the body"))?;
        self.0 = rest;
        Ok(head)
    }
}

fn parse_inflated(bytes: &[u8], version: i32) -> Result<RegisterBrokerBody, BodyError> {
    let mut parts = Parts(bytes);
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = decode::<DataVersion>(parts.block()?)?;
    let topics = parts.int()?;
    if topics > MAX_TOPICS {
        return Err(BodyError::Limit("200000 topics"));
    }
    for _ in 0..topics {
        let topic = std::str::from_utf8(parts.block()?)
            .ok()
            .and_then(parse_topic);
        let topic = topic.ok_or(BodyError::Compressed("bad topic text"))?;
        let name = topic.topic_name.clone();
        wrapper.topic_config_table.insert(name, topic);
    }
    let servers = parts.block()?;
    if !servers.is_empty() {
        body.filter_server_list = decode::<Option<Vec<String>>>(servers)?.unwrap_or_default();
    }
    if version >= VERSION_5_0_0 && !parts.0.is_empty() {
        let mappings = parts.int()?;
        if mappings > MAX_TOPICS {
            return Err(BodyError::Limit("200000 topics"));
        }
        for _ in 0..mappings {
            let info: TopicQueueMappingInfo = decode(parts.block()?)?;
            let map = &mut wrapper.topic_queue_mapping_info_map;
            map.insert(info.topic.clone(), info);
        }
    }
    Ok(body)
}

/// `name read write perm filterType {attributes}`, single blanks; 4.x has no attributes.
fn parse_topic(text: &str) -> Option<TopicConfig> {
    let mut parts = text.splitn(6, ' ');
    let name = parts.next().filter(|n| !n.is_empty())?;
    let read = parts.next()?.parse().ok()?;
    let write = parts.next()?.parse().ok()?;
    let perm = parts.next()?.parse().ok()?;
    let mut topic = TopicConfig::new(name, read, write, perm);
    topic.topic_filter_type = parts.next()?.to_owned();
    match parts.next() {
        None | Some("" | "null") => {}
        Some(attributes) => topic.attributes = decode(attributes.as_bytes()).ok()?,
    }
    Some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut z = ZlibEncoder::new(Vec::new(), Compression::best());
        z.write_all(bytes).unwrap();
        z.finish().unwrap()
    }

    #[test]
    fn a_zip_bomb_is_refused() {
        let bomb = zlib(&vec![0; MAX_INFLATED + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(
            RegisterBrokerBody::parse(&bomb, 0, 513),
            Err(BodyError::Limit("16 MiB inflated"))
        );
    }

    #[test]
    fn the_compressed_form_comes_back_and_is_small() {
        let mut body = RegisterBrokerBody::default();
        let wrapper = &mut body.topic_config_serialize_wrapper;
        wrapper.data_version.counter = 7;
        for n in 0..100_000 {
            let name = format!("topic-{n}");
            let mut topic = TopicConfig::new(name.as_str(), 8, 4, 6);
            if n == 0 {
                let attributes = &mut topic.attributes;
                attributes.insert("message.type".into(), "FI FO".into());
            }
            wrapper.topic_config_table.insert(name, topic);
        }
        for version in [401, 513] {
            let packed = body.compressed(version).unwrap();
            assert!(packed.len() < 2 * 1024 * 1024, "{}", packed.len());
            let crc = body_crc(&packed) as i32;
            assert!(crc >= 0);
            let parsed = RegisterBrokerBody::parse(&packed, crc, version).unwrap();
            assert_eq!(parsed, body);
        }
    }

    #[test]
    fn lying_counts_and_lengths_are_refused() {
        let version: &[u8] = b"\0\0\0\x02{}";
        let cases = [
            b"".to_vec(),
            b"\0\0\0\x09{}".to_vec(),
            b"\xff\xff\xff\xff".to_vec(),
            [version, &[0x7f, 0xff, 0xff, 0xff]].concat(),
            [version, &[0, 0, 0, 1], &[0, 0, 0, 3], b"a 1"].concat(),
            [version, &[0, 0, 0, 2]].concat(),
        ];
        for case in cases {
            let parsed = RegisterBrokerBody::parse(&zlib(&case), 0, 513);
            assert!(parsed.is_err(), "{case:?}");
        }
        assert!(RegisterBrokerBody::parse(&[0x78, 0xda, 1, 2, 3], 0, 513).is_err());
        assert!(RegisterBrokerBody::parse(b"nonsense", 0, 513).is_err());
        assert_eq!(
            RegisterBrokerBody::parse(b"{}", 5, 513),
            Err(BodyError::Crc)
        );
        let empty = RegisterBrokerBody::default();
        assert_eq!(RegisterBrokerBody::parse(b"", 0, 513), Ok(empty));
    }

    #[test]
    fn a_broker_with_mappings_in_javas_dialect() {
        let body = br#"{"topicConfigSerializeWrapper":{"topicConfigTable":{"S":{"topicName":"S"}},
            "topicQueueMappingInfoMap":{"S":{"bname":"b","currIdMap":{0:0},"topic":"S"}},
            "topicQueueMappingDetailMap":{"S":{"hostedQueues":{0:[{"gen":0}]}}}}}"#;
        let parsed = RegisterBrokerBody::parse(body, 0, 513).unwrap();
        let wrapper = parsed.topic_config_serialize_wrapper;
        assert_eq!(wrapper.topic_config_table["S"].read_queue_nums, 16);
        assert_eq!(wrapper.topic_queue_mapping_info_map["S"].curr_id_map[&0], 0);
    }
}
