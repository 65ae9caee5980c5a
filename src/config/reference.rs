//! The text of `config/reference.toml`.

use super::keys::{Config, KEYS, OTHER_UNITS};
use std::fmt::Write;

/// Every key with its meaning and, commented out, its default.
pub fn reference_text() -> String {
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut text = String::from(
        "# Every setting of `troupe server`, at its default value.\n\
         #\n\
         # Order of precedence: this file (--config FILE), then environment variables\n\
         # (TROUPE_ and the key in upper case, e.g. TROUPE_LISTEN_PORT=10911), then flags\n\
         # (--set listen_port=10911). RocketMQ's own names may be used instead of the names here\n\
         # in all three, and its own file format (key=value lines) in files named *.conf or\n\
         # *.properties. Settings of RocketMQ that mean nothing here are noted in one line at the\n\
         # start. Unknown keys are refused.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = write!(text, "\n# --- {section} ---\n");
        }
        text.push('\n');
        for line in key.doc {
            let _ = writeln!(text, "# {}", line.trim());
        }
        if !key.aliases.is_empty() {
            let _ = writeln!(text, "# RocketMQ: {}", key.aliases.join(", "));
        }
        for (name, _, units) in OTHER_UNITS.iter().filter(|other| other.1 == key.name) {
            let _ = writeln!(text, "# RocketMQ: {name}, of which {units} make one here");
        }
        if let Some(value) = defaults.get(key.name) {
            let _ = writeln!(text, "#{} = {value}", key.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn committed() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, reference_text()).unwrap();
        }
        std::fs::read_to_string(path).unwrap()
    }

    /// Set UPDATE_REFERENCE=1 to write the file from the table of keys.
    #[test]
    fn the_committed_file_is_the_table_of_keys() {
        assert_eq!(committed(), reference_text());
    }

    #[test]
    fn uncommented_reference_is_the_default_configuration() {
        let text: String = committed()
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' ') && !l.is_empty())
            .map(|l| format!("{l}\n"))
            .collect();
        let parsed: toml::Table = text.parse().unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(parsed, defaults);
        assert_eq!(parsed.len(), KEYS.len());
    }

    #[test]
    fn every_key_is_documented_and_every_name_is_unique() {
        let mut names = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(key.doc.iter().any(|l| l.trim().len() > 10), "{}", key.name);
            for name in std::iter::once(&key.name).chain(key.aliases) {
                assert!(names.insert(*name), "{name} twice");
            }
        }
    }
}
