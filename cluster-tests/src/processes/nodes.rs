//! The processes of one cluster.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Broker names of the shards.
pub const SHARDS: [&str; 3] = ["broker-a", "broker-b", "broker-c"];

/// Ports of one node.
#[derive(Debug, Clone)]
struct Ports {
    peer: u16,
    namesrv: u16,
    http: u16,
    shards: [u16; 3],
}

/// Three nodes on loopback; killed when dropped.
pub struct Nodes {
    binary: PathBuf,
    dir: PathBuf,
    ports: Vec<Ports>,
    running: Vec<Option<Child>>,
    sets: Vec<String>,
}

/// Signals the driver sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Terminate,
    Stop,
    Continue,
}

impl Nodes {
    /// Data and logs below `dir`; `sets` are `key=value` settings of every node.
    pub fn new(binary: &Path, dir: &Path, sets: &[String]) -> std::io::Result<Self> {
        // All are held at once, so that none is given out twice.
        let held: Vec<TcpListener> = (0..18)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let mut free = Vec::new();
        for listener in &held {
            free.push(listener.local_addr()?.port());
        }
        let ports = free.chunks(6).map(|p| Ports {
            peer: p[0],
            namesrv: p[1],
            http: p[2],
            shards: [p[3], p[4], p[5]],
        });
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            ports: ports.collect(),
            running: vec![None, None, None],
            sets: sets.to_vec(),
        })
    }

    /// Addresses of the name servers.
    pub fn name_servers(&self) -> Vec<String> {
        let addr = |p: &Ports| format!("127.0.0.1:{}", p.namesrv);
        self.ports.iter().map(addr).collect()
    }

    /// The address of a shard's replica on a node; both count from 0.
    pub fn replica(&self, node: usize, shard: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].shards[shard])
    }

    /// Which node has this client address.
    pub fn node_of(&self, addr: &str) -> Option<usize> {
        let port: u16 = addr.rsplit_once(':')?.1.parse().ok()?;
        self.ports.iter().position(|p| p.shards.contains(&port))
    }

    /// The address of a node's pages.
    pub fn http(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].http)
    }

    /// Starts a node, counted from 0.
    pub fn start(&mut self, node: usize) -> std::io::Result<()> {
        let list = |of: &dyn Fn(usize, &Ports) -> String| {
            let all: Vec<String> = self
                .ports
                .iter()
                .enumerate()
                .map(|(n, p)| of(n, p))
                .collect();
            all.join(";")
        };
        let own = &self.ports[node];
        let shards: Vec<String> = own.shards.iter().map(u16::to_string).collect();
        let mut sets = vec![
            "cluster_id=process-test".to_owned(),
            format!("node_id={}", node + 1),
            format!(
                "peers={}",
                list(&|n, p| format!("{}=127.0.0.1:{}", n + 1, p.peer))
            ),
            format!(
                "namesrv_addr={}",
                list(&|_, p| format!("127.0.0.1:{}", p.namesrv))
            ),
            format!("peer_listen_port={}", own.peer),
            format!("namesrv_listen_port={}", own.namesrv),
            format!("http_listen_port={}", own.http),
            format!("shard_ports={}", shards.join(";")),
            "vip_enable=false".to_owned(),
            // The tests' data is small, and so may be the disk.
            "disk_min_free_bytes=0".to_owned(),
        ];
        sets.extend(self.sets.iter().cloned());
        let data = self.dir.join(format!("node-{}", node + 1));
        let log = |end: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(self.dir.join(format!("node-{}.{end}", node + 1)))
        };
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TROUPE_") {
                command.env_remove(name);
            }
        }
        command.arg("server").arg("--data-dir").arg(data);
        for set in sets {
            command.arg("--set").arg(set);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log("out")?)
            .stderr(log("err")?)
            .spawn()?;
        self.running[node] = Some(child);
        Ok(())
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&mut self, node: usize, signal: Signal) {
        if let Some(child) = &mut self.running[node] {
            let number = match signal {
                Signal::Kill => libc::SIGKILL,
                Signal::Terminate => libc::SIGTERM,
                Signal::Stop => libc::SIGSTOP,
                Signal::Continue => libc::SIGCONT,
            };
            // SAFETY: the child is ours and was not waited for, so the id is still its own.
            unsafe { libc::kill(child.id() as libc::pid_t, number) };
        }
    }

    /// Waits for a node's end; whether it ended by itself with success.
    pub fn wait(&mut self, node: usize, within: Duration) -> Option<bool> {
        let until = Instant::now() + within;
        let child = self.running[node].as_mut()?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.running[node] = None;
                    return Some(status.success());
                }
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    /// A page of a node's HTTP port; `None` when it does not answer with success.
    pub fn page(&self, node: usize, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let addr = self.http(node).parse().ok()?;
        let wait = Duration::from_millis(500);
        let mut stream = std::net::TcpStream::connect_timeout(&addr, wait).ok()?;
        stream.set_read_timeout(Some(wait)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// Waits until every node knows a leader for every shard.
    pub fn ready(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            if (0..3).all(|node| self.page(node, "/health/ready").is_some()) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("not every node was ready within {within:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
