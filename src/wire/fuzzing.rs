//! Entry points of the fuzz targets, shared by `fuzz/` (libFuzzer) and by the seeded mutation
//! test over the same corpus, which needs no nightly compiler.
//!
//! Each takes arbitrary bytes and panics only when the decoder under it breaks a promise.

use super::message::{batch, properties, record, tags};
use super::remoting::body::{self, Heartbeat, RegisterBrokerBody};
use super::remoting::requests::{PullRequest, SendRequest};
use super::remoting::{
    binary_header, encode_request, json_header, split_frame, Command, FrameLimits, HeaderFormat,
    RequestHeader, Val,
};
use bytes::{Bytes, BytesMut};

/// A target: its name (also its corpus directory) and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("frame_splitter", frame_splitter),
    ("header_json", header_json),
    ("header_binary", header_binary),
    ("batch_body", batch_body),
    ("record_decoder", record_decoder),
    ("json_bodies", json_bodies),
];

/// Splits the bytes into frames, at once and in small chunks, with the same result.
pub fn frame_splitter(data: &[u8]) {
    let limits = FrameLimits {
        max_frame: 64 * 1024,
        ..FrameLimits::default()
    };
    let whole = split_all(data, data.len().max(1), &limits);
    let chunked = split_all(data, 7, &limits);
    assert_eq!(whole, chunked, "frames depend on the chunks");
}

fn split_all(data: &[u8], chunk: usize, limits: &FrameLimits) -> (Vec<(Bytes, Bytes)>, bool) {
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in data.chunks(chunk) {
        buf.extend_from_slice(piece);
        loop {
            match split_frame(&mut buf, limits) {
                Ok(Some(frame)) => {
                    let parts = (frame.header.clone(), frame.body.clone());
                    let _ = Command::decode(frame);
                    frames.push(parts);
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// Decodes a JSON header; what decodes must survive being written and read again.
pub fn header_json(data: &[u8]) {
    if let Ok(command) = json_header::decode(Bytes::copy_from_slice(data)) {
        check_command(&command);
        write_and_read(&command, HeaderFormat::Json);
    }
}

/// Decodes a binary header; what decodes must survive being written and read again.
pub fn header_binary(data: &[u8]) {
    if let Ok(command) = binary_header::decode(&Bytes::copy_from_slice(data)) {
        check_command(&command);
        write_and_read(&command, HeaderFormat::Binary);
    }
}

fn check_command(command: &Command) {
    for (key, value) in command.ext.iter() {
        let last = command.ext.get(key);
        assert!(last.is_some(), "a listed key is not found");
        assert_eq!(command.ext.get_shared(key).as_deref(), last);
        let _ = properties::check(value.as_bytes(), properties::MAX_SENT);
    }
    let _ = SendRequest::parse(command);
    let _ = PullRequest::parse(command);
}

fn write_and_read(command: &Command, format: HeaderFormat) {
    let ext: Vec<_> = command.ext.iter().map(|(k, v)| (k, Val::Str(v))).collect();
    let header = RequestHeader {
        code: command.code,
        opaque: command.opaque,
        oneway: command.is_oneway(),
        remark: command.remark.as_deref(),
        ext: &ext,
    };
    let mut out = BytesMut::new();
    encode_request(&mut out, format, &header, &[b"body"]);
    // Escapes may make a header longer than it came.
    let limits = FrameLimits {
        max_frame: usize::MAX,
        max_header: usize::MAX,
    };
    let Ok(Some(frame)) = split_frame(&mut out, &limits) else {
        panic!("an encoded frame does not split");
    };
    assert!(out.is_empty());
    match Command::decode(frame) {
        Ok(again) => {
            if format == HeaderFormat::Json {
                assert_eq!(again.code, command.code);
            }
            assert_eq!(again.opaque, command.opaque);
            assert_eq!(again.is_oneway(), command.is_oneway());
            assert!(again.ext.iter().eq(command.ext.iter()), "ext fields differ");
            assert_eq!(again.remark, command.remark);
            assert_eq!(&again.body[..], b"body");
        }
        // Our own keys (code, flag …) count towards the limit too.
        Err(e) => assert!(
            command.ext.len() > 200,
            "an encoded frame does not decode: {e}"
        ),
    }
}

/// Reads a batch; what reads must fill the body exactly when written again.
pub fn batch_body(data: &[u8]) {
    if let Ok(entries) = batch::parse(data, &batch::BatchLimits::default()) {
        let mut out = BytesMut::new();
        for entry in &entries {
            let put = batch::put_entry(&mut out, entry);
            assert!(put.is_ok(), "a parsed entry cannot be written");
        }
        assert_eq!(out.len(), data.len());
        let again = batch::parse(&out, &batch::BatchLimits::default());
        assert_eq!(again.as_ref(), Ok(&entries));
    }
}

/// Reads concatenated records; what reads must come out the same when written again.
pub fn record_decoder(data: &[u8]) {
    for view in record::records(data).map_while(Result::ok) {
        let _ = view.property(properties::names::TAGS).map(tags::tag_code);
        for (name, value) in properties::iter(view.properties()) {
            assert!(!name.is_empty() && !value.is_empty());
            assert!(properties::get(view.properties(), name).is_some());
        }
        let mut out = BytesMut::new();
        if view.to_input().encode(&mut out).is_ok() {
            let again = record::RecordView::parse(&out);
            assert!(again.is_ok_and(|a| a.body() == view.body() && a.topic() == view.topic()));
        }
    }
    let _ = record::RecordView::parse_unverified(data);
}

/// Reads the JSON bodies a stranger may send.
pub fn json_bodies(data: &[u8]) {
    let _ = Heartbeat::parse(data);
    let _ = RegisterBrokerBody::parse(data, 0, 513);
    let _ = body::decode::<body::LockRequest>(data);
    let _ = body::decode::<body::ResetOffsetBody>(data);
    if let Ok(standard) = body::dialect::to_standard(data) {
        // Rewriting is done after one pass.
        let again = body::dialect::to_standard(&standard);
        assert_eq!(again.as_ref(), Ok(&standard));
    }
}
