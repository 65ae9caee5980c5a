//! The queue core: offsets for an append, and the answers once it is committed.

use crate::sample::{self, KEY};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use troupemq::actors::effect::Effect;
use troupemq::actors::queue::core::{QueueCore, QueueInput};
use troupemq::model::policy::AckPolicy;
use troupemq::model::Position;
use troupemq::raft::ack;

const FIRST: Position = Position {
    index: 5,
    ordinal: 0,
};

pub fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue core/append and answer");
    for messages in [1usize, 64] {
        let policy = AckPolicy::STRICTEST;
        let stage = ack::rule(policy).stage;
        let batch = sample::batch(messages, policy);
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::from_parameter(messages), |b| {
            let mut core = QueueCore::new(KEY, 1, 0);
            let mut base = 0;
            let mut out = Vec::with_capacity(2 * messages);
            b.iter_batched(
                || (batch.clone(), vec![0; messages]),
                |(batch, tags)| {
                    out.clear();
                    let fired = Vec::new();
                    core.step(QueueInput::Append { batch, fired }, &mut out);
                    let reached = QueueInput::Reached {
                        stage,
                        base,
                        count: messages as u32,
                        first: FIRST,
                        tags,
                    };
                    core.step(reached, &mut out);
                    base += messages as u64;
                    let answers = out.iter().filter(|e| matches!(e, Effect::Answer(..)));
                    assert_eq!(answers.count(), messages);
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}
