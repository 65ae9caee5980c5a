//! A small remoting client for the command line, benches and tests.
//!
//! [`Connection`] is one TCP connection with requests matched to answers by their opaque;
//! [`Client`] finds brokers through name servers and keeps a connection to each address. It
//! speaks to any RocketMQ, stock or ours. [`Pipe`] is a connection for load, with the frames in
//! its user's hands.

mod answer;
mod bodies;
mod broker;
mod connection;
mod error;
mod message;
mod pipe;

pub use answer::{Answer, FieldName};
pub use bodies::{BrokerData, ClusterInfo, QueueData, Route};
pub use broker::{Client, Outgoing, Pulled, SendResult};
pub use connection::{Connection, Reply};
pub use error::ClientError;
pub use message::Received;
pub use pipe::Pipe;

#[cfg(test)]
mod tests;
