//! Who the members are stands in the data. The configuration has their addresses, and is refused
//! where it lacks one: what its writer means by that is never done.

use super::operate::{self, Known};
use crate::actors::shard::recover::Recovery;
use crate::config::Cluster;
use std::path::Path;

/// Nodes whose addresses are known: those of the configuration, and those that were let in.
///
/// # Errors
/// One line, when the list of the latter cannot be read.
pub fn known(dir: &Path, cluster: &Cluster) -> Result<Known, String> {
    let mut known = operate::load(dir)?;
    known.extend(cluster.nodes.iter().map(|n| (n.id, n.addr.clone())));
    Ok(known)
}

/// Checks the members of the shards as they were found in the data.
///
/// # Errors
/// One line: a member has no address.
pub fn check<'a>(
    me: u64,
    joins: bool,
    known: &Known,
    shards: impl Iterator<Item = (&'a str, &'a Recovery)> + Clone,
) -> Result<(), String> {
    let own = |(_, found): &(&str, &Recovery)| found.members.nodes().contains(&me);
    for (name, found) in shards.clone().filter(own) {
        let members = found.members.nodes();
        if let Some(lacking) = members.iter().find(|node| !known.contains_key(node)) {
            return Err(format!(
                "peers does not list node {lacking}, but the data of this node says that it is a \
                 member of {name} (members: {members:?}): list it again; members are changed with \
                 troupe cluster remove --node {lacking}, or troupe cluster replace --node {lacking} \
                 --with N, while this node is a member too, and not by peers"
            ));
        }
    }
    let any = |node: u64| {
        let mut shards = shards.clone();
        shards.any(|(_, found)| found.members.nodes().contains(&node))
    };
    for node in known.keys().filter(|node| !any(**node)) {
        match *node == me {
            true if !joins => tracing::warn!(
                node,
                "this node has no part in any shard: troupe cluster add --node {node} gives it one"
            ),
            true => {}
            false => tracing::info!(
                node,
                "a node in peers that is no member of any shard as far as is known here: troupe \
                 cluster add --node {node} makes it one"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::members::Members;

    fn found(voters: &[u64]) -> Recovery {
        Recovery {
            first: 1,
            last: 9,
            replayed: 0,
            unsure: false,
            members: Members::of(voters.to_vec()),
            damaged: vec![],
        }
    }

    #[test]
    fn a_member_without_an_address_is_named_with_the_command() {
        let known = |ids: &[u64]| {
            ids.iter()
                .map(|id| (*id, format!("h:{id}")))
                .collect::<Known>()
        };
        let (a, b) = (found(&[1, 2, 3]), found(&[2, 3, 5]));
        let all = [("broker-a", &a), ("broker-b", &b)];
        let check = |me, ids: &[u64]| check(me, false, &known(ids), all.iter().copied());
        assert_eq!(
            check(1, &[1, 2, 3]),
            Ok(()),
            "node 5 is of a shard that node 1 is not of"
        );
        assert_eq!(check(1, &[1, 2, 3, 4]), Ok(()), "one more is an address");
        assert_eq!(check(4, &[4]), Ok(()), "it has no part");
        let why = check(1, &[1]).unwrap_err();
        for part in [
            "node 2",
            "broker-a",
            "[1, 2, 3]",
            "troupe cluster remove --node 2",
            "replace",
        ] {
            assert!(why.contains(part) && !why.contains('\n'), "{why}");
        }
        assert!(check(2, &[1, 2, 3]).unwrap_err().contains("node 5"));
    }
}
