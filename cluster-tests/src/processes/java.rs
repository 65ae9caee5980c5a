//! Load from unmodified Java clients: the program `follow` of `tests/clients`.

use super::check::Pushed;
use super::history::{Answer, Id, Place, Sent, JAVA};
use super::nodes::SHARDS;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First number of its producers.
const PRODUCERS: u32 = 3_000;
/// Attempts of one send by default: one and two retries.
const ATTEMPTS: usize = 3;
const RATE: u32 = 100;

/// What the clients did.
#[derive(Debug, Default)]
pub struct Log {
    pub sent: Vec<Sent>,
    /// Sends that failed for the application: when and why.
    pub failed: Vec<(u64, String)>,
    pub pushed: Vec<Pushed>,
}

/// A running Java process.
#[derive(Debug)]
pub struct Java {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// The clock of the history at 0, as Java counts.
    begin_ns: i64,
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/run")
}

/// Fetches and compiles what `client` needs; to be called where the internet can be reached.
pub fn prepare(client: &str) -> Result<(), String> {
    let program = program();
    let program = program.to_string_lossy();
    super::sys::run(&program, &["--build-only", "--only", client]).map(|_| ())
}

impl Java {
    /// Starts producers and consumers; returns when they run.
    pub fn start(client: &str, name_servers: &[String], begin_ns: i64) -> Result<Self, String> {
        let mut child = Command::new(program())
            .args(["tool", client, "follow", "--topic"])
            .arg(super::history::TOPICS[usize::from(JAVA)])
            .args(["--namesrv", &name_servers.join(";")])
            .args(["--producer", &PRODUCERS.to_string()])
            .args(["--rate", &RATE.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", program().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("Java has no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let own = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                own.lock().unwrap_or_else(|e| e.into_inner()).push(line);
            }
        });
        let java = Self {
            child,
            stdin,
            lines,
            reader: Some(reader),
            begin_ns,
        };
        java.await_line("ready", Duration::from_secs(60))?;
        Ok(java)
    }

    fn await_line(&self, wanted: &str, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
            if lines.iter().any(|l| l == wanted) {
                return Ok(());
            }
            drop(lines);
            if Instant::now() > until {
                return Err(format!("Java was not {wanted} within {within:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the producers.
    pub fn end_sending(&mut self) -> Result<(), String> {
        if let Some(stdin) = &mut self.stdin {
            writeln!(stdin, "stop").map_err(|e| format!("Java ended: {e}"))?;
        }
        self.await_line("stopped", Duration::from_secs(40))
    }

    /// What was done so far.
    pub fn log(&self) -> Log {
        let lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        let mut log = Log::default();
        for line in lines.iter() {
            take(line, self.begin_ns, &mut log);
        }
        log
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        self.stdin = None;
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Whether a send failed because its 3 s were over.
pub fn out_of_time(why: &str) -> bool {
    why.starts_with("Java: ") && (why.contains("call timeout") || why.contains("cost [3"))
}

fn take(line: &str, begin_ns: i64, log: &mut Log) -> Option<()> {
    let fields: Vec<&str> = line.split('\t').collect();
    let time = |text: &str| Some((text.parse::<i64>().ok()? - begin_ns).max(0) as u64 / 1_000);
    let id: Id = (fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?);
    let at = time(fields.get(3)?)?;
    let place = |broker: &str, queue: &str| {
        Some(Place {
            topic: JAVA,
            shard: SHARDS.iter().position(|s| *s == broker)? as u8,
            queue: queue.parse().ok()?,
        })
    };
    if fields[0] == "got" {
        log.pushed.push(Pushed {
            orderly: *fields.get(4)? == "orderly",
            place: place(fields.get(5)?, fields.get(6)?)?,
            offset: fields.get(7)?.parse().ok()?,
            id,
            at,
        });
        return Some(());
    }
    let end = time(fields.get(4)?)?;
    let nowhere = Place {
        topic: JAVA,
        shard: 0,
        queue: 0,
    };
    let attempt = |place, answer| Sent {
        id,
        place,
        node: u8::MAX,
        begin: at,
        end,
        delay_ms: 0,
        answer,
    };
    // The client does not tell how often it tried.
    let mut open = ATTEMPTS;
    if fields[0] == "acked" {
        let offset = fields.get(7)?.parse().ok()?;
        let place = place(fields.get(5)?, fields.get(6)?)?;
        log.sent.push(attempt(place, Answer::Acked(offset)));
        open -= 1;
    } else if fields[0] == "failed" {
        let why = fields.get(5).unwrap_or(&"");
        log.failed.push((end, format!("Java: {why}")));
    }
    for _ in 0..open {
        log.sent.push(attempt(nowhere, Answer::Unknown));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_history() {
        let mut log = Log::default();
        for line in [
            "ready",
            "acked\t3000\t7\t5000000\t6000000\tbroker-b\t3\t42",
            "failed\t3000\t8\t7000000\t9000000\tno route",
            "got\t3000\t7\t8000000\torderly\tbroker-b\t3\t42",
            "acked\tx",
        ] {
            take(line, 1_000_000, &mut log);
        }
        assert_eq!(log.sent.len(), 3 + 3);
        let first = &log.sent[0];
        assert_eq!((first.id, first.answer), ((3000, 7), Answer::Acked(42)));
        assert_eq!((first.begin, first.end), (4_000, 5_000));
        assert_eq!((first.place.shard, first.place.queue), (1, 3));
        assert_eq!(log.failed.len(), 1);
        assert!(!out_of_time(&log.failed[0].1));
        assert!(out_of_time("Java: sendDefaultImpl call timeout"));
        assert!(!out_of_time("call timeout"));
        assert!(log.pushed[0].orderly);
    }
}
