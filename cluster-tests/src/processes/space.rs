//! Network namespaces: one a node, one for the clients, a bridge between them in a hub.
//!
//! Faults of the network are rules of the bridge: whatever goes from one member to another passes
//! it, so that one place cuts any directed pair.

use super::sys::{enter, run, run_with};
use super::tunnel::Tunnel;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Who is connected to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A node, counted from 0.
    Node(usize),
    Clients,
}

/// What happens to frames of a directed pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub from: Member,
    pub to: Member,
    /// Only frames to this TCP port.
    pub port: Option<u16>,
    /// Share that is dropped.
    pub percent: u8,
}

/// The namespaces of one cluster; gone when dropped.
#[derive(Debug)]
pub struct Spaces {
    prefix: String,
    nodes: usize,
    rules: Vec<Rule>,
    tunnel: Option<Tunnel>,
}

/// Addresses are the same in every run: nothing of one run is seen by another.
const NET: &str = "10.77.0";

impl Member {
    fn interface(self) -> String {
        match self {
            Member::Node(n) => format!("n{}", n + 1),
            Member::Clients => "cl".to_owned(),
        }
    }

    fn number(self) -> u8 {
        match self {
            Member::Node(n) => 11 + n as u8,
            Member::Clients => 10,
        }
    }

    /// Its address.
    pub fn addr(self) -> String {
        format!("{NET}.{}", self.number())
    }
}

impl Spaces {
    /// Makes them. `prefix` is new for each cluster; `tunnel` is the seed of a network in user
    /// space.
    pub fn new(prefix: &str, nodes: usize, tunnel: Option<u64>) -> Result<Self, String> {
        let mut spaces = Self {
            prefix: prefix.to_owned(),
            nodes,
            rules: Vec::new(),
            tunnel: None,
        };
        match tunnel {
            Some(seed) => spaces.tunnels(seed)?,
            None => spaces.bridge()?,
        }
        Ok(spaces)
    }

    fn tunnels(&mut self, seed: u64) -> Result<(), String> {
        // The clients come first: see `Tunnel::start`.
        let all = self.members();
        let members = || all.iter().rev();
        let mut opened = Vec::new();
        for member in members() {
            run("ip", &["netns", "add", &self.name(&member.interface())])?;
            let space = self.open(*member).map_err(|e| e.to_string())?;
            opened.push((space, member.number()));
        }
        let tunnel = Tunnel::start(&opened, seed).map_err(|e| format!("TUN devices: {e}"))?;
        self.tunnel = Some(tunnel);
        for member in members() {
            self.address(*member)?;
        }
        Ok(())
    }

    /// Gives `eth0` of a member its address.
    fn address(&self, member: Member) -> Result<(), String> {
        let space = self.name(&member.interface());
        let addr = format!("{}/24", member.addr());
        run("ip", &["-n", &space, "addr", "add", &addr, "dev", "eth0"])?;
        run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        Ok(())
    }

    fn bridge(&mut self) -> Result<(), String> {
        let spaces = self;
        let hub = spaces.name("hub");
        run("ip", &["netns", "add", &hub])?;
        let ip = |args: &[&str]| {
            let mut all = vec!["-n", hub.as_str()];
            all.extend(args);
            run("ip", &all)
        };
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "br0", "type", "bridge"])?;
        ip(&["link", "set", "br0", "up"])?;
        for member in spaces.members() {
            let own = member.interface();
            let space = spaces.name(&own);
            run("ip", &["netns", "add", &space])?;
            ip(&[
                "link", "add", &own, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["link", "set", &own, "master", "br0", "up"])?;
            spaces.address(member)?;
        }
        spaces.nft(
            "table bridge chaos {\nchain forward {\ntype filter hook forward priority 0; policy accept;\n}\n}\n",
        )
    }

    /// The network in user space.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    fn members(&self) -> Vec<Member> {
        let nodes = (0..self.nodes).map(Member::Node);
        nodes.chain([Member::Clients]).collect()
    }

    fn name(&self, of: &str) -> String {
        format!("{}-{of}", self.prefix)
    }

    fn nft(&self, script: &str) -> Result<(), String> {
        let hub = self.name("hub");
        let args = ["netns", "exec", hub.as_str(), "nft", "-f", "-"];
        run_with("ip", &args, script).map(|_| ())
    }

    /// The namespace of a member, for [`enter`].
    pub fn open(&self, member: Member) -> io::Result<File> {
        let path = PathBuf::from("/run/netns").join(self.name(&member.interface()));
        File::open(path)
    }

    /// Moves this thread to the clients.
    pub fn enter_clients(&self) -> io::Result<()> {
        enter(&self.open(Member::Clients)?)
    }

    /// Replaces all rules, at once.
    pub fn apply(&mut self, rules: Vec<Rule>) -> Result<(), String> {
        let mut script = "flush chain bridge chaos forward\n".to_owned();
        for rule in &rules {
            script += &line(rule);
        }
        self.rules = rules;
        self.nft(&script)
    }

    /// The rules in force.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

fn line(rule: &Rule) -> String {
    let (from, to) = (rule.from.interface(), rule.to.interface());
    let mut out = format!("add rule bridge chaos forward iifname \"{from}\" oifname \"{to}\"");
    if let Some(port) = rule.port {
        out += &format!(" tcp dport {port}");
    }
    if rule.percent < 100 {
        out += &format!(" numgen random mod 100 < {}", rule.percent);
    }
    out + " drop\n"
}

/// Everything from one to the other is dropped.
pub fn cut(from: Member, to: Member) -> Rule {
    Rule {
        from,
        to,
        port: None,
        percent: 100,
    }
}

/// Both directions between each of `a` and each of `b`.
pub fn cut_both(a: &[Member], b: &[Member]) -> Vec<Rule> {
    let mut out = Vec::new();
    for one in a {
        for other in b {
            out.push(cut(*one, *other));
            out.push(cut(*other, *one));
        }
    }
    out
}

/// Nodes as members.
pub fn nodes(of: &[usize]) -> Vec<Member> {
    of.iter().copied().map(Member::Node).collect()
}

impl Drop for Spaces {
    fn drop(&mut self) {
        super::watchdog::remove_spaces(&self.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_text() {
        let rule = cut(Member::Node(0), Member::Clients);
        let text = "add rule bridge chaos forward iifname \"n1\" oifname \"cl\" drop\n";
        assert_eq!(line(&rule), text);
        let some = Rule {
            port: Some(9876),
            percent: 5,
            ..rule
        };
        assert!(line(&some).ends_with(" tcp dport 9876 numgen random mod 100 < 5 drop\n"));
        assert_eq!(cut_both(&nodes(&[0]), &nodes(&[1, 2])).len(), 4);
    }
}
