//! The name server's KV configuration and its stored form `{"configTable":{namespace:{key:value}}}`.

use crate::model::outcome::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most entries of all namespaces.
pub const MAX_ENTRIES: usize = 10_000;
/// Most bytes of a namespace or key.
pub const MAX_NAME: usize = 1_024;
/// Most bytes of a value.
pub const MAX_VALUE: usize = 64 * 1024;

/// See the module text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvTable {
    #[serde(rename = "configTable", default)]
    table: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvTable {
    /// Reads the stored form; empty text is an empty table.
    pub fn from_json(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|e| format!("KV configuration: {e}"))
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        // Maps of strings always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A namespace's entries.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.table.get(namespace)
    }

    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&String> {
        self.table.get(namespace)?.get(key)
    }

    /// The table with one more value.
    pub fn with(&self, namespace: String, key: String, value: String) -> Result<Self, Refusal> {
        let refuse = |text: &str| Err(Refusal::Invalid(text.to_owned()));
        if namespace.is_empty()
            || key.is_empty()
            || namespace.len() > MAX_NAME
            || key.len() > MAX_NAME
        {
            return refuse("namespace and key have 1 to 1024 bytes");
        }
        if value.len() > MAX_VALUE {
            return refuse("the value has more than 65536 bytes");
        }
        let entries: usize = self.table.values().map(BTreeMap::len).sum();
        if entries >= MAX_ENTRIES && self.get(&namespace, &key).is_none() {
            return refuse("too many KV entries");
        }
        let mut next = self.clone();
        next.table.entry(namespace).or_default().insert(key, value);
        Ok(next)
    }

    /// The table without a value; `None` when it is not there.
    pub fn without(&self, namespace: &str, key: &str) -> Option<Self> {
        self.get(namespace, key)?;
        let mut next = self.clone();
        if let Some(entries) = next.table.get_mut(namespace) {
            entries.remove(key);
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_is_the_stock_one() {
        let table = KvTable::default()
            .with("N".into(), "k".into(), "v".into())
            .expect("within limits");
        assert_eq!(table.to_json(), r#"{"configTable":{"N":{"k":"v"}}}"#);
        assert_eq!(KvTable::from_json(&table.to_json()), Ok(table.clone()));
        assert_eq!(KvTable::from_json(""), Ok(KvTable::default()));
        assert!(KvTable::from_json("{\"configTable\":3}").is_err());
        assert_eq!(table.get("N", "k").map(String::as_str), Some("v"));
        assert_eq!(table.without("N", "x"), None);
        let emptied = table.without("N", "k").expect("was there");
        assert_eq!(emptied.get("N", "k"), None);
    }

    #[test]
    fn limits() {
        let table = KvTable::default();
        for (n, k, v) in [("", "k", 0), ("n", "", 0), ("n", "k", MAX_VALUE + 1)] {
            assert!(table.with(n.into(), k.into(), "x".repeat(v)).is_err());
        }
        assert!(table
            .with("n".repeat(MAX_NAME + 1), "k".into(), String::new())
            .is_err());
    }
}
