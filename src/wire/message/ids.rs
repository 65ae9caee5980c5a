//! Message ids: the offset message id a broker makes and the unique key a client makes.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// Appends the offset message id of a record: upper-case hex of address, port (4 bytes) and
/// physical offset; 32 digits with an IPv4 store host, 56 with an IPv6 one.
pub fn write_offset_msg_id(out: &mut String, store_host: SocketAddr, phys_offset: i64) {
    match store_host.ip().to_canonical() {
        IpAddr::V4(ip) => hex(out, &ip.octets()),
        IpAddr::V6(ip) => hex(out, &ip.octets()),
    }
    hex(out, &u32::from(store_host.port()).to_be_bytes());
    hex(out, &phys_offset.to_be_bytes());
}

/// The offset message id of a record (see [`write_offset_msg_id`]).
pub fn offset_msg_id(store_host: SocketAddr, phys_offset: i64) -> String {
    let mut out = String::with_capacity(32);
    write_offset_msg_id(&mut out, store_host, phys_offset);
    out
}

fn hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
}

/// Reads an offset message id back; `None` for anything else (unique keys have the same length
/// and usually fail on the port, but must be told apart by where they come from).
pub fn parse_offset_msg_id(id: &str) -> Option<(SocketAddr, i64)> {
    let mut bytes = [0u8; 28];
    let len = match id.len() {
        32 => 16,
        56 => 28,
        _ => return None,
    };
    for (byte, pair) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| (b as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    let (ip, rest) = if len == 16 {
        let (ip, rest) = bytes[..16].split_first_chunk::<4>()?;
        (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
    } else {
        let (ip, rest) = bytes.split_first_chunk::<16>()?;
        (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
    };
    let (port, rest) = rest.split_first_chunk::<4>()?;
    let port = u16::try_from(u32::from_be_bytes(*port)).ok()?;
    let offset = i64::from_be_bytes(*rest.first_chunk::<8>()?);
    Some((SocketAddr::new(ip, port), offset))
}

/// Makes unique keys (`UNIQ_KEY`) for our own client.
#[derive(Debug)]
pub struct UniqKeys {
    prefix: String,
    counter: AtomicU16,
}

impl UniqKeys {
    /// `ip`, `pid` and `salt` (Java: the class loader's hash) tell processes apart.
    pub fn new(ip: IpAddr, pid: u32, salt: u32) -> Self {
        let mut prefix = String::with_capacity(44);
        match ip {
            IpAddr::V4(ip) => hex(&mut prefix, &ip.octets()),
            IpAddr::V6(ip) => hex(&mut prefix, &ip.octets()),
        }
        hex(&mut prefix, &(pid as u16).to_be_bytes());
        hex(&mut prefix, &salt.to_be_bytes());
        UniqKeys {
            prefix,
            counter: AtomicU16::new(0),
        }
    }

    /// The next key. `millis_of_month` is the time since the start of the month; only its lower
    /// 32 bits are used. 65,536 keys a millisecond are told apart.
    pub fn next(&self, millis_of_month: u64) -> String {
        self.key(
            millis_of_month as u32,
            self.counter.fetch_add(1, Ordering::Relaxed),
        )
    }

    fn key(&self, millis: u32, counter: u16) -> String {
        let mut out = String::with_capacity(self.prefix.len() + 12);
        out.push_str(&self.prefix);
        // Writing to a String cannot fail.
        let _ = write!(out, "{millis:08X}{counter:04X}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_keys_have_the_stock_shape() {
        let keys = UniqKeys::new("127.0.0.1".parse().unwrap(), 1, 0x2A13_9A55);
        assert_eq!(keys.key(0, 0xABCD), "7F00000100012A139A5500000000ABCD");
        let keys = UniqKeys::new("2001:db8::1".parse().unwrap(), 12345, 0x2A13_9A55);
        assert_eq!(
            keys.key(157_856_508, 7),
            "20010DB800000000000000000000000130392A139A550968B2FC0007"
        );
        assert_ne!(keys.next(5), keys.next(5));
    }

    #[test]
    fn malformed_offset_ids_are_none() {
        for id in [
            "",
            "7F00000100002A9F00000000000010",
            "7F00000100002A9F000000000000100G",
            "7F000001FFFF2A9F0000000000001000",
            "+F00000100002A9F0000000000001000",
            "éééééééééééééééé",
        ] {
            assert_eq!(parse_offset_msg_id(id), None, "{id}");
        }
    }
}
