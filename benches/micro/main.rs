//! Micro benches of the blocks a message passes, by room and through the rooms' public doors.
//!
//! `cargo bench` measures; `cargo bench -- queue` only what has "queue" in its name. `cargo test`
//! runs every bench once, so that none rots.

mod apply;
mod codec;
mod log;
mod pull;
mod queue;
mod sample;

use criterion::{criterion_group, criterion_main, Criterion};
use std::time::Duration;

/// The allocator of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The machines are shared: short runs, and ratios between two runs mean more than one number.
fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = codec::benches, queue::benches, log::benches, apply::benches, pull::benches
}
criterion_main!(benches);
