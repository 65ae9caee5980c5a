//! The arrows between rooms, as `ARCHITECTURE.md` draws them: reads every path in `src` and
//! refuses those that go another way.

#[path = "arrows/paths.rs"]
mod paths;

use paths::{paths_of, Path};
use std::fs;
use std::path::{Path as FsPath, PathBuf};

/// What each room may use of this package. A room may always use itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("telemetry", &["model"]),
    ("wire", &["model"]),
    ("routing", &["model"]),
    ("storage", &["model"]),
    ("peer", &["model"]),
    ("raft", &["storage", "model"]),
    // The registry actor owns a routing table, which is as pure as the model.
    ("actors", &["raft", "storage", "routing", "model"]),
    (
        "gateway",
        &[
            "actors",
            "peer",
            "wire",
            "routing",
            "telemetry",
            "config",
            "model",
        ],
    ),
    ("client", &["wire", "model"]),
    (
        "node",
        &[
            "gateway",
            "actors",
            "peer",
            "raft",
            "storage",
            "wire",
            "routing",
            "telemetry",
            "config",
            "model",
        ],
    ),
    (
        "cli",
        &["node", "client", "wire", "telemetry", "config", "model"],
    ),
];

/// Crates that only some rooms may name.
const CRATES: &[(&str, &[&str])] = &[
    ("rocksdb", &["storage"]),
    ("librocksdb_sys", &["storage"]),
    ("raft", &["raft"]),
    ("raft_proto", &["raft"]),
    ("protobuf", &["raft"]),
    ("actix", &["actors", "node"]),
    ("actix_rt", &["actors", "node"]),
    ("axum", &["gateway"]),
    ("prometheus_client", &["telemetry"]),
    ("clap", &["cli"]),
    ("config", &["config"]),
    ("rustls", &["peer"]),
    ("tokio_rustls", &["peer"]),
    // Links prove the secret to each other, operators to nodes.
    ("hmac", &["peer", "config"]),
];

/// What a pure room or a core may not touch: clock, threads, runtime, files, sockets, and maps
/// whose order is random.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["actix"],
    &["actix_rt"],
    &["rocksdb"],
    &["std", "fs"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
];

/// Rooms that are pure as a whole, tests excepted.
const PURE_ROOMS: &[&str] = &["model", "wire", "routing"];

/// Why a file may not stay as it is, one line each.
fn complaints(file: &FsPath, text: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(room) = module.first().cloned() else {
        return Vec::new(); // lib.rs and main.rs join the rooms.
    };
    let mut found = Vec::new();
    let Some((_, allowed)) = ARROWS.iter().find(|(r, _)| *r == room) else {
        return vec![format!(
            "{}: room {room} is not in the list of arrows",
            file.display()
        )];
    };
    let pure = !is_test(file)
        && (PURE_ROOMS.contains(&room.as_str())
            || module.iter().any(|m| m == "core" || m.ends_with("_core")));
    for path in paths_of(text, &module) {
        let line = path.line;
        let Path {
            segments,
            in_crate,
            in_test,
            ..
        } = path;
        let first = segments[0].as_str();
        if in_crate {
            let is_room = ARROWS.iter().any(|(r, _)| *r == first);
            if is_room && first != room && !allowed.contains(&first) {
                found.push(format!(
                    "{}:{line}: {room} may not use {first}",
                    file.display()
                ));
            }
            continue;
        }
        if let Some((name, rooms)) = CRATES.iter().find(|(c, _)| *c == first) {
            if !rooms.contains(&room.as_str()) {
                found.push(format!(
                    "{}:{line}: {room} may not name the crate {name}",
                    file.display()
                ));
            }
        }
        let impure = |banned: &&&[&str]| {
            segments.len() >= banned.len() && banned.iter().zip(&segments).all(|(a, b)| a == b)
        };
        if pure && !in_test {
            if let Some(banned) = IMPURE.iter().find(impure) {
                found.push(format!(
                    "{}:{line}: {} is not for a pure core",
                    file.display(),
                    banned.join("::")
                ));
            }
        }
    }
    found
}

/// `src/a/b/mod.rs` and `src/a/b.rs` are `["a", "b"]`; `lib.rs` and `main.rs` are empty.
fn module_of(file: &FsPath) -> Vec<String> {
    let relative = file.strip_prefix("src").unwrap_or(file);
    let mut module: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

fn is_test(file: &FsPath) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests") || file.iter().any(|p| p == "tests")
}

fn rust_files(dir: &FsPath, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_arrow_in_src_is_allowed() {
    let root = FsPath::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    files.sort();
    assert!(files.len() > 20, "the sources were not found");
    let mut found = Vec::new();
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let relative = file.strip_prefix(root).unwrap();
        seen += paths_of(&text, &module_of(relative)).len();
        found.extend(complaints(relative, &text));
    }
    assert!(seen > 200, "only {seen} paths were understood");
    assert!(found.is_empty(), "forbidden arrows:\n{}", found.join("\n"));
}

#[test]
fn every_room_has_its_arrows() {
    let src = FsPath::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_string_lossy().into_owned();
        let known = ARROWS.iter().any(|(r, _)| *r == room);
        assert!(
            known || room == "lib" || room == "main",
            "{room} is not in the list of arrows"
        );
    }
}

fn refused(file: &str, text: &str) -> Vec<String> {
    complaints(FsPath::new(file), text)
}

#[test]
fn forbidden_arrows_are_found_in_every_spelling() {
    for text in [
        "use crate::actors::Handle;",
        "use crate::{model::Position, actors::{self, Handle}};",
        "use crate::{\n    model,\n    actors,\n};",
        "pub(crate) use crate::actors as a;",
        "fn f() { let x = crate::actors::x(); }",
        "fn f(x: &mut Vec<crate::actors::X>) {}",
        "impl From<u8> for crate :: actors :: X {}",
        "use super::super::actors::X;",
        "mod inner { use super::super::super::actors::X; }",
        "/* crate::model */ use /* */ crate::/* */actors::X;",
        "const A: char = '\"'; use crate::actors::X; const B: &str = \"\";",
        "const A: &str = r#\"\"#; use crate::actors::X;",
        "fn f<'a>(x: &'a u8) -> crate::actors::X<'a> { loop {} }",
        "use troupemq::actors::X;",
    ] {
        let found = refused("src/storage/reader.rs", text);
        assert!(!found.is_empty(), "{text}");
        assert!(found[0].contains("storage may not use actors"), "{found:?}");
        assert!(
            refused(
                "src/gateway/remoting/x.rs",
                &text.replace("super::super::", "super::super::super::")
            )
            .is_empty(),
            "{text}"
        );
    }
}

#[test]
fn forbidden_crates_are_found() {
    for (file, text) in [
        ("src/raft/log.rs", "use rocksdb::DB;"),
        ("src/actors/shard/x.rs", "fn f() { rocksdb::DB::open(); }"),
        ("src/gateway/x.rs", "use ::raft::RawNode;"),
        ("src/gateway/x.rs", "use raft::{prelude::*, RawNode};"),
        ("src/gateway/x.rs", "extern crate rocksdb;"),
        ("src/actors/x.rs", "type R = raft::RawNode<()>;"),
        ("src/raft/x.rs", "use actix::Actor;"),
        ("src/gateway/x.rs", "use actix_rt as rt;"),
        ("src/model/x.rs", "use rocksdb;"),
    ] {
        let found = refused(file, text);
        assert!(
            found.iter().any(|f| f.contains("may not name the crate")),
            "{text}: {found:?}"
        );
    }
    assert!(refused("src/storage/x.rs", "use rocksdb::DB;").is_empty());
    assert!(refused("src/raft/x.rs", "use raft::RawNode; use crate::storage::X;").is_empty());
    assert!(refused(
        "src/actors/x.rs",
        "use crate::raft; fn f() { raft::table(); }"
    )
    .is_empty());
    assert!(refused(
        "src/actors/x.rs",
        "use crate::{model, raft}; type T = raft::X;"
    )
    .is_empty());
    assert!(refused("src/actors/x.rs", "use crate::raft::entry;").is_empty());
    assert!(refused("src/wire/x.rs", "mod config; pub use config::Topic;").is_empty());
    assert_eq!(
        refused("src/wire/x.rs", "mod config; use ::config::Config;").len(),
        1
    );
}

#[test]
fn clocks_and_random_order_are_found_in_cores() {
    for text in [
        "use std::time::Instant;",
        "use std::{collections::HashMap, fmt};",
        "fn f() { std::thread::sleep(d); }",
        "use tokio::sync::mpsc;",
    ] {
        assert_eq!(refused("src/actors/queue/core.rs", text).len(), 1, "{text}");
        assert_eq!(
            refused("src/actors/queue/core/append.rs", text).len(),
            1,
            "{text}"
        );
        assert_eq!(
            refused("src/wire/remoting/frame.rs", text).len(),
            1,
            "{text}"
        );
        assert!(
            refused("src/actors/queue/actor.rs", text).is_empty(),
            "{text}"
        );
        let test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
        assert!(
            refused("src/actors/queue/core.rs", &test).is_empty(),
            "{text}"
        );
        let after = format!("#[cfg(test)]\nmod tests {{ }}\n{text}");
        assert_eq!(
            refused("src/actors/queue/core.rs", &after).len(),
            1,
            "{text}"
        );
    }
    assert!(refused(
        "src/model/x.rs",
        "use std::collections::BTreeMap; use std::time::Duration;"
    )
    .is_empty());
}

#[test]
fn text_that_is_no_code_is_no_arrow() {
    for text in [
        "// use crate::actors::X;",
        "/// see [`crate::actors`]\nfn f() {}",
        "/* /* nested */ use crate::actors::X; */",
        "const A: &str = \"use crate::actors::X;\";",
        "const A: &str = \"\\\" crate::actors::X\";",
        "const A: &str = r##\"\"# crate::actors::X\"##;",
        "use crate::model::actors::X;",
        "use super::actors::X;",
        "fn f(x: self::actors::X) {}",
        "pub(crate) fn actors() {}",
    ] {
        assert_eq!(
            refused("src/storage/deep/reader.rs", text),
            Vec::<String>::new(),
            "{text}"
        );
    }
    assert_eq!(
        refused("src/cellar/x.rs", "").len(),
        1,
        "an unknown room must be named"
    );
}
