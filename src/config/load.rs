//! Reading the sources and naming the keys.

use super::keys::{Config, KeyInfo, Kind, KEYS, OTHER_UNITS};
use super::told::Told;
use super::{properties, stock};
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
    /// For the log: one line with RocketMQ's settings that have no effect here, then warnings.
    pub notes: Vec<String>,
}

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
        let mut told = Told::default();
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let origin = path.display().to_string();
            let entries = read_file(path, &mut told)?;
            builder = builder.add_source(Layer::new(entries, &origin, &mut told)?);
        }
        let environment = read_environment(env)?;
        builder = builder.add_source(Layer::new(environment, "the environment", &mut told)?);
        let flags = flags
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
            .collect();
        builder = builder.add_source(Layer::new(flags, "the command line", &mut told)?);

        let mut config: Config = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|e| ConfigError(one_line(&e.to_string())))?;
        told.adapt(&mut config);
        config
            .validate()
            .map_err(|error| told.explain(&config, error))?;
        let notes = told.lines(&config)?;
        Ok(Loaded { config, notes })
    }

    /// What a properties text asks of a node that runs with this configuration: the keys whose
    /// values would be others. Settings without effect are none.
    ///
    /// # Errors
    /// One line: an unknown name, or a value that its key cannot have.
    pub fn changes(&self, text: &str) -> Result<Vec<&'static str>, ConfigError> {
        let mut told = Told::default();
        let read = properties::parse(text).map_err(ConfigError)?;
        let layer = Layer::new(values(read.entries), "the request", &mut told)?;
        let wanted = layer.0.clone();
        let asked = config::Config::builder()
            .add_source(Layer(wanted.clone()))
            .build()
            .and_then(config::Config::try_deserialize::<Config>)
            .map_err(|e| ConfigError(one_line(&e.to_string())))?;
        let fields = |config: &Config| serde_json::to_value(config).unwrap_or_default();
        let (now, asked) = (fields(self), fields(&asked));
        let keys = KEYS.iter().map(|key| key.name);
        let mut changed: Vec<&str> = keys
            .filter(|key| wanted.contains_key(*key) && now.get(key) != asked.get(key))
            .collect();
        changed.extend(told.slave.is_some().then_some("broker_role"));
        let other = told.broker_id.is_some_and(|(id, _)| id.trim() != "0");
        changed.extend(other.then_some("brokerId"));
        Ok(changed)
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
        told: &mut Told,
    ) -> Result<Self, ConfigError> {
        let mut spelled: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut layer = Map::new();
        for (given, value) in entries {
            let Some((key, units)) = find(&given) else {
                unused(&given, &value, origin, told)?;
                continue;
            };
            if key.name == "broker_role" {
                told.slave = None;
                if is_slave(&value) {
                    told.slave = Some(origin.to_owned());
                    continue;
                }
            }
            let value = coerce(key, value, units).map_err(|why| {
                ConfigError(format!("{}: {why} (in {origin})", spelling(key, &given)))
            })?;
            told.given.insert(key.name, given.clone());
            if let Some(other) = spelled.insert(key.name, given.clone()) {
                if other == given {
                    return Err(ConfigError(format!("{given} is given twice in {origin}")));
                }
                // Files that serve several versions hold a setting under its old and its new name.
                let same = |known: &Value| known.kind == value.kind;
                if !layer.get(key.name).is_some_and(same) {
                    return Err(ConfigError(format!(
                        "{other} and {given} are the same key, both given in {origin} with different values"
                    )));
                }
            }
            layer.insert(key.name.to_owned(), value);
        }
        Ok(Self(layer))
    }
}

fn is_slave(value: &Value) -> bool {
    let text = value.clone().into_string();
    text.is_ok_and(|text| text.trim().eq_ignore_ascii_case("SLAVE"))
}

/// The key of a canonical name or of one of RocketMQ's names, and how many units of the given value
/// make one of the key's.
fn find(given: &str) -> Option<(&'static KeyInfo, u64)> {
    let other = OTHER_UNITS.iter().find(|(name, _, _)| *name == given);
    let (name, units) = other.map_or((given, 1), |(_, key, units)| (*key, *units));
    let key = KEYS
        .iter()
        .find(|k| k.name == name || k.aliases.contains(&name))?;
    Some((key, units))
}

fn spelling(key: &KeyInfo, given: &str) -> String {
    if key.name == given {
        given.to_owned()
    } else {
        format!("{given} ({})", key.name)
    }
}

/// Takes a RocketMQ setting that has no effect.
fn unused(given: &str, value: &Value, origin: &str, told: &mut Told) -> Result<(), ConfigError> {
    let text = value.clone().into_string().unwrap_or_default();
    if given == "brokerId" {
        told.broker_id = Some((text, origin.to_owned()));
        return Ok(());
    }
    if told.take_unused(given, &text) {
        return Ok(());
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
    let near = |name: &str| strsim::jaro_winkler(&plain(name), &wanted);
    let keys = KEYS.iter().flat_map(|k| {
        let names = std::iter::once(k.name).chain(k.aliases.iter().copied());
        names.map(move |name| {
            let text = match k.aliases.first() {
                Some(alias) => format!("{} (RocketMQ: {alias})", k.name),
                None => k.name.to_owned(),
            };
            (near(name), text)
        })
    });
    let others = OTHER_UNITS.iter().map(|(name, _, _)| *name);
    let unused = stock::STOCK.iter().flat_map(stock::Stock::names);
    let names = others.chain(unused).chain(["brokerId"]);
    // Of names that are as near, a key is the better answer.
    let names = names.map(|name| (near(name) - 1e-9, name.to_owned()));
    match keys.chain(names).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, text)) if score >= 0.75 => format!("; did you mean {text}?"),
        _ => "; config/reference.toml lists every key".to_owned(),
    }
}

/// Checks the form of a value, so that `true` is no number and `1.5` no count. `units` of it make one
/// of the key's.
fn coerce(key: &KeyInfo, value: Value, units: u64) -> Result<Value, String> {
    let origin = value.origin().map(str::to_owned);
    let number = |n: u64| ValueKind::U64(n.div_ceil(units));
    let wrong = |text: &str, expected: &str| match text.contains(['#', '!']) {
        true => format!("expected {expected}; a comment needs a line of its own"),
        false => format!("expected {expected}"),
    };
    let kind = match (key.kind, value.kind) {
        (Kind::Integer, ValueKind::I64(n)) => {
            number(u64::try_from(n).map_err(|_| "expected a number of 0 or more")?)
        }
        (Kind::Integer, ValueKind::String(s)) => number(
            s.trim()
                .parse::<u64>()
                .map_err(|_| wrong(&s, "a whole number of 0 or more"))?,
        ),
        (Kind::Integer, _) => return Err("expected a whole number".into()),
        (Kind::Boolean, ValueKind::Boolean(b)) => ValueKind::Boolean(b),
        (Kind::Boolean, ValueKind::String(s)) => ValueKind::Boolean(
            s.trim()
                .to_ascii_lowercase()
                .parse::<bool>()
                .map_err(|_| wrong(&s, "true or false"))?,
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

fn read_file(path: &Path, told: &mut Told) -> Result<Vec<(String, Value)>, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError(format!("cannot read {shown}: {e}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is_properties = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("conf") || e.eq_ignore_ascii_case("properties"));
    if is_properties {
        let read = properties::parse(text).map_err(|why| ConfigError(format!("{shown}: {why}")))?;
        if !read.repeated.is_empty() {
            told.notes.push(format!(
                "{} stand in {shown} more than once; the last line counts",
                read.repeated.join(", ")
            ));
        }
        return Ok(values(read.entries));
    }
    let map = File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|e| ConfigError(format!("{shown}: {}", one_line(&e.to_string()))))?;
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn values(entries: Vec<(String, String)>) -> Vec<(String, Value)> {
    let entries = entries.into_iter();
    entries.map(|(k, v)| (k, Value::from(v))).collect()
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

#[cfg(test)]
#[path = "stock_tests.rs"]
mod stock_tests;
