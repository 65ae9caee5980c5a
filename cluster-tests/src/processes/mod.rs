//! Real processes under real faults: `troupe server`s, each in a network namespace and on a file
//! system of its own where a scenario needs it, load from clients that follow the route as
//! RocketMQ's do, and checks of everything that was recorded.

pub mod check;
pub mod damage;
pub mod disk;
pub mod history;
pub mod java;
pub mod judge;
pub mod load;
pub mod nodes;
pub mod read;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod shim;
pub mod space;
pub mod stage;
pub mod sys;
pub mod throttle;
pub mod tunnel;
pub mod view;
pub mod watchdog;
