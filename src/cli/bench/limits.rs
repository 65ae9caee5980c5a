//! Limits of this machine that many connections meet.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// File descriptors beside the connections.
const OTHER_FILES: u64 = 64;
/// Connections from one loopback address to one server; ephemeral ports are about 28,000.
const PER_SOURCE: u32 = 20_000;
/// Loopback source addresses: 127.0.0.1 to 127.0.0.200.
const SOURCES: u32 = 200;

/// Raises this process's limit of open files for so many connections.
///
/// # Errors
/// When the hard limit is too low.
pub(super) fn files_for(connections: u32) -> Result<(), String> {
    let wanted = u64::from(connections) + OTHER_FILES;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|n| n >= wanted) {
        return Ok(());
    }
    let maximum = now.maximum.map(|hard| hard.max(wanted));
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    let within = Rlimit {
        current: now.maximum.map(|hard| hard.min(wanted)),
        ..now
    };
    // Root may raise the hard limit too.
    if setrlimit(Resource::Nofile, raised).is_err() {
        let _ = setrlimit(Resource::Nofile, within);
    }
    match getrlimit(Resource::Nofile).current {
        Some(n) if n < wanted => Err(format!(
            "{connections} connections need {wanted} open files, but the limit is {n}: raise it with \
             `ulimit -Hn {wanted}` as root, or in limits.conf"
        )),
        _ => Ok(()),
    }
}

/// The address to connect from: several loopback addresses when one has too few ports.
pub(super) fn source_address(to: &str, n: u32, connections: u32) -> Option<IpAddr> {
    if connections <= PER_SOURCE || !is_loopback(to) {
        return None;
    }
    let last = 1 + (n / PER_SOURCE) % SOURCES;
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8)))
}

/// Whether there are ports enough for so many connections to these servers.
///
/// # Errors
/// When there are not.
pub(super) fn check_ports(addrs: &[String], connections: u32) -> Result<(), String> {
    if addrs.is_empty() {
        return Err("no broker is registered with the name server".to_owned());
    }
    let sources = match addrs.iter().all(|a| is_loopback(a)) {
        true => SOURCES,
        false => 1,
    };
    let most = u64::from(PER_SOURCE) * u64::from(sources) * addrs.len() as u64;
    if u64::from(connections) > most {
        return Err(format!(
            "at most {most} connections can be made to {} broker(s) from this machine",
            addrs.len()
        ));
    }
    Ok(())
}

fn is_loopback(addr: &str) -> bool {
    addr.parse::<SocketAddr>()
        .is_ok_and(|a| a.is_ipv4() && a.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_used_when_ports_run_out() {
        let to = "127.0.0.1:10911";
        assert_eq!(source_address(to, 5, 20_000), None);
        assert_eq!(source_address("10.0.0.1:1", 5, 30_000), None);
        let from = |n| source_address(to, n, 50_000).unwrap().to_string();
        assert_eq!(
            (from(0), from(19_999)),
            ("127.0.0.1".into(), "127.0.0.1".into())
        );
        assert_eq!(
            (from(20_000), from(49_999)),
            ("127.0.0.2".into(), "127.0.0.3".into())
        );
        let one = [to.to_owned()];
        assert!(check_ports(&one, 1_000_000).is_ok());
        assert!(check_ports(&["10.0.0.1:1".to_owned()], 20_001).is_err());
        assert!(check_ports(&[], 1).is_err());
        assert!(files_for(10).is_ok());
    }
}
