//! `troupe cluster show`, and asking nodes over their HTTP ports.

use super::{print_line, Failure};
use clap::Args;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest a page may be.
const MAX_PAGE: u64 = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// HTTP ports of nodes, as host:port,host:port; those that do not answer are named
    #[arg(long, value_name = "ADDRS", default_value = "127.0.0.1:8080")]
    http: String,
    /// Print what the nodes answer, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// The body of a page that answers with success.
pub(super) async fn get(addr: &str, path: &str) -> Result<String, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    http(addr, &request, Duration::from_secs(3)).await
}

/// Sends a request and gives the body of an answer of success.
pub(super) async fn http(addr: &str, request: &str, within: Duration) -> Result<String, Failure> {
    let text = tokio::time::timeout(within, exchange(addr, request))
        .await
        .map_err(|_| format!("no answer in {} s", within.as_secs()))??;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    let mut words = status.split_whitespace();
    if !words.next().is_some_and(|word| word.starts_with("HTTP/")) {
        return Err(format!("it does not speak HTTP; {WANTED}"));
    }
    let body = body.trim();
    match words.next() {
        Some("200") => Ok(body.to_owned()),
        // A node says in a line what is wrong.
        _ if !body.is_empty() && !body.contains(['\n', '<']) => Err(body.to_owned()),
        _ => Err(format!("it answers \"{status}\"; {WANTED}")),
    }
}

/// The port that `--http` is for.
const WANTED: &str = "--http wants a node's HTTP port (http_listen_port, 8080 by default)";

async fn exchange(addr: &str, request: &str) -> Result<Vec<u8>, Failure> {
    let connect = TcpStream::connect(addr).await;
    let mut stream = connect.map_err(|e| format!("cannot connect: {e}; {WANTED}"))?;
    let mut text = Vec::new();
    let sent = stream.write_all(request.as_bytes()).await;
    let read = stream.take(MAX_PAGE).read_to_end(&mut text).await;
    match sent.and(read) {
        // Other servers hang up on what they cannot read.
        Err(_) if text.is_empty() => Err(format!("it hangs up; {WANTED}")),
        _ => Ok(text),
    }
}

pub(super) async fn show(args: Show) -> Result<(), Failure> {
    let mut pages = Vec::new();
    let mut errors = Vec::new();
    for addr in args.http.split([',', ';']).map(str::trim) {
        let page = get(addr, "/cluster").await;
        let page = page.and_then(|text| {
            serde_json::from_str::<Value>(&text)
                .map_err(|_| format!("it answers something else than a node; {WANTED}"))
        });
        match page {
            Ok(page) => pages.push(page),
            Err(why) => errors.push(format!("{addr}: {why}")),
        }
    }
    if pages.is_empty() {
        return Err(errors.join("; "));
    }
    for why in &errors {
        let why = crate::telemetry::escape_all(why).to_string();
        match args.json {
            true => eprintln!("{why}"),
            false => print_line(&why)?,
        }
    }
    if args.json {
        return pages
            .iter()
            .try_for_each(|page| print_line(&page.to_string()));
    }
    for line in lines(&pages) {
        print_line(&crate::telemetry::escape_all(&line))?;
    }
    Ok(())
}

pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// What a node's own replicas went through.
fn told_by(page: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for shard in list(page, "shards") {
        let name = shard["name"].as_str().unwrap_or("?");
        let mut say = |what: String| {
            let node = number(page, "node_id");
            out.push(format!("node {node}, {name}: {what}"));
        };
        let owed = number(shard, "owed");
        if shard["lone"] == true && owed == 0 {
            say(format!(
                "WAITS until every other node has said that it has nothing of it, or for troupe cluster form --shard {name}"
            ));
        } else if shard["recovering"] == true {
            say("RECOVERING, does not vote before it holds all again".into());
        }
        let differ = list(shard, "state_differs_from");
        if !differ.is_empty() {
            let others: Vec<String> = differ.iter().map(Value::to_string).collect();
            let stays = match shard["outvoted"] == true {
                true => "; it is outvoted and does not lead, fill it anew",
                false => "",
            };
            say(format!(
                "STATE DIFFERS from that on node {} after entry {}{stays}",
                others.join(", "),
                number(shard, "state_differs_at")
            ));
        }
        if owed > 0 {
            say(format!(
                "LOST WHAT WAS SYNCED up to {owed}, and waits for a replica that has it; where none is left: \
                 troupe cluster rescue"
            ));
        }
        if let Some(what) = super::scrub::damage(&shard["damage"]) {
            say(what);
        }
        let losses = &shard["losses"];
        if number(losses, "unclean_recoveries") > 0 {
            let kept = number(losses, "unclean_kept");
            say(match losses["unclean_last_lost"].as_u64() {
                Some(last) => format!("UNCLEAN RECOVERY, lost {} to {last}", kept + 1),
                None => format!("UNCLEAN RECOVERY, entries behind {kept} may be lost"),
            });
        }
        match number(losses, "acked_truncated_entries") {
            0 => {}
            entries => say(format!(
                "LOST TO ANOTHER LEADER: {entries} entries acknowledged here, {} messages, up to {}",
                number(losses, "acked_truncated_messages"),
                number(losses, "acked_truncated_last")
            )),
        }
    }
    out
}

/// Whether the page is of a node that is no part of a cluster.
pub(super) fn is_single(page: &Value) -> bool {
    page["single"] == true
}

/// What the page of such a node says.
fn single(page: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for shard in list(page, "shards") {
        let state = match (shard["failed"].as_str(), shard["serving"] == true) {
            (Some(why), _) => format!("FAILED: {why}"),
            (None, true) => "serving".to_owned(),
            (None, false) => "NOT SERVING".to_owned(),
        };
        out.push(format!(
            "single node  broker {} of {}, port {}  {state}  committed {}  applied {}",
            shard["name"].as_str().unwrap_or("?"),
            page["cluster"].as_str().unwrap_or("?"),
            number(shard, "port"),
            number(shard, "committed"),
            number(shard, "applied"),
        ));
        out.extend(super::scrub::damage(&shard["damage"]));
    }
    if out.is_empty() {
        out.push("single node  a name server without a broker".to_owned());
    } else {
        out.push("no replicas: a cluster lists its nodes in peers (docs/operating.md)".to_owned());
    }
    out
}

/// In what a node sees others set otherwise.
fn differences(page: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for node in list(page, "nodes") {
        for differs in list(node, "differs") {
            let text = |key: &str| differs[key].as_str().unwrap_or("?").to_owned();
            out.push(format!(
                "DIFFERS: {} is {} on node {} and {} on node {}",
                text("what"),
                text("here"),
                number(page, "node_id"),
                text("there"),
                number(node, "id"),
            ));
        }
    }
    out
}

/// What the pages of several nodes say, each shard by the node that leads it when that answered.
fn lines(pages: &[Value]) -> Vec<String> {
    let (alone, pages): (Vec<&Value>, Vec<&Value>) = pages.iter().partition(|p| is_single(p));
    let mut out: Vec<String> = alone.into_iter().flat_map(single).collect();
    for page in &pages {
        let up = |node: &Value| match &node["link"] {
            Value::Null => format!("{} here", number(node, "id")),
            link if link["outgoing"] == true && link["incoming"] == true => {
                format!("{} up", number(node, "id"))
            }
            _ => format!("{} DOWN", number(node, "id")),
        };
        let links: Vec<String> = list(page, "nodes").iter().map(up).collect();
        out.push(format!(
            "node {} of cluster {}  links: {}",
            number(page, "node_id"),
            page["cluster_id"].as_str().unwrap_or("?"),
            links.join(", ")
        ));
    }
    let mut shards: Vec<(u64, &Value)> = Vec::new();
    for page in &pages {
        for shard in list(page, "shards") {
            let leads = shard["serving"] == true;
            let same = |known: &&mut (u64, &Value)| known.1["id"] == shard["id"];
            match shards.iter_mut().find(same) {
                Some(known) if leads || number(shard, "term") > number(known.1, "term") => {
                    *known = (number(page, "node_id"), shard)
                }
                Some(_) => {}
                None => shards.push((number(page, "node_id"), shard)),
            }
        }
    }
    out.extend(pages.iter().copied().flat_map(differences));
    out.extend(pages.iter().copied().flat_map(told_by));
    shards.sort_by_key(|(_, shard)| number(shard, "id"));
    for (node, shard) in shards {
        let leader = match number(shard, "leader") {
            0 => "no leader".to_owned(),
            leader => format!("leader {leader}"),
        };
        let preferred = match shard["preferred"].as_u64() {
            Some(p) if p != number(shard, "leader") => format!(" (preferred {p})"),
            _ => String::new(),
        };
        out.push(format!(
            "shard {}  {leader}{preferred}  term {}  committed {}  applied {}  seen by node {node}",
            shard["name"].as_str().unwrap_or("?"),
            number(shard, "term"),
            number(shard, "committed"),
            number(shard, "applied"),
        ));
        if let Some(why) = shard["failed"].as_str() {
            out.push(format!("  FAILED: {why}"));
        }
        for replica in list(shard, "replicas") {
            if number(replica, "node") == number(shard, "leader") {
                continue;
            }
            let state = match (replica["active"] == true, replica["snapshot"] == true) {
                (_, true) => match (
                    number(replica, "snapshot_sent"),
                    number(replica, "snapshot_bytes"),
                ) {
                    (_, 0) => "waits for a snapshot".to_owned(),
                    (sent, of) => format!("holds {sent} of {of} bytes of a snapshot"),
                },
                (true, _) => "active".to_owned(),
                (false, _) => "SILENT".to_owned(),
            };
            let behind = match number(replica, "lag_entries") {
                0 => "level".to_owned(),
                entries => format!(
                    "{entries} entries (about {} bytes) behind, level {} ms ago",
                    number(replica, "lag_bytes"),
                    replica["lag_ms"]
                        .as_u64()
                        .map_or("?".to_owned(), |ms| ms.to_string())
                ),
            };
            let part = if replica["voter"] == true {
                ""
            } else {
                "  learner"
            };
            out.push(format!(
                "  replica on node {}{part}  {state}  {behind}",
                number(replica, "node"),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_shard_is_shown_by_its_leader() {
        let shard = |serving: bool, replicas: Value| {
            json!({"id": 1, "name": "broker-a", "leader": 2, "term": 5, "serving": serving,
                   "preferred": 1, "committed": 9, "applied": 8, "replicas": replicas})
        };
        let other = json!([{"node": 1, "active": false, "snapshot": false, "lag_entries": 7,
                            "lag_bytes": 70, "voter": true},
                           {"node": 4, "active": true, "snapshot": true, "lag_entries": 7,
                            "snapshot_sent": 3, "snapshot_bytes": 9},
                           {"node": 2, "active": true, "snapshot": false, "lag_entries": 0}]);
        let lost = json!({"unclean_recoveries": 1, "unclean_kept": 5, "unclean_last_lost": 9,
                          "acked_truncated_entries": 2, "acked_truncated_messages": 3,
                          "acked_truncated_last": 8});
        let page = |node: u64, mut shard: Value| {
            if node == 2 {
                shard["losses"] = lost.clone();
                shard["state_differs_from"] = json!([1, 3]);
                shard["state_differs_at"] = 512.into();
                shard["outvoted"] = true.into();
                shard["recovering"] = true.into();
            }
            json!({"node_id": node, "cluster_id": "c", "shards": [shard],
                   "nodes": [{"id": node, "link": null, "differs": [
                                 {"what": "retention_bytes", "here": "1", "there": "2"}]},
                             {"id": 3, "link": {"outgoing": true, "incoming": false}}]})
        };
        let pages = [
            page(1, shard(false, json!([]))),
            page(2, shard(true, other)),
        ];
        let text = lines(&pages).join("\n");
        assert!(text.contains("links: 1 here, 3 DOWN"), "{text}");
        assert!(text.contains("leader 2 (preferred 1)  term 5"), "{text}");
        assert!(text.contains("seen by node 2"), "{text}");
        assert!(
            text.contains("node 1  SILENT  7 entries (about 70 bytes) behind, level ? ms ago"),
            "{text}"
        );
        assert_eq!(text.matches("shard broker-a").count(), 1);
        for said in [
            "DIFFERS: retention_bytes is 1 on node 2 and 2 on node 2",
            "node 2, broker-a: STATE DIFFERS from that on node 1, 3 after entry 512; it is outvoted",
            "node 2, broker-a: RECOVERING",
            "node 2, broker-a: UNCLEAN RECOVERY, lost 6 to 9",
            "2 entries acknowledged here, 3 messages, up to 8",
            "node 4  learner  holds 3 of 9 bytes of a snapshot",
        ] {
            assert!(text.contains(said), "{text}");
        }
        assert_eq!(text.matches("replica on").count(), 2);
    }

    #[test]
    fn a_single_node_is_shown_as_one() {
        let page =
            |shards: Value| json!({"single": true, "cluster": "C", "node_id": 1, "shards": shards});
        let broker = page(json!([{"name": "broker-a", "port": 10911, "serving": true,
                                  "committed": 9, "applied": 8, "replicas": []}]));
        let text = lines(&[broker]).join("\n");
        for said in [
            "single node  broker broker-a of C, port 10911  serving  committed 9  applied 8",
            "no replicas",
        ] {
            assert!(text.contains(said), "{text}");
        }
        assert!(
            !text.contains("links") && !text.contains("leader"),
            "{text}"
        );
        assert!(lines(&[page(json!([]))])[0].contains("a name server without a broker"));
    }
}
