//! Lets raft's own log lines appear through `tracing`.

use slog::{Drain, Level, OwnedKVList, Record};

struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            _ => tracing::trace!(target: "raft", "{}", record.msg()),
        }
        Ok(())
    }
}

/// A logger for a raft node; `quiet` drops everything (simulation).
pub fn logger(quiet: bool) -> slog::Logger {
    if quiet {
        slog::Logger::root(slog::Discard, slog::o!())
    } else {
        slog::Logger::root(TracingDrain.fuse(), slog::o!())
    }
}
