//! Each planted defect is found within a thousand seeds: the checkers can see.

use cluster_tests::defects::{
    Planted, ALL, CONSUMERS, CONSUMERS_OF_GROUP, FORWARDING, GROUP, MANY,
};
use cluster_tests::Play;

/// Plays until each is found; those that are not.
fn hunt(defects: &[Planted], nodes: usize) -> Vec<Planted> {
    // Some defects end in a panic of the raft library: expected here, and not to be printed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut unseen = Vec::new();
    for defect in defects {
        let how = Play {
            nodes,
            defect: Some(*defect),
            ..Play::default()
        };
        let found = (0..1000u64).find_map(|seed| {
            let (result, _) = cluster_tests::play(seed, how);
            result.err().map(|failure| (seed, failure))
        });
        match found {
            Some((seed, f)) => {
                let what: String = f.what.chars().take(200).collect();
                println!("{defect:?}: seed {seed}, {}: {what}", f.invariant);
            }
            None => unseen.push(*defect),
        }
    }
    let _ = std::panic::take_hook();
    unseen
}

#[test]
fn every_planted_defect_is_found() {
    let mut unseen = hunt(&ALL, 1);
    unseen.extend(hunt(&GROUP, 3));
    unseen.extend(hunt(&MANY, 5));
    unseen.extend(hunt(&CONSUMERS, 1));
    unseen.extend(hunt(&CONSUMERS, 3));
    unseen.extend(hunt(&CONSUMERS_OF_GROUP, 3));
    unseen.extend(hunt(&FORWARDING, 3));
    assert!(unseen.is_empty(), "not found in 1,000 seeds: {unseen:?}");
}
