//! Reading the vector files.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::path::Path;
use troupemq::wire::remoting::{split_frame, Command, FrameLimits, RawFrame};

pub fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub struct Vector {
    pub name: String,
    pub bytes: Bytes,
    pub json: Value,
}

/// All vectors of a file. Panics when there are fewer than `at_least`: a test over no vector
/// proves nothing.
pub fn vectors(name: &str, at_least: usize) -> Vec<Vector> {
    let list: Vec<Vector> = file(name)["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| Vector {
            name: v["name"].as_str().unwrap().to_owned(),
            bytes: hex::decode(v["hex"].as_str().unwrap()).unwrap().into(),
            json: v.clone(),
        })
        .collect();
    assert!(list.len() >= at_least, "{name}: {} vectors", list.len());
    list
}

pub fn vector(file: &str, name: &str) -> Vector {
    let mut all = vectors(file, 1);
    let at = all.iter().position(|v| v.name == name);
    all.swap_remove(at.unwrap_or_else(|| panic!("no vector {name}")))
}

/// The one frame in `bytes`, `None` when they are no frame.
pub fn raw_frame(bytes: &[u8]) -> Option<RawFrame> {
    let mut buf = BytesMut::from(bytes);
    let frame = split_frame(&mut buf, &FrameLimits::default()).ok()??;
    assert!(buf.is_empty(), "bytes after the frame");
    Some(frame)
}

pub fn command(bytes: &[u8]) -> Command {
    Command::decode(raw_frame(bytes).expect("a frame")).expect("a header")
}
