//! How a node is started: its settings, its namespace, its environment.

use super::{Node, Nodes, SHARDS};
use crate::processes::space::Member;
use crate::processes::sys::{self, run};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRET: &str = "a secret of the process tests";

impl Nodes {
    fn sets(&self, node: usize) -> Vec<String> {
        let known = |n: &usize| *n < self.setup.members || *n == node;
        let list = |of: &dyn Fn(usize, &Node) -> String| {
            let all: Vec<String> = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(i, _)| known(i))
                .map(|(i, n)| of(i, n))
                .collect();
            all.join(";")
        };
        let own = &self.nodes[node];
        let shards: Vec<String> = own.ports.shards.iter().map(u16::to_string).collect();
        let mut sets = vec![
            "cluster_id=process-test".to_owned(),
            format!("node_id={}", node + 1),
            format!(
                "peers={}",
                list(&|i, n| format!("{}={}:{}", i + 1, n.host, n.ports.peer))
            ),
            format!("namesrv_addr={}", self.name_servers().join(";")),
            format!("shards={}", SHARDS.join(";")),
            format!("replicas={}", self.setup.members),
            format!("peer_listen_port={}", own.ports.peer),
            format!("namesrv_listen_port={}", own.ports.namesrv),
            format!("http_listen_port={}", own.ports.http),
            format!("shard_ports={}", shards.join(";")),
            "vip_enable=false".to_owned(),
        ];
        if self.setup.spaces {
            sets.push(format!("bind_host={}", own.host));
            sets.push("allow_insecure_non_loopback=true".to_owned());
            sets.push(format!("cluster_secret={SECRET}"));
        }
        if node >= self.setup.members {
            sets.push("join=true".to_owned());
        }
        // The tests' data is small, and so may be the disk.
        sets.push("disk_min_free_bytes=0".to_owned());
        if own.disk.is_none() {
            // The machine's disk may be full for other reasons.
            sets.push("disk_space_warning_level_ratio=99".to_owned());
        }
        sets.extend(self.setup.sets.iter().cloned());
        let key = |set: &str| set.split('=').next().unwrap_or_default().to_owned();
        sets.retain(|set| !own.sets.iter().any(|own| key(own) == key(set)));
        sets.extend(own.sets.iter().cloned());
        sets
    }

    /// Starts a node, counted from 0.
    pub fn start(&mut self, node: usize) -> Result<(), String> {
        let what = |e: std::io::Error| format!("starting node {}: {e}", node + 1);
        let log = |end: &str| {
            let path = self.setup.dir.join(format!("node-{}.{end}", node + 1));
            File::options().create(true).append(true).open(path)
        };
        let mut command = Command::new(&self.setup.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TROUPE_") {
                command.env_remove(name);
            }
        }
        command.arg("server").arg("--data-dir").arg(self.data(node));
        for set in self.sets(node) {
            command.arg("--set").arg(set);
        }
        if let Some(shim) = &self.setup.shim {
            command.env("LD_PRELOAD", shim);
            command.env("CLUSTER_TESTS_SHIM", self.control(node));
        }
        let space = match &self.spaces {
            Some(spaces) => Some(spaces.open(Member::Node(node)).map_err(what)?),
            None => None,
        };
        let boot = self.nodes[node].boot.as_deref().map(c_path);
        let boot = boot.transpose().map_err(what)?;
        let others = (0..self.count()).filter(|n| *n != node);
        let others = others.filter_map(|n| self.nodes[n].disk.as_ref());
        let leave: Vec<CString> = others
            .map(|disk| c_path(disk.dir()))
            .collect::<Result<_, _>>()
            .map_err(what)?;
        let before = move || {
            if let Some(boot) = &boot {
                sys::other_boot_id(boot, &leave)?;
            }
            if let Some(space) = &space {
                sys::enter(space)?;
            }
            sys::die_with_parent()
        };
        // SAFETY: between fork and exec only system calls without allocation are made.
        unsafe { command.pre_exec(before) };
        let child = command
            .stdin(Stdio::null())
            .stdout(log("out").map_err(what)?)
            .stderr(log("err").map_err(what)?)
            .spawn()
            .map_err(what)?;
        self.nodes[node].child = Some(child);
        self.nodes[node].wanted = true;
        self.nodes[node].stopped = false;
        Ok(())
    }

    /// `troupe cluster rescue` of a stopped node; what it printed.
    pub fn rescue(&self, node: usize, accept_loss: bool) -> Result<String, String> {
        let data = self.data(node);
        let data = data.to_string_lossy();
        let sets = self.sets(node);
        let mut all = vec!["cluster", "rescue", "--data-dir", &data];
        for set in &sets {
            all.extend(["--set", set]);
        }
        if accept_loss {
            all.push("--accept-loss");
        }
        run(&self.setup.binary.to_string_lossy(), &all)
    }

    /// `troupe cluster …` with the HTTP ports of all nodes; what it printed.
    pub fn cluster_command(&self, args: &[&str]) -> Result<String, String> {
        let of = |n: &Node| format!("{}:{}", n.host, n.ports.http);
        let http: Vec<String> = self.nodes.iter().filter(|n| n.wanted).map(of).collect();
        let http = http.join(",");
        let secret = self.setup.dir.join("secret");
        std::fs::write(&secret, SECRET).map_err(|e| e.to_string())?;
        let secret = secret.to_string_lossy();
        let mut all = vec!["cluster"];
        all.extend(args);
        all.extend(["--http", &http]);
        if self.setup.spaces && args.first() != Some(&"show") {
            all.extend(["--secret-file", &secret]);
        }
        run(&self.setup.binary.to_string_lossy(), &all)
    }
}

fn c_path(path: &Path) -> std::io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(std::io::Error::other)
}
