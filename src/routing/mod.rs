//! Pure tables: topic to queue to broker, route data, auto-creation. Uses only `model`.

pub mod addr;
pub mod auto_create;
pub mod data;
pub mod delay;
pub mod names;
pub mod system;

pub use addr::AdvertisedAddr;
pub use data::{
    BrokerData, BrokerMembers, BrokerRegistration, ClusterInfo, DataVersion, QueueData, RouteTopic,
    TopicRoute,
};
