//! The processes of one cluster.

mod launch;

use super::disk::Disk;
use super::space::{Member, Spaces};
use super::sys::{self, run};
use super::view::{self, ShardView};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// Broker names of the shards.
pub const SHARDS: [&str; 3] = ["broker-a", "broker-b", "broker-c"];
/// Ports in a namespace of its own.
const OWN_PORTS: Ports = Ports {
    peer: 10912,
    namesrv: 9876,
    http: 8080,
    shards: [10911, 10921, 10931],
};

/// Ports of one node.
#[derive(Debug, Clone, Copy)]
struct Ports {
    peer: u16,
    namesrv: u16,
    http: u16,
    shards: [u16; 3],
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    pub binary: PathBuf,
    /// Data and logs.
    pub dir: PathBuf,
    /// Carried by everything that the kernel knows by name.
    pub prefix: String,
    /// All, and how many of them are the cluster at its beginning.
    pub nodes: usize,
    pub members: usize,
    /// `key=value` settings of every node.
    pub sets: Vec<String>,
    /// Network namespaces instead of loopback ports.
    pub spaces: bool,
    /// The seed of a network in user space, instead of a bridge.
    pub tunnel: Option<u64>,
    /// A file system for each node, of so many MiB.
    pub disk_mib: Option<u64>,
    /// A library that is loaded before all others; each node has a control file for it.
    pub shim: Option<PathBuf>,
}

struct Node {
    ports: Ports,
    host: String,
    child: Option<Child>,
    disk: Option<Disk>,
    stopped: bool,
    /// It is to run.
    wanted: bool,
    /// What the node takes for the machine's boot id, after a power cut.
    boot: Option<PathBuf>,
    /// Settings of this node alone.
    sets: Vec<String>,
}

/// Nodes as processes; killed when dropped.
pub struct Nodes {
    setup: Setup,
    nodes: Vec<Node>,
    /// After the nodes: those are ended before their namespaces go.
    pub spaces: Option<Spaces>,
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
    /// Makes what the nodes live in; none is started.
    pub fn new(setup: Setup) -> Result<Self, String> {
        let io = |e: std::io::Error| e.to_string();
        std::fs::create_dir_all(&setup.dir).map_err(io)?;
        let spaces = match setup.spaces {
            true => Some(Spaces::new(&setup.prefix, setup.nodes, setup.tunnel)?),
            false => None,
        };
        let ports = match setup.spaces {
            true => vec![OWN_PORTS; setup.nodes],
            false => free_ports(setup.nodes).map_err(io)?,
        };
        let mut nodes = Vec::new();
        for (n, ports) in ports.into_iter().enumerate() {
            let mount = setup.dir.join(format!("node-{}", n + 1));
            let image = setup.dir.join(format!("node-{}.ext4", n + 1));
            let disk = setup.disk_mib.map(|mib| Disk::new(&image, &mount, mib));
            let host = match setup.spaces {
                true => Member::Node(n).addr(),
                false => "127.0.0.1".to_owned(),
            };
            nodes.push(Node {
                ports,
                host,
                child: None,
                disk: disk.transpose()?,
                stopped: false,
                wanted: n < setup.members,
                boot: None,
                sets: Vec::new(),
            });
        }
        Ok(Self {
            setup,
            nodes,
            spaces,
        })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Those that are to run.
    pub fn wanted(&self) -> Vec<usize> {
        (0..self.count())
            .filter(|n| self.nodes[*n].wanted)
            .collect()
    }

    /// It ended for good.
    pub fn retire(&mut self, node: usize) {
        self.nodes[node].wanted = false;
    }

    /// The address for other nodes.
    pub fn peer(&self, node: usize) -> String {
        let node = &self.nodes[node];
        format!("{}:{}", node.host, node.ports.peer)
    }

    /// Addresses of the name servers.
    pub fn name_servers(&self) -> Vec<String> {
        (0..self.setup.members)
            .map(|n| self.name_server(n))
            .collect()
    }

    /// The name server of a node.
    pub fn name_server(&self, node: usize) -> String {
        format!(
            "{}:{}",
            self.nodes[node].host, self.nodes[node].ports.namesrv
        )
    }

    /// The address of a shard's replica on a node; both count from 0.
    pub fn replica(&self, node: usize, shard: usize) -> String {
        format!(
            "{}:{}",
            self.nodes[node].host, self.nodes[node].ports.shards[shard]
        )
    }

    /// All of [`Nodes::replica`], by node and shard.
    pub fn replicas(&self) -> Vec<Vec<String>> {
        let of = |n| (0..SHARDS.len()).map(move |s| (n, s));
        let all = (0..self.count()).map(|n| of(n).map(|(n, s)| self.replica(n, s)).collect());
        all.collect()
    }

    /// The directory of a node's data.
    pub fn data(&self, node: usize) -> PathBuf {
        self.setup
            .dir
            .join(format!("node-{}", node + 1))
            .join("data")
    }

    /// The directory of data and logs of all.
    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// The file system of a node.
    pub fn disk(&mut self, node: usize) -> Result<&mut Disk, String> {
        let disk = self.nodes[node].disk.as_mut();
        disk.ok_or_else(|| "the node has no file system of its own".into())
    }

    /// The control file of a node's shim.
    pub fn control(&self, node: usize) -> PathBuf {
        Self::control_in(&self.setup.dir, node)
    }

    /// The same, before there are nodes.
    pub fn control_in(dir: &Path, node: usize) -> PathBuf {
        dir.join(format!("node-{}.shim", node + 1))
    }

    /// What everything that the kernel knows by name begins with.
    pub fn prefix(&self) -> &str {
        &self.setup.prefix
    }

    /// Resident memory of a node.
    pub fn resident_mib(&self, node: usize) -> Option<u64> {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.pid(node)?)).ok()?;
        let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
        Some(pages * 4 / 1024)
    }

    /// Settings of one node, from its next start on.
    pub fn set(&mut self, node: usize, sets: &[&str]) {
        self.nodes[node].sets = sets.iter().map(|s| (*s).to_owned()).collect();
    }

    /// Starts all that are to run and do not.
    pub fn start_all(&mut self) -> Result<(), String> {
        for node in self.wanted() {
            if self.nodes[node].child.is_none() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// What it wrote to its log so far, over all its starts.
    pub fn log(&self, node: usize) -> String {
        let path = self.dir().join(format!("node-{}.err", node + 1));
        let log = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Process id, while it runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].child.as_ref().map(Child::id)
    }

    /// Whether it was started and neither ended nor is stopped.
    pub fn runs(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        match &mut node.child {
            Some(child) => matches!(child.try_wait(), Ok(None)) && !node.stopped,
            None => false,
        }
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&mut self, node: usize, signal: Signal) {
        let node = &mut self.nodes[node];
        if let Some(child) = &node.child {
            let number = match signal {
                Signal::Kill => libc::SIGKILL,
                Signal::Terminate => libc::SIGTERM,
                Signal::Stop => libc::SIGSTOP,
                Signal::Continue => libc::SIGCONT,
            };
            match signal {
                Signal::Stop => node.stopped = true,
                Signal::Continue => node.stopped = false,
                _ => {}
            }
            // Not waited for yet, so that the id is still its own.
            sys::signal(child.id(), number);
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self, node: usize) -> Result<(), String> {
        self.signal(node, Signal::Kill);
        match self.wait(node, Duration::from_secs(10)) {
            Some(_) => Ok(()),
            None => Err(format!("node {} did not die", node + 1)),
        }
    }

    /// A power cut of one node: what it did not sync is gone. It can be started again.
    pub fn power_cut(&mut self, node: usize) -> Result<(), String> {
        self.power_off(&[node])?;
        self.kill(node)?;
        let boot = self.setup.dir.join(format!("node-{}.boot", node + 1));
        let other = run("cat", &["/proc/sys/kernel/random/uuid"])?;
        std::fs::write(&boot, other).map_err(|e| e.to_string())?;
        self.nodes[node].boot = Some(boot);
        self.disk(node)?.again()
    }

    /// The first half of [`Nodes::power_cut`], for all of these at one moment: they stand still, and their disks are
    /// off. One after the other they would elect a leader in between, and sync their logs with its term.
    pub fn power_off(&mut self, nodes: &[usize]) -> Result<(), String> {
        for node in nodes {
            self.signal(*node, Signal::Stop);
        }
        for node in nodes {
            self.disk(*node)?.power_cut()?;
        }
        Ok(())
    }

    /// Waits for a node's end; whether it ended by itself with success.
    pub fn wait(&mut self, node: usize, within: Duration) -> Option<bool> {
        let until = Instant::now() + within;
        let node = &mut self.nodes[node];
        let child = node.child.as_mut()?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    node.child = None;
                    node.stopped = false;
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
        let node = &self.nodes[node];
        if node.stopped || node.child.is_none() {
            return None;
        }
        let addr = format!("{}:{}", node.host, node.ports.http).parse().ok()?;
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

    /// What a node tells of the shards.
    pub fn view(&self, node: usize) -> Option<Vec<ShardView>> {
        view::parse(&self.page(node, "/cluster")?)
    }

    /// A node's metric by the end of its name, summed over its labels; `None` when there is none.
    pub fn metric(&self, node: usize, name: &str) -> Option<f64> {
        let page = self.page(node, "/metrics")?;
        let of_line = |line: &str| {
            let (labelled, value) = line.rsplit_once(' ')?;
            let own = labelled.split('{').next()?;
            own.ends_with(name).then(|| value.parse::<f64>().ok())?
        };
        let found: Vec<f64> = page.lines().filter_map(of_line).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// Waits until every node of `of` knows a leader for every shard.
    pub fn ready(&self, of: &[usize], within: Duration) -> Result<(), String> {
        let ready = |node: &usize| self.page(*node, "/health/ready").is_some();
        wait_until(within, || of.iter().all(ready))
            .ok_or_else(|| format!("not every node was ready within {within:?}"))
            .map(|_| ())
    }

    /// The node that serves a shard as its leader with the highest term.
    pub fn leader(&self, shard: usize) -> Option<(usize, u64)> {
        let mut found: Option<(usize, u64)> = None;
        for node in 0..self.count() {
            let view = self.view(node).unwrap_or_default();
            let own = view.iter().find(|s| s.name == SHARDS[shard] && s.serving);
            if let Some(own) = own {
                if found.is_none_or(|(_, term)| term < own.term) {
                    found = Some((node, own.term));
                }
            }
        }
        found
    }
}

/// Asks again and again; the time it took, `None` when it took longer.
pub fn wait_until(within: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    loop {
        if done() {
            return Some(begin.elapsed());
        }
        if begin.elapsed() > within {
            return None;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn free_ports(nodes: usize) -> std::io::Result<Vec<Ports>> {
    // All are held at once, so that none is given out twice.
    let held: Vec<TcpListener> = (0..6 * nodes)
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
    Ok(ports.collect())
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(disk) = &mut node.disk {
                disk.thaw();
            }
            if let Some(child) = &mut node.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
