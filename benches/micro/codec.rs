//! Frames, headers and records. One element is one message.

use crate::sample;
use bytes::{BufMut, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use troupemq::model::record::patch;
use troupemq::wire::message::properties;
use troupemq::wire::message::record::RecordView;
use troupemq::wire::message::tags::tag_code;
use troupemq::wire::remoting::requests::SendRequest;
use troupemq::wire::remoting::{
    encode_pull_head, encode_send_response, split_frame, Command, FrameLimits, PullReply, RawFrame,
    SendReply,
};

/// Frames in one read of a socket.
const BURST: u64 = 64;

fn raw(bytes: &[u8]) -> RawFrame {
    let mut buf = BytesMut::from(bytes);
    let frame = split_frame(&mut buf, &FrameLimits::default());
    frame.expect("a frame").expect("a whole frame")
}

/// The frame of a real client with its body made 1 KiB long.
fn frame_of_1k(vector: &[u8]) -> Vec<u8> {
    let frame = raw(vector);
    let kind = u32::from(frame.serialize.type_byte()) << 24;
    let mut out = Vec::new();
    out.put_u32((4 + frame.header.len() + sample::BODY.len()) as u32);
    out.put_u32(kind | frame.header.len() as u32);
    out.extend_from_slice(&frame.header);
    out.extend_from_slice(&sample::BODY);
    out
}

pub fn benches(c: &mut Criterion) {
    frames(c);
    headers(c);
    answers(c);
    records(c);
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/frames");
    let sent = sample::vector(
        "remoting-client-frames.json",
        "captured_java_client_5_5_0_send_v2",
    );
    let socket = frame_of_1k(&sent).repeat(BURST as usize);
    let limits = FrameLimits::default();
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("split 64 of 1 KiB", |b| {
        b.iter_batched_ref(
            || BytesMut::from(&socket[..]),
            |buf| {
                let mut seen = 0;
                while let Some(frame) = split_frame(buf, &limits).expect("frames") {
                    seen += 1;
                    black_box(frame);
                }
                assert_eq!(seen, BURST);
            },
            BatchSize::LargeInput,
        )
    });
    group.finish();
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/send header");
    group.throughput(Throughput::Elements(1));
    for (name, file, vector) in [
        (
            "JSON, Java 5.5.0",
            "remoting-client-frames.json",
            "captured_java_client_5_5_0_send_v2",
        ),
        ("JSON", "remoting-frames.json", "json_request_send_v2"),
        ("binary", "remoting-frames.json", "binary_request_send_v2"),
    ] {
        let frame = raw(&sample::vector(file, vector));
        group.bench_function(name, |b| {
            b.iter(|| {
                let command = Command::decode(black_box(frame.clone())).expect("a header");
                let send = SendRequest::parse(&command).expect("a send");
                black_box((send.queue_id, send.topic.len(), send.properties.len()));
            })
        });
    }
    group.bench_function("properties check and tag", |b| {
        b.iter(|| {
            let p = black_box(sample::PROPERTIES);
            properties::check(p, properties::MAX_SENT).expect("properties");
            properties::get(p, "TAGS").map(tag_code)
        })
    });
    group.finish();
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/answer");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(1 << 16);
    group.bench_function("send", |b| {
        b.iter(|| {
            out.clear();
            let reply = SendReply {
                msg_id: "7F00000100002A9F0000000000000000",
                queue_id: 3,
                queue_offset: black_box(1_234_567),
                transaction_id: Some("C0A800010000070DEA4E8F1A2B3C0001"),
                recall_handle: None,
                region: "DefaultRegion",
                trace_on: true,
            };
            encode_send_response(&mut out, 0, black_box(77), None, &reply);
            out.len()
        })
    });
    group.bench_function("pull head", |b| {
        b.iter(|| {
            out.clear();
            let reply = PullReply {
                suggest_which_broker_id: 0,
                next_begin_offset: black_box(1_234_567),
                min_offset: 0,
                max_offset: 2_000_000,
            };
            encode_pull_head(&mut out, 0, black_box(77), Some("FOUND"), &reply, 32 * 1200);
            out.len()
        })
    });
    group.finish();
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/record");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("build with CRC, 1 KiB", |b| {
        b.iter(|| {
            out.clear();
            black_box(sample::input()).encode(&mut out).expect("fits")
        })
    });
    let mut record = sample::record();
    group.bench_function("patch", |b| {
        b.iter(|| patch(black_box(&mut record), 7, 1 << 40, sample::NOW_MS).expect("a record"))
    });
    group.bench_function("read with CRC, 1 KiB", |b| {
        b.iter(|| {
            let view = RecordView::parse(black_box(&record)).expect("a record");
            view.queue_offset()
        })
    });
    group.finish();
}
