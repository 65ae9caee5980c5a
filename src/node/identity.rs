//! Whose data a directory holds, how often it was started, and the cluster as it was at the first
//! start: its shards and their first replicas. From then on these are read here, and not in the
//! configuration, which may have been changed for better or worse meanwhile.

use crate::config::{Cluster, Config};
use crate::storage::points::FailPoint;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The file's name in the data directory.
const FILE: &str = "node.toml";

/// A shard as it was at the first start: its name, and the nodes of its first replicas, the
/// preferred leader first. Everything that ever became of the members rests on these.
pub type Begun = (String, Vec<u64>);

/// A directory that was claimed.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// Counts the starts.
    pub life: u64,
    /// As the configuration says where it may, and as the directory does where it must not.
    pub cluster: Cluster,
    /// The data is of a version that did not keep the shards: they are the configuration's, and
    /// are kept once the other nodes say the same.
    pub unsure: bool,
}

/// Takes the directory for a node of a cluster and counts the start: the number grows with every
/// start and is stored before anything else is done with it.
///
/// # Errors
/// One line: the directory is another node's, or holds data of a single node, or has other shards
/// than the configuration.
pub fn claim(dir: &Path, config: &Config, configured: Cluster) -> Result<Claim, String> {
    let claim = look(dir, config, configured)?;
    let mut table = Table::new();
    table.insert("cluster_id".into(), config.cluster_id.as_str().into());
    table.insert("node_id".into(), number(config.node_id));
    table.insert("starts".into(), number(claim.life));
    if !claim.unsure {
        put_shards(&mut table, &claim.cluster.begun());
    }
    write(dir, &table)?;
    Ok(claim)
}

/// What [`claim`] would give. Changes nothing.
///
/// # Errors
/// As [`claim`].
pub fn look(dir: &Path, config: &Config, configured: Cluster) -> Result<Claim, String> {
    let shown = dir.display();
    let (cluster_id, node_id) = (&*config.cluster_id, config.node_id);
    let found = read(dir)?;
    let life = match &found {
        Some(table) => {
            let integer = |key| {
                let value = table.get(key).and_then(Value::as_integer);
                value.and_then(|n| u64::try_from(n).ok())
            };
            let cluster = table.get("cluster_id").and_then(Value::as_str);
            let found = (cluster, integer("node_id"), integer("starts"));
            let (Some(cluster), Some(node), Some(starts)) = found else {
                return Err(format!("{}: a key is missing", file(dir).display()));
            };
            if (cluster, node) != (cluster_id, node_id) {
                return Err(format!(
                    "data directory {shown} belongs to node {node} of cluster {cluster}, this is \
                     node {node_id} of cluster {cluster_id}"
                ));
            }
            starts + 1
        }
        None if holds_data(dir) => {
            return Err(format!(
                "data directory {shown} holds the data of a single node: a node of a cluster \
                 begins with an empty one"
            ))
        }
        None => 1,
    };
    let begun = found.as_ref().map(begun).transpose();
    let begun = begun.map_err(|why| format!("{}: {why}", file(dir).display()))?;
    let begun = begun.flatten();
    let unsure = begun.is_none() && found.is_some() && holds_data(dir);
    let cluster = match begun {
        Some(begun) => as_begun(dir, config, configured, &begun)?,
        None => configured,
    };
    Ok(Claim {
        life,
        cluster,
        unsure,
    })
}

/// Keeps these shards as those of the first start.
///
/// # Errors
/// One line, when the file cannot be written.
pub fn keep_shards(dir: &Path, shards: &[Begun]) -> Result<(), String> {
    let mut table = read(dir)?.unwrap_or_default();
    put_shards(&mut table, shards);
    write(dir, &table)
}

/// A store was here; its database may be lost.
fn holds_data(dir: &Path) -> bool {
    dir.join("FORMAT").exists() || dir.join("db").exists()
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn read(dir: &Path) -> Result<Option<Table>, String> {
    let file = file(dir);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let table = text.parse();
            table
                .map(Some)
                .map_err(|e| format!("{}: {e}", file.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

fn write(dir: &Path, table: &Table) -> Result<(), String> {
    let file = file(dir);
    let at = [FailPoint::IdentityWritten, FailPoint::IdentityRenamed];
    super::replace_file(&file, &table.to_string(), at)
        .map_err(|e| format!("{}: {e}", file.display()))
}

fn number(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn put_shards(table: &mut Table, shards: &[Begun]) {
    let shards = shards.iter().map(|(name, nodes)| {
        let mut shard = Table::new();
        shard.insert("name".into(), name.as_str().into());
        let nodes = nodes.iter().map(|n| number(*n)).collect();
        shard.insert("nodes".into(), Value::Array(nodes));
        Value::Table(shard)
    });
    table.insert("shards".into(), Value::Array(shards.collect()));
}

/// The shards in the file; `None` where an earlier version wrote it.
fn begun(table: &Table) -> Result<Option<Vec<Begun>>, &'static str> {
    let Some(shards) = table.get("shards") else {
        return Ok(None);
    };
    let one = |shard: &Value| {
        let name = shard.get("name").and_then(Value::as_str)?;
        let nodes = shard.get("nodes").and_then(Value::as_array)?;
        let node = |n: &Value| n.as_integer().and_then(|n| u64::try_from(n).ok());
        let nodes: Option<Vec<u64>> = nodes.iter().map(node).collect();
        let nodes = nodes.filter(|nodes| !nodes.is_empty())?;
        Some((name.to_owned(), nodes))
    };
    let all = shards.as_array();
    let all = all.and_then(|all| all.iter().map(one).collect::<Option<Vec<_>>>());
    let all = all.filter(|all| !all.is_empty());
    all.map(Some).ok_or("shards make no sense")
}

/// The cluster with the shards of the first start.
fn as_begun(
    dir: &Path,
    config: &Config,
    configured: Cluster,
    begun: &[Begun],
) -> Result<Cluster, String> {
    let names: Vec<&str> = begun.iter().map(|(name, _)| name.as_str()).collect();
    let other = |s: &crate::config::ClusterShard, name: &&str| s.name != *name;
    let differs = configured.shards.len() != names.len()
        || configured
            .shards
            .iter()
            .zip(&names)
            .any(|(s, n)| other(s, n));
    if differs && !config.shards.is_empty() {
        return Err(format!(
            "shards = \"{}\", but the data directory {} holds the shards \"{}\": a cluster keeps the \
             shards it began with, in their order; set shards to these (replicas are moved by \
             troupe cluster add, remove and replace)",
            config.shards,
            dir.display(),
            names.join(";")
        ));
    }
    let cluster = config.cluster_of(begun)?;
    if cluster.begun() != configured.begun() {
        tracing::info!(
            "peers or replicas have changed since the first start of this node: they are read for \
             addresses only; members are changed by troupe cluster add, remove and replace"
        );
    }
    Ok(cluster)
}

/// Refuses a single node on the directory of a cluster's node.
pub fn refuse_cluster_data(dir: &Path) -> Result<(), String> {
    if file(dir).exists() {
        return Err(format!(
            "data directory {} belongs to a node of a cluster, but peers is not set",
            dir.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
