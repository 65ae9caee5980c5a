//! The address under which clients find a broker.

use std::net::{IpAddr, SocketAddr};

/// What a broker advertises.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdvertisedAddr {
    /// `host:port` as configured or as a foreign broker registered it.
    Fixed(String),
    /// "The address by which the client reached us", with this port: laptops and containers work
    /// without settings.
    Listening(u16),
}

impl AdvertisedAddr {
    /// The text that goes into a route. `reached` is the local address of the connection the
    /// question came through. IPv6 is written `[addr]:port`; a mapped IPv4 address as IPv4.
    pub fn resolve(&self, reached: IpAddr) -> String {
        match self {
            Self::Fixed(text) => text.clone(),
            Self::Listening(port) => SocketAddr::new(reached.to_canonical(), *port).to_string(),
        }
    }
}

impl From<&str> for AdvertisedAddr {
    fn from(text: &str) -> Self {
        Self::Fixed(text.to_owned())
    }
}

impl From<String> for AdvertisedAddr {
    fn from(text: String) -> Self {
        Self::Fixed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_takes_the_address_the_client_used() {
        let addr = AdvertisedAddr::Listening(10911);
        assert_eq!(
            addr.resolve("127.0.0.1".parse().expect("ip")),
            "127.0.0.1:10911"
        );
        assert_eq!(
            addr.resolve("::ffff:10.1.2.3".parse().expect("ip")),
            "10.1.2.3:10911"
        );
        assert_eq!(
            addr.resolve("fe80::1".parse().expect("ip")),
            "[fe80::1]:10911"
        );
        let fixed = AdvertisedAddr::from("broker.example:1");
        assert_eq!(
            fixed.resolve("127.0.0.1".parse().expect("ip")),
            "broker.example:1"
        );
    }
}
