//! Real processes: three `troupe server`s on loopback, load from clients that follow the route as
//! RocketMQ's do, a fault, and a check of every acknowledgement.

pub mod check;
pub mod load;
pub mod nodes;
pub mod scenario;
