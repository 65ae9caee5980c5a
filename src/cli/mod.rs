//! The command line.

mod bench;
mod cluster;
mod message;
mod operate;
mod scrub;
mod server;
mod show;
mod text;
mod topic;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// A RocketMQ-compatible message broker.
#[derive(Debug, Parser)]
#[command(
    name = "troupe",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a server: name server, broker, or both
    Server(server::ServerArgs),
    /// Create, list, show and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Try out a cluster on this machine, or look at one
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Send and read messages
    #[command(subcommand)]
    Message(message::MessageCommand),
    /// Measure a broker under load, this one or any RocketMQ
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// Where the cluster is, for every command that talks to one.
#[derive(Clone, Debug, Args)]
struct Cluster {
    /// Name servers, `host:port;host:port`
    #[arg(
        long,
        short = 'n',
        value_name = "ADDR",
        default_value = "127.0.0.1:9876"
    )]
    namesrv: String,
    /// Longest wait for an answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
}

impl Cluster {
    fn client(&self) -> crate::client::Client {
        let addrs = self
            .namesrv
            .split([';', ','])
            .map(str::trim)
            .filter(|a| !a.is_empty());
        let timeout = Duration::from_millis(self.timeout);
        crate::client::Client::new(addrs.map(str::to_owned).collect(), timeout)
    }
}

/// How errors begin that may come from a wrong `--namesrv`.
const NO_NAME_SERVER: &str = "no name server";

/// A failed command: the one line for people.
type Failure = String;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command given as arguments, the program's name first. Prints one line on standard
/// error and returns 1 when it fails; clap's usage errors return 2.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.command {
        Command::Server(args) => server::run(args),
        Command::Topic(command) => block_on(topic::run(command)),
        Command::Cluster(command) => block_on(cluster::run(command)),
        Command::Message(command) => block_on(message::run(command)),
        Command::Bench(command) => block_on(bench::run(command)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(mut why) => {
            if why.starts_with(NO_NAME_SERVER) {
                why.push_str(
                    "; --namesrv wants name servers, as host:port;host:port (port 9876 by default)",
                );
            }
            eprintln!("troupe: {}", crate::telemetry::escape_all(&why));
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl std::future::Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?
        .block_on(work)
}

/// Prints a line; a closed standard output (`| head`) ends the process quietly.
fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(format!("cannot write: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn arguments_parse() {
        for line in [
            "troupe server",
            "troupe server --config x.toml --data-dir d --set listenPort=1 --set a=b --roles broker",
            "troupe topic create T",
            "troupe topic create T --queues 4 -n a:1;b:2 --cluster-name C",
            "troupe topic list --all",
            "troupe topic show T",
            "troupe topic delete T",
            "troupe message send T hello --tag A --key k1 --property a=b --delay-level 3",
            "troupe message tail T --from-start --count 3",
            "troupe cluster demo --data-dir d --set broker_role=ASYNC_MASTER",
            "troupe cluster show --http 127.0.0.1:8080,127.0.0.1:8081 --json",
            "troupe bench send -c 4 -w 64 -d 5 --warmup 2 --size 1024 --pid 1 --pid 2 --json",
            "troupe bench send --rate 10000 --batch 16 --headers binary --topics 3 --wait 2.5",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "troupe topic create",
            "troupe topic create T --queues 0",
            "troupe message send T x --property ab",
            "troupe message send T x --property a=b\u{1}c",
            "troupe server --set ab",
            "troupe message tail T --count 0",
            "troupe bench send --size 39",
            "troupe bench send --code 11",
            "troupe bench send --duration -1",
            "troupe bench send --producer-group a\u{1}b",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
