//! Reading the sources and naming the keys.

use super::keys::{Config, KeyInfo, Kind, KEYS};
use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::path::Path;

/// Why a configuration was refused; one line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(pub String);

/// A configuration and what the reader of the log should know about how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// RocketMQ settings that were read and have no effect here, one line each.
    pub notes: Vec<String>,
}

/// RocketMQ settings that configuration files commonly hold and that mean nothing here.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("deleteWhen", "retention works all day"),
    ("storePathCommitLog", "all data is below data_dir"),
    ("storePathConsumeQueue", "all data is below data_dir"),
    ("storePathIndex", "all data is below data_dir"),
    ("storeCheckpoint", "all data is below data_dir"),
    ("abortFile", "all data is below data_dir"),
    (
        "mappedFileSizeConsumeQueue",
        "there are no consume queue files",
    ),
];

/// Texts that a file may also give as a list.
const LISTS: &[&str] = &["namesrv_addr", "peers", "shards", "shard_ports"];

/// Variables that container platforms set for a service named "troupe"; not ours.
const FOREIGN_VARIABLES: &[&str] = &["service_host", "service_port", "port"];

impl Config {
    /// Builds and validates a configuration from a file (TOML, or RocketMQ's `key=value` lines
    /// in a file named `*.conf` or `*.properties`), the environment and the flags.
    ///
    /// # Errors
    /// One line naming the key and where it was given.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let mut notes = Vec::new();
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let origin = path.display().to_string();
            builder = builder.add_source(Layer::new(read_file(path)?, &origin, &mut notes)?);
        }
        let environment = read_environment(env)?;
        builder = builder.add_source(Layer::new(environment, "the environment", &mut notes)?);
        let flags = flags
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
            .collect();
        builder = builder.add_source(Layer::new(flags, "the command line", &mut notes)?);

        let config: Config = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|e| ConfigError(one_line(&e.to_string())))?;
        config.validate()?;
        Ok(Loaded { config, notes })
    }
}

/// One source with canonical keys.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }
    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    fn new(
        entries: Vec<(String, Value)>,
        origin: &str,
        notes: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut spelled: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut layer = Map::new();
        for (given, value) in entries {
            let Some(key) = find(&given) else {
                notes.push(without_effect(&given, &value, origin)?);
                continue;
            };
            if let Some(other) = spelled.insert(key.name, given.clone()) {
                return Err(ConfigError(if other == given {
                    format!("{given} is given twice in {origin}")
                } else {
                    format!("{other} and {given} are the same key, both given in {origin}")
                }));
            }
            let value = coerce(key, value).map_err(|why| {
                ConfigError(format!("{}: {why} (in {origin})", spelling(key, &given)))
            })?;
            layer.insert(key.name.to_owned(), value);
        }
        Ok(Self(layer))
    }
}

/// The key of a canonical name or of one of RocketMQ's names.
fn find(given: &str) -> Option<&'static KeyInfo> {
    KEYS.iter()
        .find(|k| k.name == given || k.aliases.contains(&given))
}

fn spelling(key: &KeyInfo, given: &str) -> String {
    if key.name == given {
        given.to_owned()
    } else {
        format!("{given} ({})", key.name)
    }
}

/// A note for a RocketMQ setting that has no effect, or the error for an unknown key.
fn without_effect(given: &str, value: &Value, origin: &str) -> Result<String, ConfigError> {
    if given == "brokerId" {
        return match value.clone().into_string().as_deref() {
            Ok("0") => Ok(format!(
                "brokerId in {origin} has no effect: Raft decides who leads"
            )),
            _ => Err(ConfigError(format!(
                "brokerId in {origin} can only be 0: Raft decides who leads, there are no \
                 configured slaves"
            ))),
        };
    }
    if let Some((name, why)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == given) {
        return Ok(format!("{name} in {origin} has no effect: {why}"));
    }
    let shown: String = given.chars().take(64).collect();
    Err(ConfigError(format!(
        "unknown key \"{}\" in {origin}{}",
        shown.escape_debug(),
        suggestion(given)
    )))
}

/// "; did you mean …?" with both spellings of the nearest key, when one is near.
fn suggestion(given: &str) -> String {
    let plain = |s: &str| s.replace(['_', '-', '.'], "").to_lowercase();
    let wanted: String = plain(given).chars().take(64).collect();
    let nearest = KEYS
        .iter()
        .flat_map(|k| {
            std::iter::once(k.name)
                .chain(k.aliases.iter().copied())
                .map(move |n| (k, n))
        })
        .map(|(k, n)| (strsim::jaro_winkler(&plain(n), &wanted), k))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((score, key)) if score >= 0.75 => match key.aliases.first() {
            Some(alias) => format!("; did you mean {} (RocketMQ: {alias})?", key.name),
            None => format!("; did you mean {}?", key.name),
        },
        _ => "; config/reference.toml lists every key".to_owned(),
    }
}

/// Checks the form of a value, so that `true` is no number and `1.5` no count.
fn coerce(key: &KeyInfo, value: Value) -> Result<Value, String> {
    let origin = value.origin().map(str::to_owned);
    let kind = match (key.kind, value.kind) {
        (Kind::Integer, ValueKind::I64(n)) => {
            ValueKind::U64(u64::try_from(n).map_err(|_| "expected a number of 0 or more")?)
        }
        (Kind::Integer, ValueKind::String(s)) => ValueKind::U64(
            s.trim()
                .parse::<u64>()
                .map_err(|_| "expected a whole number of 0 or more")?,
        ),
        (Kind::Integer, _) => return Err("expected a whole number".into()),
        (Kind::Boolean, ValueKind::Boolean(b)) => ValueKind::Boolean(b),
        (Kind::Boolean, ValueKind::String(s)) => ValueKind::Boolean(
            s.trim()
                .parse::<bool>()
                .map_err(|_| "expected true or false")?,
        ),
        (Kind::Boolean, _) => return Err("expected true or false".into()),
        (Kind::Text, ValueKind::String(s)) => ValueKind::String(s.trim().to_owned()),
        (Kind::Text, ValueKind::Array(items)) if LISTS.contains(&key.name) => {
            let addrs: Result<Vec<String>, _> = items.into_iter().map(Value::into_string).collect();
            ValueKind::String(addrs.map_err(|_| "expected a list of texts")?.join(";"))
        }
        (Kind::Text, _) => return Err("expected a text in quotes".into()),
    };
    Ok(Value::new(origin.as_ref(), kind))
}

fn read_file(path: &Path) -> Result<Vec<(String, Value)>, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError(format!("cannot read {shown}: {e}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let properties = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("conf") || e.eq_ignore_ascii_case("properties"));
    if properties {
        return read_properties(text).map_err(|why| ConfigError(format!("{shown}: {why}")));
    }
    let map = File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|e| ConfigError(format!("{shown}: {}", one_line(&e.to_string()))))?;
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// RocketMQ's own file format: `key = value` lines, `#` comments.
fn read_properties(text: &str) -> Result<Vec<(String, Value)>, String> {
    let mut entries = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return Err(format!("line {} is not key=value", n + 1));
        };
        entries.push((key.trim().to_owned(), Value::from(value.trim())));
    }
    Ok(entries)
}

fn read_environment(
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(String, Value)>, ConfigError> {
    let ours: Map<String, String> = env
        .into_iter()
        .filter(|(k, _)| k.starts_with("TROUPE_"))
        .collect();
    let map = Environment::with_prefix("TROUPE")
        .prefix_separator("_")
        .source(Some(ours))
        .collect()
        .map_err(|e| ConfigError(one_line(&e.to_string())))?;
    let mut entries: Vec<_> = map
        .into_iter()
        .filter(|(k, _)| find(k).is_some() || !is_foreign_variable(k))
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn is_foreign_variable(key: &str) -> bool {
    FOREIGN_VARIABLES.iter().any(|p| {
        key.strip_prefix(p)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    })
}

/// First and last line of a parser's message: where, and what.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(first), Some(last)) => format!("{first}: {last}"),
        (Some(first), None) => first.to_owned(),
        _ => "invalid".to_owned(),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
