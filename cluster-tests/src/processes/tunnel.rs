//! A network in user space, for what the kernel's rules cannot do: packets are delayed, lost,
//! doubled, overtaken and changed on their way between TUN devices.

use super::rng::Rng;
use super::sys::enter;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest packet.
const MTU: usize = 1_500;

/// What happens to packets; shares in one of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    pub lost: u16,
    pub doubled: u16,
    /// A bit is flipped; the receiver's TCP drops such a packet.
    pub corrupted: u16,
    /// The same between nodes, with a right check sum: it reaches the program.
    pub forged: u16,
    pub delay: Duration,
    /// Up to so much more, for each packet anew, so that they overtake each other.
    pub jitter: Duration,
}

/// The forwarder; ends when dropped.
#[derive(Debug)]
pub struct Tunnel {
    weather: Arc<Mutex<Weather>>,
    forged: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Opens a new TUN device `eth0` in a namespace.
fn device(space: &File) -> io::Result<File> {
    const TUNSETIFF: u64 = 0x4004_54CA;
    const IFF_TUN: i16 = 1;
    const IFF_NO_PI: i16 = 0x1000;
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let open = || {
        enter(space)?;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mut request = Request {
            name: [0; 16],
            flags: IFF_TUN | IFF_NO_PI,
            rest: [0; 22],
        };
        request.name[..4].copy_from_slice(b"eth0");
        // SAFETY: the request has the size of the kernel's `ifreq` and lives through the call.
        match unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &mut request) } {
            0 => Ok(file),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // In a thread of its own: it stays in the namespace.
    std::thread::scope(|scope| match scope.spawn(open).join() {
        Ok(opened) => opened,
        Err(_) => Err(io::Error::other("opening the TUN device panicked")),
    })
}

impl Tunnel {
    /// `members`: namespace and last number of the address. The first one is no node.
    pub fn start(members: &[(File, u8)], seed: u64) -> io::Result<Self> {
        let mut devices = Vec::new();
        for (space, address) in members {
            devices.push((device(space)?, *address));
        }
        let weather = Arc::new(Mutex::new(Weather::default()));
        let end = Arc::new(AtomicBool::new(false));
        let forged = Arc::new(AtomicU64::new(0));
        let mut forwarder = Forwarder {
            devices,
            waiting: BinaryHeap::new(),
            packets: 0,
            rng: Rng::new(seed, 77),
            forged: forged.clone(),
        };
        let (own, ended) = (weather.clone(), end.clone());
        let thread = std::thread::Builder::new().name("tunnel".into());
        let thread = thread.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now = *own.lock().unwrap_or_else(|e| e.into_inner());
                forwarder.turn(now);
            }
        })?;
        Ok(Self {
            weather,
            forged,
            end,
            thread: Some(thread),
        })
    }

    /// From now on.
    pub fn weather(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(|e| e.into_inner()) = weather;
    }

    /// Packets that were forged so far.
    pub fn forged(&self) -> u64 {
        self.forged.load(Ordering::Relaxed)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Due time, number of the packet, device, bytes.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Forwarder {
    devices: Vec<(File, u8)>,
    waiting: BinaryHeap<Waiting>,
    packets: u64,
    rng: Rng,
    forged: Arc<AtomicU64>,
}

impl Forwarder {
    /// Waits for packets or for the next one that is due, and passes on what is.
    fn turn(&mut self, weather: Weather) {
        let now = Instant::now();
        let wait = match self.waiting.peek() {
            Some(Reverse((due, ..))) => due.saturating_duration_since(now),
            None => Duration::from_millis(50),
        };
        let mut polled: Vec<libc::pollfd> = self
            .devices
            .iter()
            .map(|(file, _)| libc::pollfd {
                fd: file.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: wait.min(Duration::from_millis(50)).as_nanos() as _,
        };
        let count = polled.len() as libc::nfds_t;
        // SAFETY: the array lives through the call and has `count` members.
        unsafe { libc::ppoll(polled.as_mut_ptr(), count, &wait, std::ptr::null()) };
        for (from, ready) in polled.iter().enumerate() {
            if ready.revents != 0 {
                self.receive(from, weather);
            }
        }
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = self.waiting.peek() {
            if *due > now {
                break;
            }
            if let Some(Reverse((_, _, to, packet))) = self.waiting.pop() {
                // What a full device does not take is lost, as on any network.
                let _ = (&self.devices[to].0).write(&packet);
            }
        }
    }

    fn receive(&mut self, from: usize, weather: Weather) {
        let mut buffer = [0; MTU + 100];
        // A few at a time, so that no device keeps the others waiting.
        for _ in 0..64 {
            let Ok(len) = (&self.devices[from].0).read(&mut buffer) else {
                return;
            };
            let packet = &buffer[..len];
            let Some(address) = packet.get(19).filter(|_| packet[0] >> 4 == 4) else {
                continue;
            };
            let to = self.devices.iter().position(|(_, own)| own == address);
            if let Some(to) = to {
                self.pass(from, to, packet.to_vec(), weather);
            }
        }
    }

    fn happens(&mut self, share: u16) -> bool {
        share > 0 && self.rng.below(1000) < usize::from(share)
    }

    fn pass(&mut self, from: usize, to: usize, mut packet: Vec<u8>, weather: Weather) {
        if self.happens(weather.lost) {
            return;
        }
        if self.happens(weather.corrupted) {
            let at = self.rng.below(packet.len().saturating_sub(20)) + 20;
            packet[at] ^= 1 << self.rng.below(8);
        }
        // The first device is the clients'.
        if from > 0 && to > 0 && self.happens(weather.forged) && forge(&mut packet, &mut self.rng) {
            self.forged.fetch_add(1, Ordering::Relaxed);
        }
        let copies = if self.happens(weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = self.rng.between(0, weather.jitter.as_micros() as u64);
            let due = Instant::now() + weather.delay + Duration::from_micros(jitter);
            self.packets += 1;
            let next = Reverse((due, self.packets, to, packet.clone()));
            self.waiting.push(next);
        }
    }
}

/// Flips a bit of what TCP carries and makes its check sum right; `false` when it carries nothing.
fn forge(packet: &mut [u8], rng: &mut Rng) -> bool {
    const TCP: u8 = 6;
    let head = usize::from(packet[0] & 15) * 4;
    if packet.get(9) != Some(&TCP) || packet.len() < head + 20 {
        return false;
    }
    let data = head + usize::from(packet[head + 12] >> 4) * 4;
    if packet.len() <= data {
        return false;
    }
    let at = data + rng.below(packet.len() - data);
    packet[at] ^= 1 << rng.below(8);
    packet[head + 16..head + 18].fill(0);
    let sum = tcp_sum(packet, head);
    packet[head + 16..head + 18].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The check sum of the TCP segment behind an IPv4 header of that length.
fn tcp_sum(packet: &[u8], head: usize) -> u16 {
    let segment = &packet[head..];
    let words = |bytes: &[u8]| -> u32 {
        let word = |c: &[u8]| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
        bytes.chunks(2).map(word).sum()
    };
    let mut sum = words(&packet[12..20]) + 6 + segment.len() as u32 + words(segment);
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_packet_has_a_right_sum() {
        let mut packet = vec![0u8; 20 + 20 + 7];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 77, 0, 11, 10, 77, 0, 12]);
        packet[20 + 12] = 0x50;
        packet[40..].copy_from_slice(b"payload");
        let before = packet.clone();
        assert!(forge(&mut packet, &mut Rng::new(1, 1)));
        assert_ne!(packet[40..], before[40..]);
        // The sum over all, its own field included, is zero.
        assert_eq!(tcp_sum(&packet, 20), 0);
        assert!(!forge(&mut packet[..40].to_vec(), &mut Rng::new(1, 1)));
    }
}
