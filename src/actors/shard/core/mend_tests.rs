use super::*;
use crate::actors::shard::machine::MachineOptions;
use crate::actors::shard::recover::recover;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::storage::{LogStore, SimStore};

const SHARD: ShardId = ShardId(1);

fn entry(index: u64) -> LogEntry {
    LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::new(),
    }
}

/// A follower that has applied entries 1 to 5.
fn replica(node: u64, voters: Vec<u64>) -> ShardCore {
    let mut store = SimStore::new(&[SHARD]);
    let append = LogAppend {
        shard: SHARD,
        entries: (1..=5).map(entry).collect(),
        hard_state: Some(HardState {
            term: 1,
            vote: 1,
            commit: 5,
        }),
        sync: true,
    };
    store.append(&[append]).unwrap();
    let raft = RaftOptions {
        quiet: true,
        ..RaftOptions::group(node, voters, 1)
    };
    let options = ShardOptions::of(SHARD);
    let found = recover(&mut store, options, MachineOptions::default(), raft);
    let (core, _) = found.unwrap();
    assert_eq!(core.machine().applied.0, 5);
    core
}

fn step(core: &mut ShardCore, input: ShardInput) -> Vec<Effect> {
    let mut out = Vec::new();
    core.step(input, &mut out);
    out
}

/// What one of these messages is, and for whom.
fn sent(out: &[Effect]) -> Vec<(u64, Bytes)> {
    let ours = out.iter().filter_map(|effect| match effect {
        Effect::Send { to, bytes } if is_ours(bytes) => Some((*to, bytes.clone())),
        _ => None,
    });
    ours.collect()
}

fn lost(out: &[Effect]) -> bool {
    let lost = |e: &Effect| matches!(e, Effect::Publish(Publish::LostEntry { index: 3 }));
    out.iter().any(lost)
}

fn hear(core: &mut ShardCore, from: u64, bytes: Bytes) -> Vec<Effect> {
    step(core, ShardInput::Message { from, bytes })
}

/// Node 2's copy is asked for; it answers with `copy`.
fn ask_two(one: &mut ShardCore, two: &mut ShardCore, copy: Option<LogEntry>) -> Vec<Effect> {
    let out = step(one, ShardInput::BadEntry { index: 3 });
    let found = out.iter();
    let told = |e: &&Effect| matches!(e, Effect::Publish(Publish::BadEntry { index: 3 }));
    assert_eq!(found.filter(told).count(), 1);
    let asked = sent(&out);
    assert_eq!((asked.len(), asked[0].0), (1, 2));
    // Asked for once, however many read it.
    assert!(step(one, ShardInput::BadEntry { index: 3 }).is_empty());
    let out = hear(two, 1, asked[0].1.clone());
    assert!(matches!(
        out[..],
        [Effect::Disk(DiskWork::Copy { to: 1, index: 3 })]
    ));
    let copied = ShardInput::Copied {
        to: 1,
        index: 3,
        entry: copy,
    };
    let answer = sent(&step(two, copied));
    assert_eq!((answer.len(), answer[0].0), (1, 1));
    hear(one, 2, answer[0].1.clone())
}

#[test]
fn a_good_copy_of_another_replica_is_written() {
    let (mut one, mut two) = (replica(1, vec![1, 2, 3]), replica(2, vec![1, 2, 3]));
    let out = ask_two(&mut one, &mut two, Some(entry(3)));
    let [Effect::Disk(DiskWork::Mend { entry: written })] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(*written, entry(3));
    assert_eq!(one.bad_entries(), (1, 0));
    let out = step(&mut one, ShardInput::Mended { index: 3 });
    assert!(matches!(
        out[..],
        [Effect::Publish(Publish::Mended { index: 3 })]
    ));
    assert_eq!(one.bad_entries(), (0, 0));
    // Found bad once more, it is sought once more.
    assert_eq!(
        sent(&step(&mut one, ShardInput::BadEntry { index: 3 })).len(),
        1
    );
}

#[test]
fn an_entry_is_lost_when_every_member_has_said_so_and_not_before() {
    let (mut one, mut two) = (replica(1, vec![1, 2, 3]), replica(2, vec![1, 2, 3]));
    let out = ask_two(&mut one, &mut two, None);
    assert!(!lost(&out));
    let asked = sent(&out);
    assert_eq!((asked.len(), asked[0].0), (1, 3), "the next one is asked");
    // It is away: asked again for ever, and nothing is given up.
    let mut again = 0;
    for _ in 0..100 {
        let out = step(&mut one, ShardInput::Tick { now_ms: 0 });
        assert!(!lost(&out));
        let asked = sent(&out);
        assert!(asked.iter().all(|(to, _)| *to == 3));
        again += asked.len();
    }
    assert!((5..=10).contains(&again), "{again}");
    let none = message(NONE, 3, &[]);
    let out = hear(&mut one, 3, none);
    assert!(lost(&out));
    assert_eq!(one.bad_entries(), (0, 1));
    assert!(step(&mut one, ShardInput::BadEntry { index: 3 }).is_empty());
    // Alone there is nobody to ask.
    let mut alone = replica(1, vec![1]);
    assert!(lost(&step(&mut alone, ShardInput::BadEntry { index: 3 })));
}

#[test]
fn who_does_not_answer_is_passed_over() {
    let mut one = replica(1, vec![1, 2, 3]);
    let mut asked = sent(&step(&mut one, ShardInput::BadEntry { index: 3 }));
    for _ in 0..40 {
        asked.extend(sent(&step(&mut one, ShardInput::Tick { now_ms: 0 })));
    }
    let asked: Vec<u64> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!(asked[..4], [2, 3, 2, 3]);
}

#[test]
fn only_what_is_applied_here_is_given_or_sought_and_nonsense_is_refused() {
    let (mut one, mut two) = (replica(1, vec![1, 2, 3]), replica(2, vec![1, 2, 3]));
    assert!(step(&mut one, ShardInput::BadEntry { index: 6 }).is_empty());
    assert!(hear(&mut two, 1, message(ASK, 6, &[])).is_empty());
    assert_eq!(two.refused_messages().0, 0);
    step(&mut one, ShardInput::BadEntry { index: 3 });
    let mut copy = Vec::new();
    stored::encode(&entry(3), 5, &mut copy).unwrap();
    let good = message(HERE, 3, &copy);
    let mut later = Vec::new();
    let from_later = LogEntry {
        term: 2,
        ..entry(3)
    };
    stored::encode(&from_later, 5, &mut later).unwrap();
    let mut bad = vec![
        message(9, 3, &[]),
        message(HERE, 3, &[]),
        message(HERE, 3, &later),
    ];
    bad.extend((0..HEAD).map(|len| good.slice(..len)).skip(1));
    // A copy of another entry, or changed on the way.
    for bit in 0..copy.len() * 8 {
        let mut changed = copy.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        bad.push(message(HERE, 3, &changed));
    }
    let count = bad.len() as u64;
    for bytes in bad {
        assert!(hear(&mut one, 2, bytes).is_empty());
    }
    assert!(hear(&mut one, 9, good.clone()).is_empty(), "no member");
    assert_eq!(one.refused_messages().0, count + 1);
    // Nobody asked for it.
    assert!(hear(&mut two, 1, good.clone()).is_empty());
    assert_eq!(hear(&mut one, 2, good.clone()).len(), 1);
    assert!(hear(&mut one, 3, good).is_empty(), "written once");
}
