//! Links between nodes over real sockets: who gets in, what arrives, what happens after a break.

use bytes::Bytes;
use parking_lot::Mutex;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use troupemq::peer::{bind, Lane, PeerAddr, PeerEvents, PeerLinks, PeerMessage, PeerOptions, Tls};

#[derive(Default)]
struct Seen {
    messages: Mutex<Vec<(u64, PeerMessage)>>,
    links: Mutex<Vec<(u64, bool, bool)>>,
    clocks: Mutex<Vec<(u64, i64)>>,
}

impl PeerEvents for Seen {
    fn deliver(&self, from: u64, batch: Vec<PeerMessage>) {
        let mut messages = self.messages.lock();
        messages.extend(batch.into_iter().map(|m| (from, m)));
    }
    fn clock(&self, peer: u64, wall_ms: i64) {
        self.clocks.lock().push((peer, wall_ms));
    }
    fn room(&self, _peer: u64) {}
    fn link(&self, peer: u64, outgoing: bool, up: bool) {
        self.links.lock().push((peer, outgoing, up));
    }
}

struct Node {
    links: PeerLinks,
    seen: Arc<Seen>,
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = bind("127.0.0.1", 0).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn options(node: u64, peers: &[(u64, SocketAddr)]) -> PeerOptions {
    let peers = peers.iter().map(|(id, addr)| PeerAddr {
        id: *id,
        addr: addr.to_string(),
    });
    PeerOptions {
        secret: b"a secret of the cluster".to_vec(),
        ping_every: Duration::from_millis(50),
        silent_after: Duration::from_millis(500),
        handshake_within: Duration::from_millis(1_000),
        backoff: (Duration::from_millis(10), Duration::from_millis(100)),
        ..PeerOptions::new("test-cluster", node, peers.collect())
    }
}

fn start(listener: TcpListener, options: PeerOptions) -> Node {
    let seen = Arc::new(Seen::default());
    let links = PeerLinks::start(listener, options, seen.clone()).unwrap();
    Node { links, seen }
}

fn within(what: &str, check: impl Fn() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn message(n: u32, len: usize) -> Bytes {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(len.max(4), n as u8);
    bytes.into()
}

fn pair(change: impl Fn(&mut PeerOptions)) -> (Node, Node) {
    let ((l1, a1), (l2, a2)) = (listener(), listener());
    let make = |node, peer| {
        let mut options = options(node, &[peer]);
        change(&mut options);
        options
    };
    (start(l1, make(1, (2, a2))), start(l2, make(2, (1, a1))))
}

fn connect(a: &Node, b: &Node) {
    within("both directions of both links are up", || {
        a.links.peers().connected(2) && b.links.peers().connected(1)
    });
}

/// Sends from `a` to `b` in all lanes and checks that everything arrives as it was.
fn exchange(a: &Node, b: &Node) {
    let peers = a.links.peers();
    let lanes = [Lane::Raft, Lane::Forward, Lane::Bulk];
    for n in 0..300u32 {
        let len = if n % 50 == 0 {
            300_000
        } else {
            20 + n as usize
        };
        let lane = lanes[n as usize % 3];
        assert!(peers.send(2, lane, n, message(n, len)), "{n}");
    }
    within("all messages arrive", || {
        b.seen.messages.lock().len() == 300
    });
    let messages = b.seen.messages.lock();
    for lane in lanes {
        let of_lane: Vec<_> = messages.iter().filter(|(_, m)| m.lane == lane).collect();
        assert_eq!(of_lane.len(), 100);
        assert!(
            of_lane.windows(2).all(|w| w[0].1.shard < w[1].1.shard),
            "a lane keeps its order"
        );
        for (from, m) in of_lane {
            let len = if m.shard % 50 == 0 {
                300_000
            } else {
                20 + m.shard as usize
            };
            assert_eq!((*from, &m.bytes), (1, &message(m.shard, len)));
        }
    }
}

#[test]
fn messages_arrive_in_order_and_unchanged() {
    let (a, b) = pair(|_| {});
    connect(&a, &b);
    exchange(&a, &b);
    assert_eq!(a.links.peers().states()[&2].dropped, 0);
    assert!(
        !a.links.peers().send(3, Lane::Raft, 1, message(1, 4)),
        "no such peer"
    );
    let huge = Bytes::from(vec![0; 32 << 20]);
    assert!(
        !a.links.peers().send(2, Lane::Raft, 1, huge),
        "longer than a frame"
    );
}

#[test]
fn both_ends_hear_each_others_clocks() {
    let (a, b) = pair(|_| {});
    connect(&a, &b);
    let until = Instant::now() + Duration::from_secs(5);
    for (node, other) in [(&a, 2), (&b, 1)] {
        // With a ping, and with the answer to one.
        while node.seen.clocks.lock().len() < 2 {
            assert!(Instant::now() < until, "no clock was heard");
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        let clocks = node.seen.clocks.lock();
        let right = |(from, wall): &(u64, i64)| *from == other && (now - wall).abs() < 10_000;
        assert!(clocks.iter().all(right), "{clocks:?} at {now}");
    }
}

#[test]
fn mutual_tls_carries_messages_and_keeps_others_out() {
    let issue = || {
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = ca.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, key);
        let node = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = node.signed_by(&key, &issuer).unwrap().pem();
        Tls::new(
            chain.as_bytes(),
            key.serialize_pem().as_bytes(),
            authority.as_bytes(),
        )
        .unwrap()
    };
    let tls = issue();
    let (a, b) = pair(|o| o.tls = Some(tls.clone()));
    connect(&a, &b);
    exchange(&a, &b);

    // A certificate of another authority, and none at all.
    let other = issue();
    for tls in [Some(other), None] {
        let (l3, _) = listener();
        let mut o = options(2, &[(1, a.links.local_addr())]);
        o.tls = tls;
        let stranger = start(l3, o);
        std::thread::sleep(Duration::from_millis(300));
        let state = stranger.links.peers().states()[&1];
        assert!(!state.outgoing && state.connects == 0, "{state:?}");
    }
    assert!(a.links.peers().connected(2), "the good link stays");
}

/// Starts node 2 with `change` against a good node 1; neither may count the other as connected.
fn refused(change: impl Fn(&mut PeerOptions)) {
    let ((l1, a1), (l2, a2)) = (listener(), listener());
    let good = start(l1, options(1, &[(2, a2)]));
    let mut bad = options(2, &[(1, a1)]);
    change(&mut bad);
    let bad = start(l2, bad);
    std::thread::sleep(Duration::from_millis(400));
    let states = (
        good.links.peers().states()[&2],
        bad.links.peers().states()[&1],
    );
    for state in [states.0, states.1] {
        assert!(
            !state.outgoing && !state.incoming && state.connects == 0,
            "{states:?}"
        );
    }
    assert!(good.seen.links.lock().is_empty() && bad.seen.links.lock().is_empty());
}

#[test]
fn another_secret_is_refused() {
    refused(|o| o.secret = b"guess".to_vec());
    refused(|o| o.secret = Vec::new());
}

#[test]
fn another_cluster_is_refused() {
    refused(|o| o.cluster_id = "another".to_owned());
}

#[test]
fn a_node_that_is_not_in_the_list_is_refused() {
    refused(|o| o.node_id = 3);
}

#[test]
fn a_node_is_let_in_once_it_is_added() {
    let (a, b) = pair(|_| {});
    connect(&a, &b);
    let (l3, a3) = listener();
    let third = start(l3, options(3, &[(1, a.links.local_addr())]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!third.links.peers().states()[&1].outgoing);
    let new = PeerAddr {
        id: 3,
        addr: a3.to_string(),
    };
    assert!(!a.links.peers().send(3, Lane::Raft, 1, message(1, 10)));
    assert!(a.links.peers().add(new.clone()));
    assert!(!a.links.peers().add(new), "once");
    let itself = PeerAddr {
        id: 1,
        addr: a3.to_string(),
    };
    assert!(!a.links.peers().add(itself));
    within("both directions come up", || {
        a.links.peers().connected(3) && third.links.peers().connected(1)
    });
    assert!(third.links.peers().send(1, Lane::Raft, 9, message(9, 10)));
    within("it is heard", || !a.seen.messages.lock().is_empty());
    assert!(a.links.peers().connected(2), "the others keep theirs");
}

#[test]
fn a_second_process_with_the_same_id_is_refused_until_the_first_is_gone() {
    let (a, b) = pair(|_| {});
    connect(&a, &b);
    let (l3, _) = listener();
    let second = start(l3, options(2, &[(1, a.links.local_addr())]));
    std::thread::sleep(Duration::from_millis(400));
    assert!(!second.links.peers().states()[&1].outgoing);
    assert!(a.links.peers().connected(2), "the first keeps its link");
    b.links.stop();
    within("the second takes over", || {
        second.links.peers().states()[&1].outgoing
    });
    assert!(second.links.peers().send(1, Lane::Raft, 9, message(9, 10)));
    within("and is heard", || !a.seen.messages.lock().is_empty());
}

#[test]
fn garbage_closes_its_own_connection_only() {
    let (a, b) = pair(|_| {});
    connect(&a, &b);
    let mut frame = vec![0, 0, 4, 0];
    frame.extend([7; 600]);
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        &[0; 64],
        // A client's frame of the remoting protocol.
        b"\x00\x00\x00\x20\x00\x00\x00\x1c{\"code\":34,\"opaque\":1}       ",
        // A length that is allowed, and a wrong checksum.
        &frame,
        // The start of a TLS handshake.
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(a.links.local_addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        // Closed at once, or when the time for the handshake is over.
        let end = stream.read_to_end(&mut rest);
        let closed =
            end.is_ok() || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(closed, "{bytes:?} keeps its connection");
        assert!(rest.len() < 100);
    }
    // Many that say nothing: bounded, and the cluster goes on.
    let silent: Vec<_> = (0..200)
        .filter_map(|_| TcpStream::connect(a.links.local_addr()).ok())
        .collect();
    exchange(&a, &b);
    drop(silent);
    assert!(a.links.peers().connected(2));
}

/// Passes bytes between the nodes, and can be cut or made to change a byte.
struct Proxy {
    addr: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Everything is swallowed, nothing is closed.
    Hold,
    /// Nothing is read.
    Stall,
    /// Closes what is open and refuses.
    Cut,
    /// The next bytes are changed.
    Spoil,
}

fn proxy(to: SocketAddr) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mode = Arc::new(Mutex::new(Mode::Pass));
    let of = mode.clone();
    let pump = move |mut from: TcpStream, mut to: TcpStream, mode: Arc<Mutex<Mode>>| {
        from.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut buf = [0; 65_536];
        loop {
            while *mode.lock() == Mode::Stall {
                std::thread::sleep(Duration::from_millis(10));
            }
            let read = from.read(&mut buf);
            let now = *mode.lock();
            let n = match (read, now) {
                (_, Mode::Cut) | (Ok(0), _) => break,
                (Ok(_), Mode::Hold) => continue,
                (Ok(n), _) => n,
                (Err(_), _) => continue,
            };
            if now == Mode::Spoil {
                buf[n - 1] ^= 1;
                *mode.lock() = Mode::Pass;
            }
            if to.write_all(&buf[..n]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(std::net::Shutdown::Both);
        let _ = to.shutdown(std::net::Shutdown::Both);
    };
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            if *of.lock() == Mode::Cut {
                continue;
            }
            let Ok(to) = TcpStream::connect(to) else {
                continue;
            };
            let (from2, to2) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (m1, m2) = (of.clone(), of.clone());
            std::thread::spawn(move || pump(from, to, m1));
            std::thread::spawn(move || pump(to2, from2, m2));
        }
    });
    Proxy { addr, mode }
}

#[test]
fn a_broken_link_is_noticed_and_comes_back() {
    let ((l1, a1), (l2, a2)) = (listener(), listener());
    let way = proxy(a2);
    let a = start(l1, options(1, &[(2, way.addr)]));
    let b = start(l2, options(2, &[(1, a1)]));
    let peers = a.links.peers();
    connect(&a, &b);
    let mut connects = 1;
    for mode in [Mode::Cut, Mode::Hold, Mode::Spoil] {
        *way.mode.lock() = mode;
        // Something must be on its way to be spoilt or lost; pings are.
        within("both ends notice", || {
            let seen = b.seen.links.lock();
            !peers.states()[&2].outgoing && seen.last() == Some(&(1, false, false))
                || peers.states()[&2].connects > connects
        });
        *way.mode.lock() = Mode::Pass;
        within("the link comes back", || {
            peers.states()[&2].connects > connects
                && peers.connected(2)
                && b.links.peers().connected(1)
        });
        connects = peers.states()[&2].connects;
        b.seen.messages.lock().clear();
        exchange(&a, &b);
        b.seen.messages.lock().clear();
    }
    let seen = a.seen.links.lock();
    let outgoing: Vec<bool> = seen.iter().filter(|l| l.1).map(|l| l.2).collect();
    assert!(
        outgoing.windows(2).all(|w| w[0] != w[1]) && outgoing.len() >= 7,
        "ups and downs take turns: {outgoing:?}"
    );
}

#[test]
fn what_waits_for_a_stuck_peer_is_bounded() {
    let ((l1, a1), (l2, a2)) = (listener(), listener());
    let way = proxy(a2);
    let mut o = options(1, &[(2, way.addr)]);
    o.max_queued = 1 << 20;
    o.silent_after = Duration::from_secs(3);
    let a = start(l1, o);
    let mut o = options(2, &[(1, a1)]);
    o.silent_after = Duration::from_secs(3);
    let b = start(l2, o);
    connect(&a, &b);
    *way.mode.lock() = Mode::Stall;
    let peers = a.links.peers();
    let mut dropped = 0;
    for n in 0..2_000 {
        if !peers.send(2, Lane::Raft, n, message(n, 100_000)) {
            dropped += 1;
        }
        assert!(peers.states()[&2].queued <= 1 << 20);
    }
    assert!(dropped > 1_000, "{dropped}");
    assert_eq!(peers.states()[&2].dropped, dropped);
}
