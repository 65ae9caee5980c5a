//! A cluster of clocks, of which some jump, drift, fall silent or begin wrong.

use super::*;
use proptest::prelude::*;

const EPOCH: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;
const STEP: i64 = 500;

/// One node that looks, and the wall clocks of all; the own one is the first.
struct World {
    mono: i64,
    /// Wall clocks minus true time.
    skews: Vec<i64>,
    silent: Vec<bool>,
    core: ClockCore,
    events: Vec<Event>,
}

impl World {
    fn new(skews: &[i64]) -> Self {
        let mono = 1_000_000;
        Self {
            mono,
            skews: skews.to_vec(),
            silent: vec![false; skews.len()],
            core: ClockCore::new(skews.len() - 1, mono, EPOCH + mono + skews[0]),
            events: Vec::new(),
        }
    }

    fn wall(&self, of: usize) -> i64 {
        EPOCH + self.mono + self.skews[of]
    }

    fn step(&mut self) {
        self.mono += STEP;
        for other in 1..self.skews.len() {
            if !self.silent[other] {
                // The way takes a while.
                self.core
                    .heard(other as u64, self.wall(other) - 3, self.mono);
            }
        }
        let wall = self.wall(0);
        self.events.extend(self.core.look(self.mono, wall));
    }

    fn run(&mut self, ms: i64) {
        for _ in 0..ms / STEP {
            self.step();
        }
    }

    /// The node's time minus true time.
    fn off(&self) -> i64 {
        self.core.now_ms(self.mono) - EPOCH - self.mono
    }
}

#[test]
fn one_of_three_that_jumps_is_held_and_freed() {
    for jump in [HOUR, -HOUR, 48 * HOUR, -48 * HOUR] {
        let mut w = World::new(&[0, 0, 0]);
        w.run(5_000);
        w.skews[0] = jump;
        for _ in 0..1_000 {
            w.step();
            assert!(w.off().abs() <= 3, "{jump}: {}", w.off());
        }
        assert!(w.core.is_held());
        assert!((w.core.own_ahead_ms() - jump).abs() <= 3);
        w.skews[0] = 20;
        w.step();
        assert_eq!((w.off(), w.core.is_held()), (20, false));
        let held = matches!(w.events[1], Event::Held { .. });
        assert!(held && w.events.len() == 3 && w.events[2] == Event::Freed);
        assert_eq!(w.core.counts(), (1, 0));
    }
}

#[test]
fn another_ones_jump_moves_nothing() {
    let mut w = World::new(&[7, 0, 0]);
    w.run(2_000);
    w.skews[2] = 2 * HOUR;
    w.run(300_000);
    assert_eq!(w.off(), 7);
    // With one of the others gone there is no majority, and the own clock is near.
    w.silent[1] = true;
    w.run(300_000);
    assert_eq!(w.off(), 7);
    assert!(w.events.len() == 1 && !w.core.is_held());
}

#[test]
fn what_a_majority_says_for_a_minute_is_time() {
    for (own, jump) in [(true, HOUR), (true, -HOUR), (false, 48 * HOUR)] {
        let mut w = World::new(&[0, 0, 0]);
        w.run(5_000);
        w.skews[1] = jump;
        w.skews[if own { 0 } else { 2 }] = jump;
        w.run(STEADY_MS - 1_000);
        assert!(w.off().abs() <= 3, "{}", w.off());
        w.run(3_000);
        assert!((w.off() - jump).abs() <= 3, "{}", w.off());
        assert_eq!(w.core.counts().1, 1);
        assert_eq!(w.core.is_held(), !own);
    }
    // Set and set back: nothing happens.
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    w.skews = vec![HOUR; 3];
    w.run(30_000);
    w.skews = vec![0; 3];
    w.run(600_000);
    assert_eq!((w.off(), w.core.counts().1), (0, 0));
}

#[test]
fn a_node_alone_believes_a_jump_after_a_minute_and_small_steps_at_once() {
    let mut w = World::new(&[0]);
    assert!(w.core.is_settled());
    w.skews[0] = 200_000;
    w.step();
    assert_eq!(w.off(), 200_000);
    w.skews[0] = HOUR;
    w.run(STEADY_MS - 1_000);
    assert_eq!(w.off(), 200_000);
    w.run(2_000);
    assert_eq!((w.off(), w.core.counts().1), (HOUR, 1));
}

#[test]
fn with_silent_peers_a_jump_is_not_believed() {
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    w.silent = vec![false, true, true];
    w.run(HEARD_MS + 1_000);
    w.skews[0] = 100;
    w.step();
    assert_eq!(w.off(), 100, "near: followed without others");
    w.skews[0] = HOUR;
    w.run(600_000);
    assert_eq!(w.off(), 100, "runs on by itself");
    // One of two others is back: two clocks that differ are no majority.
    w.silent[1] = false;
    w.run(600_000);
    assert_eq!(w.off(), 100);
    w.silent[2] = false;
    w.step();
    assert_eq!(w.off(), 100, "near enough to what they say");
}

#[test]
fn what_comes_late_from_others_does_not_move_time_that_is_held() {
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    w.skews[0] = -HOUR;
    for late in 0..400 {
        w.skews[1] = -(late * 37 % 500);
        w.skews[2] = -(late * 53 % 500);
        w.step();
        assert_eq!(w.off(), 0);
    }
    // Clocks that really are elsewhere are followed.
    (w.skews[1], w.skews[2]) = (5_000, 5_000);
    w.step();
    assert!((w.off() - 5_000).abs() <= 3);
}

#[test]
fn a_few_that_are_wrong_alike_and_cut_off_move_nothing() {
    let mut w = World::new(&[0, 0, 0, 0, 0]);
    w.run(5_000);
    (w.skews[0], w.skews[1]) = (HOUR, HOUR);
    (w.silent[2], w.silent[3], w.silent[4]) = (true, true, true);
    w.run(10 * STEADY_MS);
    assert!(w.off().abs() <= 3, "{}", w.off());
    w.silent = vec![false; 5];
    w.run(5_000);
    assert!(w.off().abs() <= 3, "{}", w.off());
}

#[test]
fn a_wrong_clock_at_the_start_is_put_right_by_the_others() {
    for wrong in [48 * HOUR, -48 * HOUR] {
        let mut w = World::new(&[wrong, 0, 5]);
        w.silent = vec![false, true, true];
        w.run(5_000);
        assert!(!w.core.is_settled(), "nobody was heard");
        w.silent[1] = false;
        w.run(5_000);
        assert!(!w.core.is_settled(), "two that differ");
        w.silent[2] = false;
        w.step();
        assert!(w.core.is_settled() && w.core.is_held() && w.off().abs() < 10);
    }
    let mut w = World::new(&[0, 1_000, 2_000, 48 * HOUR, 48 * HOUR]);
    w.step();
    assert!(w.core.is_settled() && w.off() == 0);
}

#[test]
fn one_that_waits_in_vain_at_the_start_goes_by_its_own_clock_until_others_come() {
    let mut w = World::new(&[HOUR, 0, 0]);
    w.silent = vec![false, true, true];
    w.run(BOOT_MS);
    assert!(w.core.is_settled() && w.off() == HOUR);
    w.silent = vec![false; 3];
    w.step();
    assert!(
        w.off().abs() <= 3,
        "nobody had confirmed it: no minute is waited"
    );
}

#[test]
fn a_clock_that_drifts_away_is_held_at_five_minutes() {
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    for _ in 0..20_000 {
        // A quarter too fast.
        w.skews[0] += STEP / 4;
        w.step();
        assert!((-3..=NEAR_MS).contains(&w.off()), "{}", w.off());
    }
    assert!(w.core.is_held() && w.off().abs() <= 3);
    assert_eq!(w.core.counts().1, 0);
}

#[test]
fn at_the_limit_time_does_not_go_to_and_fro() {
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    for step in 0..1_000 {
        w.skews[0] = NEAR_MS + if step % 2 == 0 { 50 } else { -50 };
        w.step();
        assert!(w.off().abs() <= 3, "{}", w.off());
    }
    assert_eq!(w.core.counts(), (1, 0));
    w.skews[0] = NEAR_MS / 2 - 100;
    w.step();
    assert_eq!((w.off(), w.core.is_held()), (w.skews[0], false));
}

#[test]
fn slews_are_followed_smoothly() {
    let mut w = World::new(&[0, 400, -400]);
    w.run(5_000);
    let mut before = w.core.now_ms(w.mono);
    for _ in 0..2_000 {
        w.skews[0] -= 1;
        w.step();
        let now = w.core.now_ms(w.mono);
        assert_eq!(now - before, STEP - 1);
        before = now;
    }
}

#[test]
fn a_sleep_of_the_machine_is_time() {
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    // Both clocks of the machine counted it; what was heard before is old.
    w.mono += 3 * HOUR;
    w.silent = vec![false, true, true];
    w.step();
    assert_eq!(w.off(), 0);
    // A machine whose monotonic clock stood still: all walls seem to jump, and do after a minute.
    let mut w = World::new(&[0, 0, 0]);
    w.run(5_000);
    w.skews = vec![HOUR; 3];
    w.run(STEADY_MS + 2_000);
    assert_eq!(w.off(), HOUR);
}

proptest! {
    /// Whatever a minority of five does, and whoever is not heard for a while, a node that has
    /// settled stays near the others; numbers that cannot be overflow nothing.
    #[test]
    fn a_minority_never_moves_time(
        jumps in prop::collection::vec(
            (0usize..3, 0usize..5, any::<i64>(), 1i64..200, prop::bool::ANY), 1..40),
        own_is_wrong in prop::bool::ANY,
    ) {
        let mut w = World::new(&[0, 150, -150, 90, 10]);
        w.run(2_000);
        prop_assert!(w.core.is_settled());
        let first = usize::from(!own_is_wrong);
        for (who, silent, jump, steps, small) in jumps {
            // Only two of the five may be wrong.
            let liar = [first, 4, 4][who];
            let jump = if small { jump % 100_000 } else { jump % (1 << 50) };
            w.skews[liar] = jump;
            w.silent = vec![false; 5];
            // Those that are right are heard.
            w.silent[[0, first, 4, 0, 4][silent]] = true;
            for _ in 0..steps {
                w.step();
                prop_assert!(w.off().abs() <= 2 * NEAR_MS, "{}", w.off());
            }
        }
        prop_assert_eq!(w.core.counts().1, 0);
        w.core.heard(1, i64::MAX, w.mono);
        w.core.heard(2, i64::MIN, w.mono);
        w.core.look(w.mono, i64::MIN);
        w.core.look(w.mono + 1, i64::MAX);
    }
}
