//! `troupe server`.

use super::Failure;
use crate::config::{Config, Loaded, LogFormat};
use clap::Args;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Configuration file (TOML, or RocketMQ's own format when named *.conf or *.properties)
    #[arg(long, short = 'c', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of all data [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What this node does: registry, broker, or both [default: registry,broker]
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    /// Set any key of config/reference.toml; RocketMQ's names work too. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::text::pair)]
    set: Vec<(String, String)>,
}

impl ServerArgs {
    /// Flags as keys, the general ones first.
    fn flags(self) -> (Option<PathBuf>, Vec<(String, String)>) {
        let mut flags = self.set;
        flags.extend(self.data_dir.map(|dir| ("data_dir".to_owned(), dir)));
        flags.extend(self.roles.map(|roles| ("roles".to_owned(), roles)));
        (self.config, flags)
    }

    /// The configuration that they and the environment make, and what to say about it.
    pub(super) fn load(self) -> Result<(Config, Vec<String>), Failure> {
        let (file, flags) = self.flags();
        // Variables that are not UTF-8 cannot be ours.
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let Loaded { config, notes } =
            Config::load(file.as_deref(), env, &flags).map_err(|e| e.to_string())?;
        Ok((config, notes))
    }
}

pub(super) fn run(args: ServerArgs) -> Result<(), Failure> {
    let (config, notes) = args.load()?;
    crate::telemetry::logs::init(&config.log_level, config.log_format == LogFormat::Json)?;
    for note in notes {
        tracing::warn!("{note}");
    }
    start(config)
}

fn start(config: Config) -> Result<(), Failure> {
    let ready = |config: &Config, at: crate::node::Listening| {
        // The ports that were asked for may have been "any".
        let port = |addr: Option<SocketAddr>, asked: u16| addr.map_or(asked, |a| a.port());
        let config = Config {
            listen_port: port(at.broker, config.listen_port),
            vip_enable: at.vip.is_some(),
            namesrv_listen_port: port(at.registry, config.namesrv_listen_port),
            http_listen_port: port(at.http, config.http_listen_port),
            ..config.clone()
        };
        let mut out = std::io::stdout().lock();
        for line in config.summary_lines() {
            // When nobody reads our output any more, the server goes on.
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    };
    crate::node::run_server(config, ready).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_keys() {
        let args = ServerArgs {
            config: None,
            data_dir: Some("d".into()),
            roles: Some("broker".into()),
            set: vec![("namesrvAddr".into(), "h:1".into())],
        };
        let (_, flags) = args.flags();
        let config = Config::load(None, [], &flags).unwrap().config;
        assert_eq!(
            (config.data_dir.as_str(), config.roles.as_str()),
            ("d", "broker")
        );
        assert_eq!(config.namesrv_addrs(), ["h:1"]);
    }
}
