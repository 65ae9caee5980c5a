//! What the start of a server says about the settings that were read.

use super::keys::Config;
use super::load::ConfigError;
use super::stock::{self, Status, STOCK};
use std::collections::BTreeMap;

/// What was read beside the values: later sources come over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Keys, and the names by which they were given.
    pub(super) given: BTreeMap<&'static str, String>,
    /// RocketMQ's settings that have no effect, with their values.
    pub(super) unused: BTreeMap<String, String>,
    /// Where `brokerRole = SLAVE` was given.
    pub(super) slave: Option<String>,
    /// Value of a `brokerId`, and where it was given.
    pub(super) broker_id: Option<(String, String)>,
    /// Lines of their own.
    pub(super) notes: Vec<String>,
}

/// Settings of RocketMQ's own replication that say that there are several nodes.
const REPLICATED: &[&str] = &[
    "dLegerPeers",
    "controllerAddr",
    "controllerDLegerPeers",
    "haMasterAddress",
];
/// Settings that promise that only those may in who should.
const GUARDS: &[&str] = &[
    "aclEnable",
    "authenticationEnabled",
    "authorizationEnabled",
    "useTLS",
];
const FETCHED: &[&str] = &[
    "fetchNamesrvAddrByAddressServer",
    "fetchNameSrvAddrByDnsLookup",
];

impl Told {
    /// A setting without effect that is switched on.
    fn on(&self, name: &str) -> bool {
        let value = self.unused.get(name);
        value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    }

    /// Settings of a name server's file: its `listenPort` is the name server's port.
    pub(super) fn adapt(&self, config: &mut Config) {
        let given = |key| self.given.get(key).map(String::as_str);
        if !config.roles.broker
            && given("listen_port") == Some("listenPort")
            && given("namesrv_listen_port").is_none()
        {
            config.namesrv_listen_port = config.listen_port;
        }
    }

    /// More about an error of the validation.
    pub(super) fn explain(&self, config: &Config, error: ConfigError) -> ConfigError {
        let both = config.roles.broker && config.roles.registry;
        let port = self.given.get("listen_port").map(String::as_str) == Some("listenPort");
        if both && port && config.listen_port == config.namesrv_listen_port {
            return ConfigError(format!(
                "{}; in the file of a name server it is that one's port: start it with roles=registry",
                error.0
            ));
        }
        error
    }

    /// Refuses a slave where nothing says that Raft is to replicate.
    fn check_slave(&self, config: &Config) -> Result<(), ConfigError> {
        let led = config.is_cluster()
            || self.on("enableControllerMode")
            || self.on("enableDLegerCommitLog");
        if let Some(origin) = self.slave.as_ref().filter(|_| !led) {
            return Err(ConfigError(format!(
                "brokerRole (broker_role) in {origin} can be SYNC_MASTER or ASYNC_MASTER, not SLAVE: \
                 Raft decides who leads, there are no configured slaves; list all nodes in peers \
                 (docs/operating.md)"
            )));
        }
        let Some((id, origin)) = &self.broker_id else {
            return Ok(());
        };
        match id.trim().parse::<i64>() {
            Ok(0) => Ok(()),
            Ok(_) if led => Ok(()),
            Ok(_) => Err(ConfigError(format!(
                "brokerId in {origin} can only be 0: Raft decides who leads, there are no \
                 configured slaves; list all nodes in peers (docs/operating.md)"
            ))),
            Err(_) => Err(ConfigError(format!(
                "brokerId in {origin}: expected a whole number"
            ))),
        }
    }

    /// The lines for the log: one for all settings without effect, and those that warn.
    ///
    /// # Errors
    /// A slave's settings where no cluster is configured.
    pub(super) fn lines(mut self, config: &Config) -> Result<Vec<String>, ConfigError> {
        self.check_slave(config)?;
        let mut lines = std::mem::take(&mut self.notes);
        lines.extend(self.unused_line(config));
        let given = |names: &[&'static str]| -> Vec<&'static str> {
            let mut names = names.to_vec();
            names.retain(|name| self.unused.contains_key(*name));
            names
        };
        let on = |names: &[&'static str]| -> Vec<&'static str> {
            let mut names = names.to_vec();
            names.retain(|name| self.on(name));
            names
        };
        let replicated = given(REPLICATED);
        if !replicated.is_empty() && !config.is_cluster() && config.roles.broker {
            lines.push(format!(
                "this node runs ALONE and nothing is replicated: {} means nothing here; list the nodes \
                 in peers (docs/operating.md)",
                replicated.join(", ")
            ));
        }
        let guards = on(GUARDS);
        if !guards.is_empty() {
            lines.push(format!(
                "{} is on, but nothing authenticates clients yet: whoever reaches the ports may \
                 read, write and administer everything",
                guards.join(", ")
            ));
        }
        let fetched = on(FETCHED);
        if !fetched.is_empty() && config.namesrv_addrs().is_empty() {
            lines.push(format!(
                "{}: name servers are not looked up anywhere, so this node registers with itself \
                 only; list them in namesrv_addr",
                fetched.join(", ")
            ));
        }
        let told = config.broker_ip.parse::<std::net::IpAddr>();
        if told.is_ok_and(|ip| !ip.is_loopback()) && config.is_loopback() && config.roles.broker {
            lines.push(format!(
                "clients are told the address {}, but the server listens on {} only: set bind_host \
                 (bindAddress)",
                config.broker_ip, config.bind_host
            ));
        }
        Ok(lines)
    }

    /// All settings without effect, by group.
    fn unused_line(&self, config: &Config) -> Option<String> {
        let mut groups: Vec<Vec<&str>> = vec![Vec::new(); STOCK.len()];
        let mut put = |name: &str, shown| {
            let group = STOCK.iter().position(|g| g.names().any(|n| n == name));
            if let Some(group) = group.and_then(|at| groups.get_mut(at)) {
                group.push(shown);
            }
        };
        for name in self.unused.keys() {
            put(name, name.as_str());
        }
        if self.slave.is_some() {
            put("haMasterAddress", "brokerRole=SLAVE");
        }
        if self.broker_id.is_some() {
            put("haMasterAddress", "brokerId");
        }
        if config.enable_property_filter {
            put("filterSupportRetry", "enablePropertyFilter");
        }
        let count: usize = groups.iter().map(Vec::len).sum();
        let part = |status: Status| -> Vec<String> {
            let told = STOCK.iter().zip(&groups);
            let told = told.filter(|(group, names)| group.status == status && !names.is_empty());
            told.map(|(group, names)| format!("{} ({})", names.join(", "), group.why))
                .collect()
        };
        let mut parts = Vec::new();
        for (status, head) in [
            (Status::Here, "without effect here: "),
            (Status::NotYet, "not built yet: "),
        ] {
            let told = part(status);
            if !told.is_empty() {
                parts.push(format!("{head}{}", told.join("; ")));
            }
        }
        (count > 0).then(|| {
            let settings = if count == 1 { "setting" } else { "settings" };
            format!(
                "{count} {settings} of RocketMQ not used. {}",
                parts.join(". ")
            )
        })
    }

    /// A value of a RocketMQ setting that has no effect; false when there is no such setting.
    pub(super) fn take_unused(&mut self, name: &str, value: &str) -> bool {
        let known = stock::find(name).is_some();
        if known {
            self.unused.insert(name.to_owned(), value.to_owned());
        }
        known
    }
}
