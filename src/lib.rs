//! TroupeMQ: a message broker that speaks Apache RocketMQ's protocols.
//!
//! `ARCHITECTURE.md` is the map of the rooms (modules) below and of the arrows between them.

pub mod actors;
pub mod cli;
pub mod client;
pub mod config;
pub mod gateway;
pub mod model;
pub mod node;
pub mod peer;
pub mod raft;
pub mod routing;
pub mod storage;
pub mod telemetry;
pub mod wire;
