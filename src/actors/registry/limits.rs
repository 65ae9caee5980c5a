//! What a registration may contain; checked before anything changes.

use super::core::RegistryCore;
use crate::model::outcome::Refusal;
use crate::routing::{AdvertisedAddr, BrokerRegistration};

/// Bounds on what registrations can make the name server keep (reliability §8 rows 15 and 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Broker names.
    pub brokers: usize,
    /// Addresses of one broker name.
    pub members: usize,
    /// Topics of all brokers.
    pub topics: usize,
    /// Filter servers of one registration.
    pub filter_servers: usize,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            brokers: 4_096,
            members: 64,
            topics: 1_000_000,
            filter_servers: 64,
        }
    }
}

impl RegistryCore {
    pub(super) fn check(&self, reg: &BrokerRegistration) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::Invalid(text.to_owned()));
        let bad =
            |name: &str| name.is_empty() || name.len() > 255 || name.chars().any(char::is_control);
        if bad(&reg.broker_name)
            || bad(&reg.cluster)
            || reg.zone.as_deref().is_some_and(|z| z.len() > 255)
        {
            return refuse(
                "cluster and broker name have 1 to 255 bytes without control characters",
            );
        }
        let bad_addr = matches!(&reg.addr, AdvertisedAddr::Fixed(text) if bad(text));
        if bad_addr || reg.ha_addr.len() > 255 || reg.broker_id < 0 {
            return refuse("broker address or id out of bounds");
        }
        if reg.filter_servers.len() > self.limits.filter_servers
            || reg.filter_servers.iter().any(|f| bad(f))
        {
            return refuse("too many filter servers");
        }
        match self.brokers.get(reg.broker_name.as_str()) {
            None if self.brokers.len() >= self.limits.brokers => return refuse("too many brokers"),
            Some(b) if b.cluster != reg.cluster => {
                return refuse("the broker name belongs to another cluster")
            }
            Some(b)
                if b.members.len() >= self.limits.members
                    && !b.members.contains_key(&reg.broker_id) =>
            {
                return refuse("too many addresses of one broker name");
            }
            _ => {}
        }
        let topics = reg.topics.as_deref().unwrap_or_default();
        if topics.iter().any(|t| bad(&t.name)) {
            return refuse("topic names have 1 to 255 bytes without control characters");
        }
        if topics.len() > self.limits.topics {
            return refuse("too many topics");
        }
        let new = topics
            .iter()
            .filter(|t| !self.topics.contains_key(&t.name))
            .count();
        if self.topics.len().saturating_add(new) > self.limits.topics {
            return refuse("too many topics");
        }
        Ok(())
    }
}
