//! `troupe bench …`: load for any RocketMQ-compatible broker, over the remoting protocol.
//!
//! One thread, so that the broker has the rest of the machine; pipelined connections that cost
//! a few microseconds a message; latencies from the time a message was due.

// Reading, and records of what was acknowledged, follow.
#![allow(dead_code)]

mod args;
mod body;
mod clock;
mod measure;
mod procs;
mod producer;
mod report;
mod request;
mod schedule;
mod send;
mod sending;
mod stats;
mod topology;

use super::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Send messages: as fast as answers come, or at a fixed rate
    Send(Box<send::SendArgs>),
}

pub(super) async fn run(command: BenchCommand) -> Result<(), Failure> {
    let work = async move {
        match command {
            BenchCommand::Send(args) => send::run(*args).await,
        }
    };
    tokio::task::LocalSet::new().run_until(work).await
}
