//! A small library between a node and the C library: it fails syncs and shifts the wall clock.

use super::sys::run;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the control file; see `shim.c`.
const SIZE: u64 = 16;
const CLOCK_AT: u64 = 0;
const FAIL_AT: u64 = 8;
const FAILED_AT: u64 = 12;

/// Compiles it into a directory.
pub fn compile(dir: &Path) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("the shim: {e}");
    std::fs::create_dir_all(dir).map_err(io)?;
    let source = dir.join("shim.c");
    let library = dir.join("shim.so");
    std::fs::write(&source, include_str!("shim.c")).map_err(io)?;
    let (from, to) = (source.to_string_lossy(), library.to_string_lossy());
    run("cc", &["-shared", "-fPIC", "-O2", "-o", &to, &from, "-ldl"])?;
    Ok(library)
}

/// A new control file: nothing fails, nothing is shifted.
pub fn create(control: &Path) -> std::io::Result<()> {
    File::create(control)?.set_len(SIZE)
}

fn write(control: &Path, at: u64, bytes: &[u8]) -> Result<(), String> {
    let file = File::options().write(true).open(control);
    let written = file.and_then(|file| file.write_all_at(bytes, at));
    written.map_err(|e| format!("{}: {e}", control.display()))
}

/// The next so many syncs fail.
pub fn fail_syncs(control: &Path, count: i32) -> Result<(), String> {
    write(control, FAIL_AT, &count.to_ne_bytes())
}

/// Syncs that failed so far.
pub fn failed_syncs(control: &Path) -> i32 {
    let mut bytes = [0; 4];
    let read = File::open(control).and_then(|f| f.read_exact_at(&mut bytes, FAILED_AT));
    read.map_or(0, |()| i32::from_ne_bytes(bytes))
}

/// The wall clock of the node is so far from the machine's.
pub fn shift_clock(control: &Path, ms: i64) -> Result<(), String> {
    write(control, CLOCK_AT, &ms.to_ne_bytes())
}
