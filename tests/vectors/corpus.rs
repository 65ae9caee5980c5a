//! The fuzz targets over the vectors as seeds, with seeded mutations: the same on every machine.

use crate::load::{file, raw_frame, vectors};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use troupemq::wire::fuzzing::TARGETS;
use troupemq::wire::remoting::HeaderFormat;

const MUTATIONS: usize = 20_000;

/// Seeds by target, chosen as `fuzz/make-corpus.py` does, and the files of a local corpus.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut add = |to: &str, data: &[u8]| {
        if to == target {
            out.push(data.to_vec());
        }
    };
    for name in [
        "remoting-frames.json",
        "remoting-client-frames.json",
        "remoting-acl.json",
    ] {
        for v in vectors(name, 5) {
            let Some(frame) = raw_frame(&v.bytes) else {
                add("json_bodies", &v.bytes);
                continue;
            };
            add("frame_splitter", &v.bytes);
            match frame.serialize {
                HeaderFormat::Json => add("header_json", &frame.header),
                HeaderFormat::Binary => add("header_binary", &frame.header),
            }
            if frame.body.starts_with(b"{") {
                add("json_bodies", &frame.body);
            } else if v.name.contains("send_batch") {
                add("batch_body", &frame.body);
            }
        }
    }
    for v in vectors("remoting-batch.json", 3) {
        match v.name.as_str() {
            "batch_request_body" => add("batch_body", &v.bytes),
            "batch_expanded_records" => add("record_decoder", &v.bytes),
            _ => {}
        }
    }
    for v in vectors("remoting-records.json", 11) {
        add("record_decoder", &v.bytes);
    }
    for v in vectors("remoting-json-bodies.json", 10) {
        add("json_bodies", &v.bytes);
    }
    let register = file("admin-register-broker.json");
    add(
        "json_bodies",
        register["plain_json"].as_str().unwrap().as_bytes(),
    );
    let packed = register["compressed_hex"].as_str().unwrap();
    add("json_bodies", &hex::decode(packed).unwrap());

    let local = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(local)
        .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    out.extend(files.iter().filter_map(|path| std::fs::read(path).ok()));
    out
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const TOKENS: [&[u8]; 14] = [
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x00",
    b"\"",
    b"\\",
    b"\\u0001",
    b"\\ud800",
    b"{",
    b"[[[[[[[[",
    b"}",
    b"null",
    b"-1e99",
    b"\x01",
];

fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(8) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 if !data.is_empty() => data[at] = random.next() as u8,
            2 => data.truncate(at),
            3 => {
                let end = (at + random.below(16)).min(data.len());
                data.drain(at..end);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                data.splice(at..at, token.iter().copied());
            }
            5 => {
                let token = TOKENS[random.below(TOKENS.len())];
                let end = (at + token.len()).min(data.len());
                data.splice(at..end, token.iter().copied());
            }
            6 => {
                let end = (at + random.below(64)).min(data.len());
                let copy = data[at..end].to_vec();
                data.splice(at..at, copy);
            }
            _ => {
                let from = random.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn mutated_seeds_break_no_target() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        let mut random = Random(0x7207_9E00);
        for seed in &seeds {
            target(seed);
        }
        for i in 0..MUTATIONS {
            let mut data = seeds[random.below(seeds.len())].clone();
            let other = &seeds[random.below(seeds.len())];
            mutate(&mut data, other, &mut random);
            let run = catch_unwind(AssertUnwindSafe(|| target(&data)));
            assert!(run.is_ok(), "{name}, mutation {i}: {}", hex::encode(&data));
        }
    }
}
