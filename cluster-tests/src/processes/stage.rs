//! A running cluster under load, on which a scenario plays its faults.

use super::check::{self, Clocks, Isolated, PowerCut, Stored};
use super::history::{Place, TOPICS};
use super::java::{self, Java};
use super::judge::{gap, panics, slow_pushes, too_slow, Fault};
use super::load::{Load, Plan};
use super::nodes::{wait_until, Nodes, Setup, Signal, SHARDS};
use super::read::{read_all, retry};
use super::report::{Row, Verdict};
use super::rng::Rng;
use super::space::{Rule, Spaces};
use super::tunnel::{Tunnel, Weather};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use troupemq::client::Client;

/// Load before the first fault.
const WARM_UP: Duration = Duration::from_secs(4);

/// See the module text.
pub struct Stage {
    pub nodes: Nodes,
    pub load: Load,
    pub rng: Rng,
    /// How long faults come.
    pub seconds: u64,
    pub isolated: Vec<Isolated>,
    /// All nodes lost their power, and the class allows a loss.
    pub power_cut: Option<PowerCut>,
    /// A loss was reported by the nodes.
    pub unclean_reported: bool,
    /// Half of the times to recover are to be below this.
    pub median: Option<Duration>,
    /// Nodes fall silent and close nothing: a send of Java waits out its 3 s on the first attempt,
    /// and its retries come out of the same 3 s.
    pub silent: bool,
    /// Retention is at work.
    pub retention: bool,
    /// Sends may fail: there was nobody to take them.
    pub sends_may_fail: bool,
    java: Option<Java>,
    problems: Vec<String>,
    faults: Vec<Fault>,
    seed: u64,
    began: Instant,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// Starts the nodes, makes the topics and puts load on them.
    pub fn open(setup: Setup, seed: u64, rate: u32, seconds: u64) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let mut nodes = Nodes::new(setup)?;
        if let Some(spaces) = &nodes.spaces {
            spaces
                .enter_clients()
                .map_err(|e| format!("entering the clients' namespace: {e}"))?;
        }
        nodes.start_all()?;
        let all = nodes.wanted();
        nodes.ready(&all, Duration::from_secs(20))?;
        runtime.block_on(make_topics(&nodes))?;
        let load = Load::start(Plan {
            name_servers: nodes.name_servers(),
            replicas: nodes.replicas(),
            rate,
            seed,
        })
        .map_err(|e| e.to_string())?;
        let stage = Self {
            nodes,
            load,
            rng: Rng::new(seed, 1),
            seconds,
            isolated: Vec::new(),
            power_cut: None,
            unclean_reported: false,
            median: None,
            silent: false,
            retention: false,
            sends_may_fail: false,
            java: None,
            problems: Vec::new(),
            faults: Vec::new(),
            seed,
            began: Instant::now() + WARM_UP,
            runtime,
        };
        std::thread::sleep(WARM_UP);
        stage.acks_again(Duration::from_secs(10))?;
        Ok(stage)
    }

    /// Java clients send and consume too.
    pub fn add_java(&mut self, client: &str) -> Result<(), String> {
        let begin_ns = self.load.begin_ns();
        self.java = Some(Java::start(client, &self.nodes.name_servers(), begin_ns)?);
        self.sleep(3.0);
        self.began = Instant::now();
        Ok(())
    }

    /// Whether there is time for one more fault; there always is for the first.
    pub fn more(&self) -> bool {
        self.faults.is_empty() || self.began.elapsed() < Duration::from_secs(self.seconds)
    }

    /// A criterion was not met.
    pub fn problem(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(&format!("PROBLEM: {what}"));
        self.problems.push(what);
    }

    /// One line of progress.
    pub fn note(&self, what: &str) {
        let at = self.load.now() as f64 / 1e6;
        eprintln!("  {at:7.2} s  {what}");
    }

    /// Waits, while the load goes on.
    pub fn sleep(&self, seconds: f64) {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }

    /// The node that leads a shard.
    pub fn leader(&self, shard: usize) -> Result<usize, String> {
        let mut found = None;
        wait_until(Duration::from_secs(10), || {
            found = self.nodes.leader(shard);
            found.is_some()
        });
        let name = SHARDS[shard];
        found
            .map(|(node, _)| node)
            .ok_or_else(|| format!("{name} has no leader"))
    }

    /// The shards that a node leads.
    pub fn led_by(&self, node: usize) -> Vec<usize> {
        let leads = |s: &usize| self.nodes.leader(*s).is_some_and(|(n, _)| n == node);
        (0..SHARDS.len()).filter(leads).collect()
    }

    /// The other shards.
    pub fn followed_by(&self, node: usize) -> Vec<usize> {
        let led = self.led_by(node);
        (0..SHARDS.len()).filter(|s| !led.contains(s)).collect()
    }

    /// All nodes but these.
    pub fn others(&self, than: &[usize]) -> Vec<usize> {
        let mut all = self.nodes.wanted();
        all.retain(|n| !than.contains(n));
        all
    }

    /// From now on the effect of a fault on these shards is measured.
    pub fn fault(&mut self, what: String, shards: &[usize], limit: Option<Duration>) {
        self.note(&what);
        self.faults.push(Fault {
            what,
            shards: shards.to_vec(),
            from: self.load.now(),
            to: u64::MAX,
            limit,
        });
    }

    /// The measurement of the last fault ends here.
    pub fn measured(&mut self) {
        let now = self.load.now();
        if let Some(fault) = self.faults.last_mut() {
            fault.to = fault.to.min(now);
        }
    }

    /// Replaces the rules of the network.
    pub fn network(&mut self, rules: Vec<Rule>) -> Result<(), String> {
        match &mut self.nodes.spaces {
            Some(spaces) => spaces.apply(rules),
            None => Err("there are no network namespaces".into()),
        }
    }

    /// Changes the weather of a network in user space.
    pub fn weather(&mut self, weather: Weather) -> Result<(), String> {
        let tunnel = self.nodes.spaces.as_ref().and_then(Spaces::tunnel);
        tunnel
            .ok_or("there is no network in user space")?
            .weather(weather);
        Ok(())
    }

    /// Packets forged so far.
    pub fn forged(&self) -> u64 {
        let tunnel = self.nodes.spaces.as_ref().and_then(Spaces::tunnel);
        tunnel.map_or(0, Tunnel::forged)
    }

    /// Waits until every shard acknowledges something that came from now on.
    pub fn acks_again(&self, within: Duration) -> Result<Duration, String> {
        let now = self.load.now();
        let all = || (0..SHARDS.len()).all(|s| self.load.last_ack(s) > now);
        wait_until(within, all)
            .ok_or_else(|| format!("a shard acknowledged nothing within {within:?}"))
    }

    /// Waits until all nodes are ready, all shards acknowledge and all replicas have caught up.
    pub fn recovered(&mut self, within: Duration) -> Result<(), String> {
        let begin = Instant::now();
        let all = self.nodes.wanted();
        self.nodes.ready(&all, within)?;
        self.acks_again(within)?;
        let mut behind = String::new();
        let done = wait_until(within, || match self.behind() {
            Some(why) => {
                behind = why;
                false
            }
            None => true,
        });
        if done.is_none() {
            return Err(format!("not caught up within {within:?}: {behind}"));
        }
        self.note(&format!(
            "recovered after {:.1} s",
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Which replica lacks more than what is on its way.
    fn behind(&self) -> Option<String> {
        const ON_THE_WAY: u64 = 200;
        for (shard, name) in SHARDS.iter().enumerate() {
            let Some((leader, _)) = self.nodes.leader(shard) else {
                return Some(format!("{name} has no leader"));
            };
            let view = self.nodes.view(leader).unwrap_or_default();
            let Some(own) = view.iter().find(|s| s.name == *name) else {
                return Some(format!("node {} does not tell of {name}", leader + 1));
            };
            let wanted = self.nodes.wanted();
            let known = |id: u64| wanted.iter().any(|n| *n as u64 + 1 == id);
            for (node, lag) in own.lags.iter().filter(|(id, _)| known(*id)) {
                if lag.is_none_or(|lag| lag > ON_THE_WAY) {
                    return Some(format!("{name} on node {node}: {lag:?} entries behind"));
                }
            }
        }
        None
    }

    /// The usual end of a fault: everything recovers, then it is calm long enough for leadership
    /// to go back to the preferred nodes.
    pub fn settle(&mut self, within: Duration) -> Result<(), String> {
        self.recovered(within)?;
        self.sleep(3.0);
        self.measured();
        Ok(())
    }

    /// A node starts with an empty disk.
    pub fn wipe(&mut self, node: usize) -> Result<(), String> {
        let data = self.nodes.data(node);
        std::fs::remove_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
        self.nodes.start(node)
    }

    /// Runs something of the client library.
    pub fn block_on<T>(&self, work: impl std::future::Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn heal(&mut self) -> Result<(), String> {
        if self
            .nodes
            .spaces
            .as_ref()
            .is_some_and(|s| !s.rules().is_empty())
        {
            self.network(Vec::new())?;
        }
        let _ = self.weather(Weather::default());
        for node in 0..self.nodes.count() {
            if let Ok(disk) = self.nodes.disk(node) {
                disk.thaw();
            }
            self.nodes.signal(node, Signal::Continue);
            if self.nodes.pid(node).is_some() && !self.nodes.runs(node) {
                let _ = self.nodes.wait(node, Duration::ZERO);
                self.problem(format!("node {} ended by itself", node + 1));
            }
        }
        self.nodes.start_all()
    }

    /// Heals, drains, reads everything twice and checks it.
    /// Violations of the kinds in `allow` do not fail it.
    pub fn close(mut self, name: &str, allow: &[String]) -> Result<Row, String> {
        self.measured();
        self.heal()?;
        if let Err(why) = self.recovered(Duration::from_secs(60)) {
            self.problem(why);
        }
        let settled = self.load.now();
        self.load.end_sending();
        let java = self.end_java();
        // The longest delay.
        self.sleep(6.0);
        let wanted = self.nodes.wanted();
        let mut up = wanted.clone();
        up.retain(|n| self.nodes.page(*n, "/health/ready").is_some());
        if up.is_empty() {
            return Err(self.ends_dead());
        }
        let stored = self.read(&up)?;
        let ends: BTreeMap<Place, i64> = stored.iter().map(|(p, q)| (*p, q.max)).collect();
        let mut why = String::new();
        let drained = wait_until(Duration::from_secs(30), || match self.load.drained(&ends) {
            Ok(()) => true,
            Err(behind) => {
                why = behind;
                false
            }
        });
        if drained.is_none() {
            self.problem(format!("consumers did not drain: {why}"));
        }
        let again = match up == wanted {
            true => self.read_from_others()?,
            false => stored.clone(),
        };
        let faults = std::mem::take(&mut self.faults);
        let seed = self.seed;
        let Self {
            nodes,
            load,
            isolated,
            power_cut,
            unclean_reported,
            median,
            silent,
            retention,
            sends_may_fail,
            mut problems,
            ..
        } = self;
        let mut history = load.stop();
        history.sent.extend(java.sent);
        history.failed.extend(java.failed);
        let path = nodes.dir().join("history.tsv");
        history.write(&path).map_err(|e| e.to_string())?;
        problems.extend(panics(&nodes));
        // A cut of all keeps what it kept: what is lost is judged there.
        let (mut found, duplicated) = check::sends(&history.sent, &stored);
        let mut lost = found.count("lost") + found.count("moved");
        let order = check::order(&history.sent);
        let reordered = order.count("reordered");
        match power_cut {
            None => {
                found.merge(check::consumers(
                    &history.sessions,
                    &stored,
                    drained.is_some(),
                ));
                found.merge(check::stale_reads(&history.reads));
                found.merge(order);
            }
            Some(cut) => {
                let (of_tail, tail) = check::tail(&history.sent, &stored, cut);
                lost = of_tail;
                found = tail;
                if lost > 0 && !unclean_reported {
                    problems.push(format!("{lost} lost, and no node says so"));
                }
            }
        }
        found.merge(check::pushed(&history.sent, &java.pushed));
        found.merge(check::holes(&stored));
        if retention {
            // The queue that it was delivered to may have let go of it.
            found.take("delayed for ever");
        } else {
            found.merge(check::expired(&stored));
            found.merge(check::same(&stored, &again));
        }
        found.merge(check::minority(&history.sent, &isolated));
        let clocks = Clocks {
            early: 20_000,
            late: 11_000_000,
            settled: settled.saturating_sub(5_000_000),
        };
        found.merge(check::delays(&history.sent, &history.sessions, clocks));
        for line in found.lines() {
            eprintln!("  {line}");
        }
        let mut allowed = String::new();
        for kind in allow {
            let count = found.take(kind);
            if count > 0 {
                allowed += &format!(", allowed: {count} {kind}");
            }
        }
        let gaps: Vec<Duration> = faults
            .iter()
            .map(|f| f.shards.iter().map(|s| gap(&history.acks[*s], f)).max())
            .map(Option::unwrap_or_default)
            .collect();
        problems.extend(too_slow(&faults, &gaps, &history, median));
        problems.extend(slow_pushes(&faults, &java.pushed));
        let mut failed = history.failed.clone();
        failed.retain(|(_, why)| !(silent && java::out_of_time(why)));
        if !failed.is_empty() && !sends_may_fail {
            problems.push(format!("{} sends failed", failed.len()));
            for (at, why) in failed.iter().take(5) {
                eprintln!("  failed send at {:.2} s: {why}", *at as f64 / 1e6);
            }
        }
        if !found.is_empty() {
            problems.insert(0, found.summary());
        }
        Ok(Row {
            scenario: name.to_owned(),
            seed,
            acked: history.acked(),
            lost,
            duplicated,
            reordered,
            failed_sends: history.failed.len(),
            gaps,
            allowed,
            verdict: match problems.is_empty() {
                true => Verdict::Passed,
                false => Verdict::Failed(problems.join("; ")),
            },
        })
    }

    /// Ends the producers of Java, and waits until its consumers have everything.
    fn end_java(&mut self) -> java::Log {
        let Some(mut java) = self.java.take() else {
            return java::Log::default();
        };
        if let Err(why) = java.end_sending() {
            self.problem(why);
        }
        let mut log = java.log();
        wait_until(Duration::from_secs(30), || {
            log = java.log();
            check::pushed(&log.sent, &log.pushed).count("not pushed") == 0
        });
        self.note(&format!(
            "Java: {} attempts known, {} failed, {} pushed",
            log.sent.len(),
            log.failed.len(),
            log.pushed.len()
        ));
        log
    }

    /// What to say when no node is left that could be read from.
    fn ends_dead(&self) -> String {
        let why = self.problems.join("; ");
        format!("no node is ready at the end: {why}")
    }

    /// Reads everything, from any of these nodes.
    fn read(&mut self, of: &[usize]) -> Result<Stored, String> {
        let nodes = &self.nodes;
        let addrs = |place: Place| {
            let first = usize::from(place.shard + place.queue + place.topic);
            let at = |n| nodes.replica(of[(first + n) % of.len()], place.shard.into());
            (0..of.len()).map(at).collect()
        };
        let (stored, silent) = self.runtime.block_on(read_all(addrs))?;
        if let Some(why) = silent {
            self.problem(why);
        }
        Ok(stored)
    }

    /// One node ends in peace, and what the others hold is read.
    fn read_from_others(&mut self) -> Result<Stored, String> {
        let all = self.nodes.wanted();
        let gone = all[self.rng.below(all.len())];
        self.nodes.signal(gone, Signal::Terminate);
        if self.nodes.wait(gone, Duration::from_secs(15)) != Some(true) {
            self.problem(format!("node {} did not end well", gone + 1));
            let _ = self.nodes.kill(gone);
        }
        let others = self.others(&[gone]);
        self.nodes.ready(&others, Duration::from_secs(15))?;
        self.read(&others)
    }
}

/// All topics on all shards, and a route that names all leaders.
async fn make_topics(nodes: &Nodes) -> Result<(), String> {
    let admin = Client::new(nodes.name_servers(), Duration::from_secs(3));
    let patience = Duration::from_secs(15);
    for topic in TOPICS {
        for shard in 0..SHARDS.len() {
            // By any replica: it hands the request to the leader.
            let addr = nodes.replica((shard + 1) % nodes.wanted().len(), shard);
            let queues = u32::from(super::history::QUEUES);
            retry(patience, || admin.create_topic(&addr, topic, queues, 6)).await?;
        }
    }
    let until = Instant::now() + patience;
    loop {
        let mut whole = true;
        for topic in TOPICS {
            let route = admin.route(topic).await.unwrap_or_default();
            let leads = |name: &&str| route.broker(name).and_then(|b| b.master()).is_some();
            whole &= SHARDS.iter().all(leads);
        }
        if whole {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("the route does not name all shards' leaders".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
