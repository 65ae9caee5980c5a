//! Requests prepared once per queue and patched per message.
//!
//! JSON headers have the keys, the order and the spacing of a Java 5.5.0 client. The numbers that
//! change have a fixed width: opaques start at a thousand millions, times have 13 digits.

use super::body::{Bodies, BodyId};
use crate::wire::remoting::code::{request, VERSION};
use crate::wire::remoting::{encode_request_head, HeaderFormat, RequestHeader, Val};
use bytes::{BufMut, BytesMut};

/// The smallest opaque; all have ten digits.
pub(super) const FIRST_OPAQUE: i32 = 1_000_000_000;
/// Digits of a UNIQ_KEY that change: time of the month and counter, 12 of 32.
const KEY_LEN: usize = 32;
const KEY_FIXED: usize = 20;
const MARK_TIME: &str = "#############";
const MARK_KEY: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";
const BATCH_ENTRY: usize = 20;

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// How headers are written.
    pub format: HeaderFormat,
    /// 10 (long names) or 310; batches are always 320.
    pub code: i32,
    /// Producer group.
    pub group: String,
    /// Messages in a request; above 1 they are a batch.
    pub batch: u32,
}

/// The queue that a request goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Broker name.
    pub broker: &'a str,
    /// Queue id.
    pub queue: i32,
}

/// A send request to one queue, complete but for what changes with each message.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Box<[u8]>,
    opaque_at: usize,
    time_at: usize,
    key_at: usize,
    format: HeaderFormat,
    batch: bool,
}

/// What changes with each message: time of birth and unique key.
#[derive(Debug)]
pub(super) struct Stamp {
    time: [u8; 13],
    key: [u8; KEY_LEN],
    counter: u16,
}

impl Stamp {
    /// Keys of this process. `salt` tells runs apart.
    pub(super) fn new(salt: u32) -> Self {
        let mut key = [b'0'; KEY_LEN];
        hex(&mut key[..8], 0x7F00_0001);
        hex(&mut key[8..12], u64::from(std::process::id() & 0xFFFF));
        hex(&mut key[12..KEY_FIXED], u64::from(salt));
        Self {
            time: [b'0'; 13],
            key,
            counter: 0,
        }
    }

    /// Sets the time of the messages to come, milliseconds since 1970.
    pub(super) fn set_time(&mut self, unix_ms: u64) {
        let mut left = unix_ms;
        for digit in self.time.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        hex(&mut self.key[KEY_FIXED..28], unix_ms & 0xFFFF_FFFF);
    }

    fn next_key(&mut self) -> &[u8; KEY_LEN] {
        self.counter = self.counter.wrapping_add(1);
        hex(&mut self.key[28..], u64::from(self.counter));
        &self.key
    }
}

fn hex(out: &mut [u8], value: u64) {
    let mut left = value;
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(left & 15) as usize];
        left >>= 4;
    }
}

impl Template {
    /// Prepares the request of `form` to `place`.
    pub(super) fn new(form: &Form, place: Place<'_>) -> Self {
        let batch = form.batch > 1;
        let code = if batch {
            request::SEND_BATCH_MESSAGE
        } else {
            form.code
        };
        let properties = format!("UNIQ_KEY\u{1}{MARK_KEY}\u{2}WAIT\u{1}true\u{2}");
        let queue = place.queue.to_string();
        let long = code == request::SEND_MESSAGE;
        let name = |long_name: &'static str, short: &'static str| match long {
            true => long_name,
            false => short,
        };
        let mut ext = vec![
            (name("producerGroup", "a"), form.group.as_str()),
            (name("topic", "b"), place.topic),
            (name("defaultTopic", "c"), "TBW102"),
            (name("defaultTopicQueueNums", "d"), "4"),
            (name("queueId", "e"), &queue),
            (name("sysFlag", "f"), "0"),
            (name("bornTimestamp", "g"), MARK_TIME),
            (name("flag", "h"), "0"),
            (name("properties", "i"), &properties),
            (name("reconsumeTimes", "j"), "0"),
            (name("unitMode", "k"), "false"),
            (name("batch", "m"), if batch { "true" } else { "false" }),
        ];
        if !long {
            ext.push(("n", place.broker));
        }
        let mut bytes = BytesMut::new();
        match form.format {
            HeaderFormat::Json => put_json(&mut bytes, code, &ext),
            HeaderFormat::Binary => {
                let ext: Vec<(&str, Val<'_>)> =
                    ext.iter().map(|(k, v)| (*k, Val::Str(v))).collect();
                let header = RequestHeader {
                    code,
                    opaque: FIRST_OPAQUE,
                    oneway: false,
                    remark: None,
                    ext: &ext,
                };
                encode_request_head(&mut bytes, HeaderFormat::Binary, &header, 0);
            }
        }
        let find = |what: &[u8]| memchr::memmem::find(&bytes, what).unwrap_or(0);
        let opaque_at = match form.format {
            HeaderFormat::Json => find(b"\"opaque\":1000000000") + 9,
            HeaderFormat::Binary => 8 + 5,
        };
        Self {
            opaque_at,
            time_at: find(MARK_TIME.as_bytes()),
            key_at: find(MARK_KEY.as_bytes()),
            bytes: bytes.to_vec().into_boxed_slice(),
            format: form.format,
            batch,
        }
    }

    /// Appends a request with bodies `first` and, in a batch, those that follow it.
    pub(super) fn put(
        &self,
        out: &mut BytesMut,
        opaque: i32,
        stamp: &mut Stamp,
        bodies: &Bodies,
        (first, count): (BodyId, u32),
    ) {
        let entry = BATCH_ENTRY + bodies.size() + 2 + PROPERTIES_LEN;
        let body = match self.batch {
            true => entry * count as usize,
            false => bodies.size(),
        };
        out.reserve(self.bytes.len() + body);
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        let head = &mut out[at..];
        let len = (self.bytes.len() - 4 + body) as u32;
        head[..4].copy_from_slice(&len.to_be_bytes());
        match self.format {
            HeaderFormat::Json => {
                let digits = &mut head[self.opaque_at..self.opaque_at + 10];
                let mut left = opaque;
                for digit in digits.iter_mut().rev() {
                    *digit = b'0' + (left % 10) as u8;
                    left /= 10;
                }
            }
            HeaderFormat::Binary => {
                head[self.opaque_at..self.opaque_at + 4].copy_from_slice(&opaque.to_be_bytes());
            }
        }
        head[self.time_at..self.time_at + 13].copy_from_slice(&stamp.time);
        head[self.key_at..self.key_at + KEY_LEN].copy_from_slice(stamp.next_key());
        if !self.batch {
            bodies.put(out, &first);
            return;
        }
        for n in 0..count {
            out.put_u32(entry as u32);
            out.put_u64(0);
            out.put_u32(0);
            out.put_u32(bodies.size() as u32);
            let id = BodyId {
                seq: first.seq + u64::from(n),
                ..first
            };
            bodies.put(out, &id);
            out.put_u16(PROPERTIES_LEN as u16);
            out.extend_from_slice(b"UNIQ_KEY\x01");
            out.extend_from_slice(stamp.next_key());
            out.extend_from_slice(b"\x02WAIT\x01true\x02");
        }
    }
}

const PROPERTIES_LEN: usize = 9 + KEY_LEN + 11;

/// A frame with a JSON header in a Java client's form and no body.
pub(super) fn put_json(out: &mut BytesMut, code: i32, ext: &[(&str, &str)]) {
    let text = |t: &str| serde_json::Value::from(t).to_string();
    let fields: Vec<String> = ext
        .iter()
        .map(|(k, v)| format!("{}:{}", text(k), text(v)))
        .collect();
    let header = format!(
        "{{\"code\":{code},\"extFields\":{{{}}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{FIRST_OPAQUE},\
         \"serializeTypeCurrentRPC\":\"JSON\",\"version\":{VERSION}}}",
        fields.join(",")
    );
    out.put_u32(4 + header.len() as u32);
    out.put_u32(header.len() as u32);
    out.extend_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::body;
    use crate::wire::message::{batch, properties};
    use crate::wire::remoting::{split_frame, Command, FrameLimits};

    const PLACE: Place<'static> = Place {
        topic: "%RETRY%T",
        broker: "broker \"a\"",
        queue: 1_234,
    };

    fn form(format: HeaderFormat, code: i32, batch: u32) -> Form {
        let group = "PG".to_owned();
        Form {
            format,
            code,
            group,
            batch,
        }
    }

    fn id(seq: u64) -> BodyId {
        BodyId {
            run: 1,
            connection: 2,
            attempt: 0,
            seq,
            due: 3,
            queue: 1_234,
            topic: 4,
        }
    }

    fn decoded(template: &Template, count: u32, frames: usize) -> Vec<Command> {
        let mut stamp = Stamp::new(0xABCD_EF01);
        stamp.set_time(1_795_247_970_948);
        let mut out = BytesMut::new();
        for n in 0..frames {
            let opaque = FIRST_OPAQUE + 7 + n as i32;
            template.put(
                &mut out,
                opaque,
                &mut stamp,
                &Bodies::new(64),
                (id(9), count),
            );
        }
        let mut found = Vec::new();
        while let Some(f) = split_frame(&mut out, &FrameLimits::default()).unwrap() {
            found.push(Command::decode(f).unwrap());
        }
        assert!(out.is_empty());
        found
    }

    #[test]
    fn single_messages_decode_in_both_forms() {
        for format in [HeaderFormat::Json, HeaderFormat::Binary] {
            for (code, topic, time, text) in [
                (310, "b", "g", "i"),
                (10, "topic", "bornTimestamp", "properties"),
            ] {
                let template = Template::new(&form(format, code, 1), PLACE);
                let commands = decoded(&template, 1, 2);
                assert_eq!(commands.len(), 2);
                for (n, command) in commands.iter().enumerate() {
                    assert_eq!(command.code, code);
                    assert_eq!(command.opaque, FIRST_OPAQUE + 7 + n as i32);
                    assert_eq!(command.ext(topic), Some("%RETRY%T"));
                    assert_eq!(command.ext(time), Some("1795247970948"));
                    let text = command.ext(text).unwrap().as_bytes();
                    let key = properties::get(text, "UNIQ_KEY").unwrap();
                    assert_eq!((key.len(), &key[..8]), (32, "7F000001"));
                    assert!(key.ends_with(&format!("000{}", n + 1)), "{key}");
                    assert_eq!(properties::get(text, "WAIT"), Some("true"));
                    assert_eq!(body::check(&command.body), Ok(id(9)));
                }
                let queue = if code == 310 { "e" } else { "queueId" };
                assert_eq!(commands[0].req_i32(queue).unwrap(), 1_234);
                if code == 310 {
                    assert_eq!(commands[0].ext("n"), Some("broker \"a\""));
                }
            }
        }
    }

    #[test]
    fn batches_decode_in_both_forms() {
        for format in [HeaderFormat::Json, HeaderFormat::Binary] {
            let template = Template::new(&form(format, 310, 16), PLACE);
            for count in [16, 3] {
                let command = decoded(&template, count, 1).remove(0);
                assert_eq!((command.code, command.ext("m")), (320, Some("true")));
                let limits = batch::BatchLimits::default();
                let entries = batch::parse(&command.body, &limits).unwrap();
                assert_eq!(entries.len(), count as usize);
                for (n, entry) in entries.iter().enumerate() {
                    assert_eq!(body::check(entry.body), Ok(id(9 + n as u64)));
                    assert!(properties::get(entry.properties, "UNIQ_KEY").is_some());
                }
            }
        }
    }

    #[test]
    fn the_json_form_is_a_java_clients() {
        let place = Place {
            topic: "TopicTest",
            broker: "broker-a",
            queue: 3,
        };
        let template = Template::new(&form(HeaderFormat::Json, 310, 1), place);
        let text = String::from_utf8_lossy(&template.bytes[8..]);
        assert_eq!(
            text,
            "{\"code\":310,\"extFields\":{\"a\":\"PG\",\"b\":\"TopicTest\",\"c\":\"TBW102\",\"d\":\"4\",\
             \"e\":\"3\",\"f\":\"0\",\"g\":\"#############\",\"h\":\"0\",\"i\":\"UNIQ_KEY\\u0001\
             @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\\u0002WAIT\\u0001true\\u0002\",\"j\":\"0\",\"k\":\"false\",\
             \"m\":\"false\",\"n\":\"broker-a\"},\"flag\":0,\"language\":\"JAVA\",\"opaque\":1000000000,\
             \"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}"
        );
    }
}
