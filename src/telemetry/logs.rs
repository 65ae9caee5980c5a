//! Structured logs through `tracing`, one line an event on standard error.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Sets the process's log subscriber. Only the binary calls this; a program that embeds the
/// broker sets its own.
///
/// # Errors
/// One line when the level does not parse or a subscriber is already set.
pub fn init(level: &str, json: bool) -> Result<(), String> {
    let subscriber = subscriber(level, json, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| "a log subscriber is already set".to_owned())
}

fn subscriber<W>(
    level: &str,
    json: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).map_err(|e| format!("log level {level}: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    Ok(if json {
        Box::new(builder.json().flatten_event(true).finish())
    } else {
        Box::new(builder.with_ansi(false).finish())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Escaped;
    use parking_lot::Mutex;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(level: &str, json: bool) -> Vec<String> {
        let captured = Captured::default();
        let writer = captured.clone();
        let s = subscriber(level, json, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(s, || {
            tracing::info!(topic = %Escaped("a\nb\u{1b}[0m"), count = 3, "created");
            tracing::debug!("detail");
        });
        let text = String::from_utf8(captured.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn level_is_obeyed_and_an_event_is_one_line() {
        let info = lines("info", false);
        assert_eq!(info.len(), 1, "{info:?}");
        assert!(
            info[0].contains("created") && info[0].contains("a\\nb\\u{1b}[0m"),
            "{info:?}"
        );
        assert_eq!(lines("debug", false).len(), 2);
        assert_eq!(lines("off", false).len(), 0);
        assert!(subscriber("info,=x=", false, std::io::sink).is_err());
    }

    #[test]
    fn json_lines_parse() {
        let line = lines("info", true).remove(0);
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["message"], "created");
        assert_eq!(event["count"], 3);
        assert_eq!(event["topic"], "a\\nb\\u{1b}[0m");
        assert_eq!(event["level"], "INFO");
    }
}
