//! Whose data a directory holds, and how often it was started.

use std::path::Path;

/// The file's name in the data directory.
const FILE: &str = "node.toml";

/// Takes the directory for a node of a cluster and counts the start: the number grows with every
/// start and is stored before anything else is done with it.
///
/// # Errors
/// One line: the directory is another node's, or holds data of a single node.
pub fn claim(dir: &Path, cluster_id: &str, node_id: u64) -> Result<u64, String> {
    let file = dir.join(FILE);
    let shown = dir.display();
    let life = match std::fs::read_to_string(&file) {
        Ok(text) => {
            let table: toml::Table = text
                .parse()
                .map_err(|e| format!("{}: {e}", file.display()))?;
            let integer = |key| {
                let value = table.get(key).and_then(toml::Value::as_integer);
                value.and_then(|n| u64::try_from(n).ok())
            };
            let cluster = table.get("cluster_id").and_then(toml::Value::as_str);
            let found = (cluster, integer("node_id"), integer("starts"));
            let (Some(cluster), Some(node), Some(starts)) = found else {
                return Err(format!("{}: a key is missing", file.display()));
            };
            if (cluster, node) != (cluster_id, node_id) {
                return Err(format!(
                    "data directory {shown} belongs to node {node} of cluster {cluster}, this is \
                     node {node_id} of cluster {cluster_id}"
                ));
            }
            starts + 1
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if dir.join("db").exists() {
                return Err(format!(
                    "data directory {shown} holds the data of a single node: a node of a cluster \
                     begins with an empty one"
                ));
            }
            1
        }
        Err(e) => return Err(format!("{}: {e}", file.display())),
    };
    let mut table = toml::Table::new();
    table.insert("cluster_id".into(), cluster_id.into());
    let number = |n: u64| toml::Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    table.insert("node_id".into(), number(node_id));
    table.insert("starts".into(), number(life));
    super::replace_file(&file, &table.to_string())
        .map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(life)
}

/// Refuses a single node on the directory of a cluster's node.
pub fn refuse_cluster_data(dir: &Path) -> Result<(), String> {
    if dir.join(FILE).exists() {
        return Err(format!(
            "data directory {} belongs to a node of a cluster, but peers is not set",
            dir.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        refuse_cluster_data(dir).unwrap();
        assert_eq!(claim(dir, "c", 2), Ok(1));
        assert_eq!(claim(dir, "c", 2), Ok(2));
        assert!(claim(dir, "c", 3).unwrap_err().contains("node 2"));
        assert!(claim(dir, "d", 2).unwrap_err().contains("cluster c"));
        assert_eq!(claim(dir, "c", 2), Ok(3));
        assert!(refuse_cluster_data(dir).is_err());
        std::fs::write(dir.join(FILE), "node_id = 2").unwrap();
        assert!(claim(dir, "c", 2).unwrap_err().contains("missing"));
    }

    #[test]
    fn the_data_of_a_single_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        assert!(claim(dir.path(), "c", 1)
            .unwrap_err()
            .contains("single node"));
    }
}
