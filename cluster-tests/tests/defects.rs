//! Each planted defect is found within a thousand seeds: the checkers can see.

use cluster_tests::defects::ALL;

#[test]
fn every_planted_defect_is_found() {
    // Some defects end in a panic of the raft library: expected here, and not to be printed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut unseen = Vec::new();
    for defect in ALL {
        let found = (0..1000u64).find_map(|seed| {
            let (result, _) = cluster_tests::play(seed, None, Some(defect));
            result.err().map(|failure| (seed, failure))
        });
        match found {
            Some((seed, f)) => println!("{defect:?}: seed {seed}, {}: {}", f.invariant, f.what),
            None => unseen.push(defect),
        }
    }
    let _ = std::panic::take_hook();
    assert!(unseen.is_empty(), "not found in 1,000 seeds: {unseen:?}");
}
