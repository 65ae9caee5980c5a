//! `troupe bench …`: load for any RocketMQ-compatible broker, over the remoting protocol.
//!
//! One thread, so that the broker has the rest of the machine; pipelined connections that cost
//! a few microseconds a message; latencies from the time a message was due.

mod args;
mod body;
mod check;
mod clock;
mod connections;
mod consume;
mod e2e;
mod limits;
mod measure;
mod procs;
mod producer;
mod reading;
mod record;
mod report;
mod request;
mod schedule;
mod send;
mod sending;
mod stats;
mod topics;
mod topology;

use super::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Send messages: as fast as answers come, or at a fixed rate
    Send(Box<send::SendArgs>),
    /// Read everything there is, as fast as the broker gives it, and check it
    Consume(Box<consume::ConsumeArgs>),
    /// Time from a producer at a fixed rate to a waiting consumer
    E2e(Box<e2e::E2eArgs>),
    /// Create many topics, and send to some of their queues
    Topics(Box<topics::TopicsArgs>),
    /// Many idle connections, and bursts of heartbeats
    Connections(Box<connections::ConnectionsArgs>),
}

pub(super) async fn run(command: BenchCommand) -> Result<(), Failure> {
    let work = async move {
        match command {
            BenchCommand::Send(args) => send::run(*args).await,
            BenchCommand::Consume(args) => consume::run(*args).await,
            BenchCommand::E2e(args) => e2e::run(*args).await,
            BenchCommand::Topics(args) => topics::run(*args).await,
            BenchCommand::Connections(args) => connections::run(*args).await,
        }
    };
    tokio::task::LocalSet::new().run_until(work).await
}
