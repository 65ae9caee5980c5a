//! Writes frames straight into an output buffer.
//!
//! Responses are always JSON (every client reads it, also in answer to a binary request), compact,
//! with every ext value a string: Go refuses numbers there and C++ ignores other values.

use super::code;
use super::frame::HeaderFormat;
use super::header::{Language, FLAG_ONEWAY, FLAG_RESPONSE};
use bytes::{BufMut, BytesMut};

/// An ext value; always a string on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Val<'a> {
    /// Text, escaped as needed.
    Str(&'a str),
    /// A number, written in decimal.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
}

impl<'a> From<&'a str> for Val<'a> {
    fn from(v: &'a str) -> Self {
        Val::Str(v)
    }
}

impl<'a> From<&'a String> for Val<'a> {
    fn from(v: &'a String) -> Self {
        Val::Str(v)
    }
}

impl From<i64> for Val<'_> {
    fn from(v: i64) -> Self {
        Val::Int(v)
    }
}

impl From<i32> for Val<'_> {
    fn from(v: i32) -> Self {
        Val::Int(v.into())
    }
}

impl From<bool> for Val<'_> {
    fn from(v: bool) -> Self {
        Val::Bool(v)
    }
}

/// Ext fields to write, in this order.
pub type Ext<'a> = &'a [(&'a str, Val<'a>)];

/// Header of a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseHeader<'a> {
    /// Response code.
    pub code: i32,
    /// The request's opaque.
    pub opaque: i32,
    /// Text for people; what users see when the code is an error.
    pub remark: Option<&'a str>,
    /// The response's fields; `extFields` is left out when empty.
    pub ext: Ext<'a>,
}

/// Header of a request (broker to client, broker to name server, and our own client).
#[derive(Debug, Clone, Copy)]
pub struct RequestHeader<'a> {
    /// Request code.
    pub code: i32,
    /// Correlation id.
    pub opaque: i32,
    /// Set when no answer is wanted.
    pub oneway: bool,
    /// A note, rarely used.
    pub remark: Option<&'a str>,
    /// The request's fields; `extFields` is left out when empty.
    pub ext: Ext<'a>,
}

/// A frame's room for its lengths, filled in when the header and body sizes are known.
struct FrameStart(usize);

impl FrameStart {
    fn new(out: &mut BytesMut, format: HeaderFormat) -> Self {
        let at = out.len();
        out.put_u32(0);
        out.put_u32(u32::from(format.type_byte()) << 24);
        FrameStart(at)
    }

    fn finish(self, out: &mut BytesMut, body_len: usize) {
        let header = out.len() - self.0 - 8;
        let len = (4 + header + body_len) as u32;
        out[self.0..self.0 + 4].copy_from_slice(&len.to_be_bytes());
        out[self.0 + 5..self.0 + 8].copy_from_slice(&(header as u32).to_be_bytes()[1..]);
    }
}

fn put_int(out: &mut BytesMut, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn needs_escape(b: u8) -> bool {
    b < 0x20 || b == b'"' || b == b'\\'
}

/// No byte of it needs an escape. Looks at all of them, which is quicker than stopping early.
fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |odd, b| odd | needs_escape(b))
}

/// Writes `text` with JSON's escapes, without the quotes.
fn put_escaped(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    if is_plain(text) {
        return out.extend_from_slice(bytes);
    }
    let mut done = 0;
    for (i, b) in bytes.iter().enumerate() {
        if !needs_escape(*b) {
            continue;
        }
        out.extend_from_slice(&bytes[done..i]);
        done = i + 1;
        match *b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => {
                out.extend_from_slice(b"\\u00");
                out.put_u8(HEX[usize::from(b >> 4)]);
                out.put_u8(HEX[usize::from(b & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
}

/// `,"extFields":{` … `}` written field by field; nothing at all when no field is written.
struct ExtWriter<'a> {
    out: &'a mut BytesMut,
    open: bool,
}

impl<'a> ExtWriter<'a> {
    fn new(out: &'a mut BytesMut) -> Self {
        ExtWriter { out, open: false }
    }

    fn key(&mut self, key: &str) {
        let lead: &[u8] = if self.open {
            b",\""
        } else {
            b",\"extFields\":{\""
        };
        self.open = true;
        self.out.extend_from_slice(lead);
        put_escaped(self.out, key);
        self.out.extend_from_slice(b"\":\"");
    }

    fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        put_escaped(self.out, value);
        self.out.put_u8(b'"');
        self
    }

    fn int(&mut self, key: &str, value: i64) -> &mut Self {
        self.key(key);
        put_int(self.out, value);
        self.out.put_u8(b'"');
        self
    }

    fn val(&mut self, key: &str, value: &Val<'_>) -> &mut Self {
        match *value {
            Val::Str(v) => self.str(key, v),
            Val::Int(v) => self.int(key, v),
            Val::Bool(v) => self.str(key, if v { "true" } else { "false" }),
        }
    }

    fn end(&mut self) {
        if self.open {
            self.out.put_u8(b'}');
        }
    }
}

fn put_json_start(out: &mut BytesMut, code: i32, opaque: i32, flag: i32, remark: Option<&str>) {
    out.extend_from_slice(b"{\"code\":");
    put_int(out, code);
    out.extend_from_slice(b",\"flag\":");
    put_int(out, flag);
    out.extend_from_slice(b",\"language\":\"JAVA\",\"opaque\":");
    put_int(out, opaque);
    out.extend_from_slice(b",\"version\":");
    put_int(out, code::VERSION);
    if let Some(remark) = remark {
        out.extend_from_slice(b",\"remark\":\"");
        put_escaped(out, remark);
        out.put_u8(b'"');
    }
}

fn put_body(out: &mut BytesMut, body: &[&[u8]]) {
    for part in body {
        out.extend_from_slice(part);
    }
}

fn body_len(body: &[&[u8]]) -> usize {
    body.iter().map(|part| part.len()).sum()
}

/// Appends a whole response frame.
pub fn encode_response(out: &mut BytesMut, header: &ResponseHeader<'_>, body: &[&[u8]]) {
    let len = body_len(body);
    out.reserve(192 + len);
    encode_response_head(out, header, len);
    put_body(out, body);
}

/// Appends a response frame up to its body; the caller sends `body_len` more bytes (for bodies
/// that are written to the socket without a copy).
pub fn encode_response_head(out: &mut BytesMut, header: &ResponseHeader<'_>, body_len: usize) {
    let start = FrameStart::new(out, HeaderFormat::Json);
    put_json_start(
        out,
        header.code,
        header.opaque,
        FLAG_RESPONSE,
        header.remark,
    );
    let mut ext = ExtWriter::new(out);
    for (key, value) in header.ext {
        ext.val(key, value);
    }
    ext.end();
    out.put_u8(b'}');
    start.finish(out, body_len);
}

/// Appends a whole request frame.
pub fn encode_request(
    out: &mut BytesMut,
    format: HeaderFormat,
    header: &RequestHeader<'_>,
    body: &[&[u8]],
) {
    let len = body_len(body);
    out.reserve(192 + len);
    encode_request_head(out, format, header, len);
    put_body(out, body);
}

/// Appends a request frame up to its body; the caller sends `body_len` more bytes.
pub fn encode_request_head(
    out: &mut BytesMut,
    format: HeaderFormat,
    header: &RequestHeader<'_>,
    body_len: usize,
) {
    let flag = if header.oneway { FLAG_ONEWAY } else { 0 };
    let start = FrameStart::new(out, format);
    match format {
        HeaderFormat::Json => {
            put_json_start(out, header.code, header.opaque, flag, header.remark);
            let mut ext = ExtWriter::new(out);
            for (key, value) in header.ext {
                ext.val(key, value);
            }
            ext.end();
            out.put_u8(b'}');
        }
        HeaderFormat::Binary => put_binary(out, header, flag),
    }
    start.finish(out, body_len);
}

/// The binary header; codes above 16 bits are cut, as every client does.
fn put_binary(out: &mut BytesMut, header: &RequestHeader<'_>, flag: i32) {
    out.put_i16(header.code as i16);
    out.put_u8(Language::JAVA.0);
    out.put_i16(code::VERSION as i16);
    out.put_i32(header.opaque);
    out.put_i32(flag);
    let remark = header.remark.unwrap_or("");
    out.put_i32(remark.len() as i32);
    out.extend_from_slice(remark.as_bytes());
    let len_at = out.len();
    out.put_i32(0);
    for (key, value) in header.ext {
        out.put_i16(key.len() as i16);
        out.extend_from_slice(key.as_bytes());
        let mut digits = itoa::Buffer::new();
        let text = match *value {
            Val::Str(v) => v,
            Val::Int(v) => digits.format(v),
            Val::Bool(v) => {
                if v {
                    "true"
                } else {
                    "false"
                }
            }
        };
        out.put_i32(text.len() as i32);
        out.extend_from_slice(text.as_bytes());
    }
    let len = (out.len() - len_at - 4) as i32;
    out[len_at..len_at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Fields of the answer to a send (codes 10, 310, 320). Clients need the first three on codes 0,
/// 10, 11 and 12.
#[derive(Debug, Clone, Copy)]
pub struct SendReply<'a> {
    /// Offset message id, or the ids of a batch joined by commas.
    pub msg_id: &'a str,
    /// The queue the message went to.
    pub queue_id: i32,
    /// Queue offset, the first one of a batch.
    pub queue_offset: i64,
    /// The message's UNIQ_KEY.
    pub transaction_id: Option<&'a str>,
    /// Handle to recall a timer message.
    pub recall_handle: Option<&'a str>,
    /// `DefaultRegion` unless configured.
    pub region: &'a str,
    /// Whether clients should write traces for this message.
    pub trace_on: bool,
}

/// Appends the frame that answers a send; it has no body.
pub fn encode_send_response(
    out: &mut BytesMut,
    code: i32,
    opaque: i32,
    remark: Option<&str>,
    reply: &SendReply<'_>,
) {
    out.reserve(320 + reply.msg_id.len());
    let start = FrameStart::new(out, HeaderFormat::Json);
    put_json_start(out, code, opaque, FLAG_RESPONSE, remark);
    let mut ext = ExtWriter::new(out);
    ext.str("msgId", reply.msg_id)
        .int("queueId", reply.queue_id.into())
        .int("queueOffset", reply.queue_offset);
    if let Some(id) = reply.transaction_id {
        ext.str("transactionId", id);
    }
    if let Some(handle) = reply.recall_handle {
        ext.str("recallHandle", handle);
    }
    ext.str("MSG_REGION", reply.region)
        .val("TRACE_ON", &Val::Bool(reply.trace_on))
        .end();
    out.put_u8(b'}');
    start.finish(out, 0);
}

/// Fields of the answer to a pull; all four are required on codes 0, 19, 20 and 21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullReply {
    /// Broker id to pull from next; 0 unless reads from followers are wanted.
    pub suggest_which_broker_id: i64,
    /// Where the client's next pull starts.
    pub next_begin_offset: i64,
    /// Smallest offset the queue holds.
    pub min_offset: i64,
    /// Offset the next message will get.
    pub max_offset: i64,
}

/// Appends the frame that answers a pull, up to its body of `body_len` bytes (records one after
/// the other), which the caller sends or appends.
pub fn encode_pull_head(
    out: &mut BytesMut,
    code: i32,
    opaque: i32,
    remark: Option<&str>,
    reply: &PullReply,
    body_len: usize,
) {
    let start = FrameStart::new(out, HeaderFormat::Json);
    put_json_start(out, code, opaque, FLAG_RESPONSE, remark);
    ExtWriter::new(out)
        .int("suggestWhichBrokerId", reply.suggest_which_broker_id)
        .int("nextBeginOffset", reply.next_begin_offset)
        .int("minOffset", reply.min_offset)
        .int("maxOffset", reply.max_offset)
        .end();
    out.put_u8(b'}');
    start.finish(out, body_len);
}

/// Appends the whole frame that answers a pull.
pub fn encode_pull_response(
    out: &mut BytesMut,
    code: i32,
    opaque: i32,
    remark: Option<&str>,
    reply: &PullReply,
    body: &[&[u8]],
) {
    let len = body_len(body);
    out.reserve(256 + len);
    encode_pull_head(out, code, opaque, remark, reply, len);
    put_body(out, body);
}
