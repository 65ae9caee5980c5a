//! The driver of real processes, as far as it can be tested without any.

use cluster_tests::processes::scenario::{all, dir_name, must_be_empty};
use std::process::Command;

#[test]
fn the_data_of_an_earlier_run_is_never_taken_for_this_run_s() {
    let keep = tempfile::tempdir().unwrap();
    // Nothing but the last scenario of the last seed: that is found before the first one begins.
    let keep = keep.path().canonicalize().unwrap();
    let two: Vec<_> = all().into_iter().take(2).collect();
    let (first, last) = (dir_name(&keep, &two[0], 1), dir_name(&keep, &two[1], 2));
    assert_eq!(must_be_empty(&last), Ok(()), "not there");
    std::fs::create_dir_all(&last).unwrap();
    assert_eq!(must_be_empty(&last), Ok(()), "nothing in it");
    std::fs::create_dir_all(last.join("node-1")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_processes"))
        .args(["--troupe-binary", "/bin/false", "--loopback"])
        .args(["--scenario", "1,2", "--seeds", "2", "--keep"])
        .arg(&keep)
        .output()
        .expect("the driver starts");
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{said}");
    for part in ["earlier run", &*last.to_string_lossy()] {
        assert!(lines[0].contains(part), "{part}: {said}");
    }
    assert!(!first.exists(), "none was begun");
}
