//! What the scripts at the root say and check.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("a file of the repository")
}

/// Runs lines of bash with the functions of `scripts/lib.sh` and a `cargo` of this test's.
fn bash(dir: &Path, cargo: &str, lines: &str) -> Output {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    let fake: PathBuf = bin.join("cargo");
    std::fs::write(&fake, format!("#!/usr/bin/env bash\n{cargo}\n")).expect("a script");
    let run = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&fake, run).expect("may run");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("bash")
        .args([
            "-euo",
            "pipefail",
            "-c",
            &format!(". scripts/lib.sh\n{lines}"),
        ])
        .current_dir(root())
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("PROGRESS_SECONDS", "0.05")
        .output()
        .expect("bash runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// The oldest Rust, as Cargo.toml says.
fn rust() -> String {
    let toml: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let version = toml["package"]["rust-version"].as_str();
    version.expect("a version").to_owned()
}

#[test]
fn every_place_that_names_a_rust_names_the_one_of_cargo_toml() {
    let wanted = rust();
    let mut places = 0;
    for file in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/operating.md",
        "scripts/lib.sh",
        "scripts/gate",
        "run",
        "test",
        "cluster-tests/README.md",
        "tests/clients/README.md",
    ] {
        let text = read(file);
        for after in text.split("Rust 1.").skip(1) {
            let minor: String = after.chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(format!("1.{minor}"), wanted, "{file}");
            places += 1;
        }
    }
    assert!(places > 0, "the README says which Rust is needed");
    let other: toml::Table = read("cluster-tests/Cargo.toml").parse().expect("TOML");
    if let Some(version) = other["package"].get("rust-version") {
        let same = version.as_str() == Some(&wanted) || version.get("workspace").is_some();
        assert!(same, "cluster-tests/Cargo.toml: {version}");
    }
}

#[test]
fn an_old_rust_is_refused_with_the_version_that_is_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = bash(
        dir.path(),
        "echo 'cargo 1.80.1 (abc 2024-01-01)'",
        "need_rust",
    );
    assert!(!old.status.success());
    let text = said(&old);
    assert!(text.contains(&rust()) && text.contains("1.80.1"), "{text}");
    for new in [
        format!("{}.0", rust()),
        "1.200.0-nightly".into(),
        "2.0.0".into(),
    ] {
        let script = format!("echo 'cargo {new} (abc 2026-01-01)'");
        let output = bash(dir.path(), &script, "need_rust");
        assert!(output.status.success(), "{new}: {}", said(&output));
    }
}

#[test]
fn a_build_tells_how_much_of_rocksdb_is_compiled_and_keeps_cargos_exit_code() {
    let dir = tempfile::tempdir().expect("a directory");
    // Compiles three files, each once the one before was told of; ends when all were.
    let cargo = r#"
        # The crates before it.
        sleep 0.3
        out=$CARGO_TARGET_DIR/release/build/librocksdb-sys-0123/out
        mkdir -p "$out"
        for n in 1 2 3; do
            touch "$out/$n.o"
            until grep -q "RocksDB: $n " "$CARGO_TARGET_DIR/said"; do sleep 0.01; done
        done
        exit 7"#;
    let target = dir.path().join("target");
    std::fs::create_dir_all(&target).expect("a directory");
    std::fs::write(target.join("said"), "").expect("a file");
    let lines = "build --release 2>> \"$CARGO_TARGET_DIR/said\"";
    let output = bash(dir.path(), cargo, lines);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let told = std::fs::read_to_string(target.join("said")).expect("what it said");
    let told: Vec<&str> = told
        .lines()
        .filter(|l| l.contains("files compiled"))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[2].contains("RocksDB: 3 "), "{told:?}");
}
