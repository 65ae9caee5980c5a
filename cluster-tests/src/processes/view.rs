//! What a node tells about the cluster on its page.

use serde_json::Value;

/// A shard as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardView {
    pub name: String,
    /// Node id of the leader; 0 when unknown.
    pub leader: u64,
    pub term: u64,
    /// This node leads and serves.
    pub serving: bool,
    pub committed: u64,
    pub applied: u64,
    pub failed: Option<String>,
    /// Entries that the other replicas lack, as the leader knows; `None` for silent ones.
    pub lags: Vec<(u64, Option<u64>)>,
}

/// Reads the page `/cluster`.
pub fn parse(page: &str) -> Option<Vec<ShardView>> {
    let page: Value = serde_json::from_str(page).ok()?;
    let number = |v: &Value| v.as_u64().unwrap_or_default();
    let shards = page["shards"].as_array()?.iter().map(|s| {
        let replicas = s["replicas"].as_array().map_or(&[][..], Vec::as_slice);
        let lags = replicas.iter().map(|r| {
            let lag = (r["active"] == true).then(|| number(&r["lag_entries"]));
            (number(&r["node"]), lag)
        });
        ShardView {
            name: s["name"].as_str().unwrap_or_default().to_owned(),
            leader: number(&s["leader"]),
            term: number(&s["term"]),
            serving: s["serving"] == true,
            committed: number(&s["committed"]),
            applied: number(&s["applied"]),
            failed: s["failed"].as_str().map(str::to_owned),
            lags: lags.collect(),
        }
    });
    Some(shards.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let page = r#"{"shards":[{"name":"broker-a","leader":2,"term":3,"serving":true,
            "committed":9,"applied":8,"failed":null,"replicas":[
            {"node":1,"active":true,"lag_entries":4},{"node":3,"active":false,"lag_entries":1}]}]}"#;
        let found = parse(page).unwrap();
        assert_eq!((found[0].leader, found[0].serving), (2, true));
        assert_eq!(found[0].lags, [(1, Some(4)), (3, None)]);
        assert_eq!(parse("x"), None);
    }
}
