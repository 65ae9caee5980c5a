//! Faults that a quarter of the lives of several nodes have beside those of [`crate::plan`]. They are drawn
//! from numbers of their own, so that the life of a seed that has none of them is as it was without them.
//!
//! [`crate::links`] has those of the network, [`crate::stress`] those of processes.

use crate::fooled::Fooled;
use crate::links::Link;
use crate::plan::Plan;
use troupemq::storage::SimRng;

/// Told apart from the numbers of the life itself.
const SALT: u64 = 0x5e_ed0f_fa17;

/// Which of these faults a life has, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Of 1000 ticks of a node, those that clog a link from it.
    pub clogs: u64,
    /// Bytes that wait on a link that is clogged; what does not fit is refused.
    pub clog_bytes: usize,
    /// Of 1000 ticks, those that break a connection with messages under way.
    pub breaks: u64,
    /// Of 1000 messages, those whose frame changes on the way.
    pub corrupt: u64,
    /// Partitions in which each voter hears only its two neighbours.
    pub rings: bool,
    /// Of 1000 ticks, those from which on no client reaches the node for a while.
    pub client_cuts: u64,
    /// Of 1000 ticks of the first node, those in which all nodes stop at once.
    pub all_stop: u64,
    /// Of 1000 ticks, those from which on the node stops again and again soon after its start.
    pub loops: u64,
    /// Of 1000 ticks, those that stop the process for 10 to 60 s.
    pub long_pauses: u64,
    /// Of 1000 ticks, those from which on the node has a tenth of its speed for some seconds.
    pub slow: u64,
    /// Of 1000 messages, those that come again minutes later.
    pub replays: u64,
    /// The nodes' clocks run at different rates.
    pub drift: bool,
    /// Whoever comes to lead may have its clock set just then.
    pub steps: bool,
    /// Of 1000 ticks, those in which an operator goes on to another number of voters; the group begins
    /// with one.
    pub resizes: u64,
    /// A message whose fate is unknown is sent again as it was.
    pub again: bool,
}

/// What a node suffers.
#[derive(Debug, Clone, Default)]
pub struct Suffers {
    /// No client reaches it until then, microseconds.
    pub cut_off_until: u64,
    /// It is slow until then.
    pub slow_until: u64,
    /// It stops soon after so many of its next starts.
    pub stops_left: u64,
    /// While it is paused others do not reach it from then on.
    pub silent_from: u64,
}

/// The state of these faults.
pub struct Extra {
    pub rng: SimRng,
    /// From each node to each.
    pub(crate) links: Vec<Link>,
    pub(crate) nodes: Vec<Suffers>,
    /// So many voters are wanted; 0: nobody has said.
    pub(crate) voters_wanted: usize,
    /// And so many there were, before.
    pub(crate) voters_before: usize,
    /// See [`crate::fooled`].
    pub(crate) fooled: Fooled,
    /// Who is to lead again, who is to hear nothing of that, and until when: see [`crate::moments`].
    pub(crate) again: Option<(usize, usize, u64)>,
    /// Clients are silent until then, microseconds.
    pub(crate) lull_until: u64,
}

impl Extra {
    /// Draws these faults into the plan, for so many places.
    pub fn draw(seed: u64, plan: &mut Plan, nodes: usize) -> Self {
        let mut rng = SimRng::new(seed ^ SALT);
        // Bad moments are rare enough without them.
        let net = &plan.net;
        let free = !net.busy && !net.sole && net.moments == 0 && net.promises_most.is_none();
        if nodes > 1 && free && rng.chance(1, 2) {
            plan.extra = Faults::draw(&mut rng, plan, nodes);
        }
        let places = nodes + usize::from(plan.net.members > 0);
        Self {
            rng,
            links: vec![Link::default(); places * places],
            nodes: vec![Suffers::default(); places],
            voters_wanted: 0,
            voters_before: 1,
            fooled: Fooled::default(),
            again: None,
            lull_until: 0,
        }
    }
}

impl Faults {
    fn draw(rng: &mut SimRng, plan: &mut Plan, nodes: usize) -> Self {
        if rng.chance(1, 4) {
            plan.net.loss = 30;
        }
        if rng.chance(1, 4) {
            plan.net.delay_us = 100_000;
        }
        let mut some = |often: [u64; 2]| match rng.below(4) {
            0 => often[rng.below(2) as usize],
            _ => 0,
        };
        let mut faults = Self {
            clogs: some([5, 30]),
            clog_bytes: 0,
            breaks: some([5, 30]),
            corrupt: some([1, 10]),
            rings: some([1, 1]) > 0 && nodes > 3,
            client_cuts: some([3, 10]),
            all_stop: some([10, 50]),
            loops: some([2, 10]),
            long_pauses: some([1, 3]),
            slow: some([3, 10]),
            replays: 0,
            drift: some([1, 1]) > 0,
            steps: some([1, 1]) > 0,
            resizes: some([10, 50]),
            again: some([1, 1]) > 0,
        };
        faults.clog_bytes = [300, 2_000, 1 << 20][rng.below(3) as usize];
        if faults.rings {
            plan.net.partitions = 30;
        }
        if faults.long_pauses > 0 {
            // Such a pause ends while clients still ask.
            plan.op_gap_us = 400_000;
        }
        if faults.drift {
            // As their ticks do.
            plan.net.unequal = true;
        }
        if faults.resizes > 0 {
            plan.net.members = 0;
            plan.net.wipes = plan.net.wipes.max(40);
        }
        if rng.chance(1, 12) {
            // A longer life with as much work as others.
            faults.replays = 30;
            (plan.ops, plan.op_gap_us) = (250, 1_600_000);
        }
        faults
    }
}
