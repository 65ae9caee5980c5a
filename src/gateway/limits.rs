//! Limits a client cannot push: connections, bytes in flight.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes of messages accepted and not yet answered, of the whole node.
#[derive(Debug)]
pub struct BytePermits {
    used: AtomicU64,
    max: u64,
}

impl BytePermits {
    /// At most `max` bytes in flight.
    pub fn new(max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            max,
        }
    }

    /// Takes `bytes`, or nothing when that would exceed the limit.
    pub fn try_take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.max)
            })
            .is_ok()
    }

    /// [`BytePermits::try_take`], given back when the guard is dropped.
    pub fn hold(&self, bytes: u64) -> Option<HeldBytes<'_>> {
        self.try_take(bytes).then(|| HeldBytes {
            permits: self,
            bytes,
        })
    }

    /// Gives back what [`BytePermits::try_take`] took.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Bytes in flight now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// See [`BytePermits::hold`].
#[derive(Debug)]
pub struct HeldBytes<'a> {
    permits: &'a BytePermits,
    bytes: u64,
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.permits.give(self.bytes);
    }
}

/// Open connections, in total and per address.
#[derive(Debug)]
pub struct ConnectionLimits {
    open: Mutex<Open>,
    /// Rung for everybody who waits when a connection ended.
    pub freed: Notify,
    max_total: u32,
    max_per_address: u32,
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    by_address: FxHashMap<IpAddr, u32>,
}

impl ConnectionLimits {
    /// At most `max_total` connections, `max_per_address` of them from one address.
    pub fn new(max_total: u32, max_per_address: u32) -> Self {
        Self {
            open: Mutex::default(),
            freed: Notify::new(),
            max_total,
            max_per_address,
        }
    }

    /// A place for a connection from `ip`, given back when the permit is dropped.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<ConnectionPermit> {
        let ip = ip.to_canonical();
        let mut open = self.open.lock();
        if open.total >= self.max_total {
            return None;
        }
        let count = open.by_address.entry(ip).or_insert(0);
        if *count >= self.max_per_address {
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(ConnectionPermit {
            limits: self.clone(),
            ip,
        })
    }

    /// Open connections.
    #[cfg(test)]
    pub fn total(&self) -> u32 {
        self.open.lock().total
    }
}

/// See [`ConnectionLimits::admit`].
#[derive(Debug)]
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.ip);
            }
        }
        drop(open);
        self.limits.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_limit_are_refused_whole() {
        let permits = BytePermits::new(100);
        assert!(permits.try_take(60));
        assert!(!permits.try_take(41));
        assert!(!permits.try_take(u64::MAX));
        assert!(permits.try_take(40));
        permits.give(60);
        assert_eq!(permits.used(), 40);
        assert!(permits.hold(61).is_none());
        let held = permits.hold(60);
        assert_eq!(permits.used(), 100);
        drop(held);
        assert_eq!(permits.used(), 40);
    }

    #[test]
    fn connections_are_counted_per_address_and_in_total() {
        let limits = Arc::new(ConnectionLimits::new(3, 2));
        let a: IpAddr = [10, 0, 0, 1].into();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let b: IpAddr = [10, 0, 0, 2].into();
        let first = limits.admit(a).unwrap();
        let _second = limits.admit(mapped).unwrap();
        assert!(limits.admit(a).is_none(), "third from one address");
        let _third = limits.admit(b).unwrap();
        assert!(limits.admit(b).is_none(), "fourth in total");
        drop(first);
        assert!(limits.admit(a).is_some());
        assert_eq!(limits.total(), 2);
        assert!(limits.open.lock().by_address.len() <= 2);
    }
}
