use super::*;

fn config(cluster: &str, node: u64, peers: &str) -> Config {
    Config {
        cluster_id: cluster.into(),
        node_id: node,
        peers: peers.into(),
        ..Config::default()
    }
}

const THREE: &str = "1=h:1;2=h:2;3=h:3";

fn take(dir: &Path, config: &Config) -> Result<Claim, String> {
    claim(dir, config, config.cluster().unwrap())
}

#[test]
fn starts_are_counted_and_others_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    refuse_cluster_data(dir).unwrap();
    let life = |cluster, node| take(dir, &config(cluster, node, THREE)).map(|c| c.life);
    assert_eq!(life("c", 2), Ok(1));
    assert_eq!(life("c", 2), Ok(2));
    assert!(life("c", 3).unwrap_err().contains("node 2"));
    assert!(life("d", 2).unwrap_err().contains("cluster c"));
    assert_eq!(life("c", 2), Ok(3));
    assert!(refuse_cluster_data(dir).is_err());
    std::fs::write(dir.join(FILE), "node_id = 2").unwrap();
    assert!(life("c", 2).unwrap_err().contains("missing"));
}

#[test]
fn the_data_of_a_single_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    let refused = take(dir.path(), &config("c", 1, THREE));
    assert!(refused.unwrap_err().contains("single node"));
}

#[test]
fn shards_and_their_first_replicas_are_those_of_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = take(dir, &config("c", 1, THREE)).unwrap();
    assert_eq!((first.life, first.unsure), (1, false));
    std::fs::create_dir(dir.join("db")).unwrap();
    // A node less, a node more, others in another order: addresses, and nothing else.
    for peers in ["1=h:1", "1=h:1;2=h:2;3=h:3;4=h:4", "3=x:3;1=x:1;2=x:2"] {
        let again = take(dir, &config("c", 1, peers)).unwrap();
        assert_eq!(again.cluster.shards, first.cluster.shards, "{peers}");
        assert_eq!(again.cluster.nodes.len(), peers.split(';').count());
    }
    let mut replicas = config("c", 1, THREE);
    replicas.replicas = 1;
    assert_eq!(take(dir, &replicas).unwrap().cluster, first.cluster);
    for shards in [
        "broker-a",
        "broker-b;broker-a;broker-c",
        "a;b;c",
        "broker-a;broker-b;broker-c;d",
    ] {
        let mut other = config("c", 1, THREE);
        other.shards = shards.into();
        let why = take(dir, &other).unwrap_err();
        assert!(
            why.contains("\"broker-a;broker-b;broker-c\"") && !why.contains('\n'),
            "{why}"
        );
    }
    let mut same = config("c", 1, THREE);
    same.shards = "broker-a;broker-b;broker-c".into();
    assert_eq!(take(dir, &same).unwrap().cluster, first.cluster);
    std::fs::write(
        dir.join(FILE),
        "cluster_id='c'\nnode_id=1\nstarts=9\nshards=[]",
    )
    .unwrap();
    assert!(take(dir, &same)
        .unwrap_err()
        .contains("shards make no sense"));
}

#[test]
fn what_an_earlier_version_left_is_kept_once_somebody_is_sure() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("db")).unwrap();
    let text = "cluster_id = \"c\"\nnode_id = 1\nstarts = 4\n";
    std::fs::write(dir.join(FILE), text).unwrap();
    let three = take(dir, &config("c", 1, THREE)).unwrap();
    assert_eq!((three.life, three.unsure), (5, true));
    // Nobody confirmed it: what was wrong may still be put right.
    let one = take(dir, &config("c", 1, "1=h:1")).unwrap();
    assert_eq!((one.cluster.shards.len(), one.unsure), (1, true));
    keep_shards(dir, &three.cluster.begun()).unwrap();
    let kept = take(dir, &config("c", 1, "1=h:1")).unwrap();
    assert_eq!((kept.life, kept.unsure), (7, false));
    assert_eq!(kept.cluster.shards, three.cluster.shards);
}
