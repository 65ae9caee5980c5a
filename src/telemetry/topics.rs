//! Counters by topic and by request code: rows for what carried something, in a fixed order.
//!
//! A broker has many topics of which nobody hears: one for the retries of each group, and those that
//! wait for their first message. They have no row and take none of the places for topics with a
//! label of their own.

use super::metrics::{label_text, CodeMetrics, TopicMetrics, OTHER_TOPIC};
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Topics that are told apart at all; more share the counters of the others.
const MAX_KNOWN: usize = 100_000;

type Row = [u64; 4];

/// Which row a topic counts into, chosen when it first carried something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    None,
    Own,
    Other,
}

#[derive(Debug)]
struct Known {
    counts: Arc<TopicMetrics>,
    place: Place,
}

#[derive(Debug, Default)]
struct Table {
    known: BTreeMap<String, Known>,
    /// Topics with a row of their own.
    own: usize,
    /// What deleted topics without one had counted.
    past: Row,
}

/// The counters of all topics. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    max: usize,
    other: Arc<TopicMetrics>,
    table: Arc<RwLock<Table>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

fn row(counts: &TopicMetrics) -> Row {
    [
        counts.messages_in.get(),
        counts.bytes_in.get(),
        counts.messages_out.get(),
        counts.bytes_out.get(),
    ]
}

fn add(sum: &mut Row, more: Row) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(more);
    }
}

impl Topics {
    /// Labels for at most `max` topics.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            other: Arc::default(),
            table: Arc::default(),
        }
    }

    pub(super) fn topic(&self, topic: &str) -> Arc<TopicMetrics> {
        if let Some(found) = self.table.read().known.get(topic) {
            return found.counts.clone();
        }
        let mut table = self.table.write();
        if table.known.len() >= MAX_KNOWN && !table.known.contains_key(topic) {
            return self.other.clone();
        }
        let known = table.known.entry(topic.to_owned());
        let known = known.or_insert_with(|| Known {
            counts: Arc::default(),
            place: Place::None,
        });
        known.counts.clone()
    }

    /// The counters of a topic that was asked for before.
    pub(super) fn known(&self, topic: &str) -> Option<Arc<TopicMetrics>> {
        let table = self.table.read();
        table.known.get(topic).map(|known| known.counts.clone())
    }

    /// Every topic that took in a message, with its counters.
    pub(super) fn written(&self) -> Vec<(String, Arc<TopicMetrics>)> {
        let table = self.table.read();
        let written = table.known.iter();
        written
            .filter(|(_, known)| known.counts.messages_in.get() > 0)
            .map(|(topic, known)| (topic.clone(), known.counts.clone()))
            .collect()
    }

    pub(super) fn forget(&self, topic: &str) {
        let mut table = self.table.write();
        match table.known.remove(topic) {
            Some(Known {
                place: Place::Own, ..
            }) => table.own -= 1,
            // The sum of the others must not fall.
            Some(Known { counts, .. }) => add(&mut table.past, row(&counts)),
            None => {}
        }
    }

    /// The rows that there are, each with its label.
    fn rows(&self) -> Vec<(TopicLabel, Row)> {
        let mut table = self.table.write();
        let Table { known, own, past } = &mut *table;
        let mut others = *past;
        add(&mut others, row(&self.other));
        let mut rows = Vec::new();
        for (topic, known) in known.iter_mut() {
            let counted = row(&known.counts);
            if known.place == Place::None && counted != Row::default() {
                known.place = match *own < self.max {
                    true => Place::Own,
                    false => Place::Other,
                };
                *own += usize::from(known.place == Place::Own);
            }
            match known.place {
                Place::Own => rows.push((
                    TopicLabel {
                        topic: label_text(topic),
                    },
                    counted,
                )),
                Place::Other => add(&mut others, counted),
                Place::None => {}
            }
        }
        if others != Row::default() {
            let topic = OTHER_TOPIC.to_owned();
            rows.push((TopicLabel { topic }, others));
        }
        rows
    }
}

impl Collector for Topics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.rows();
        let families = [
            ("messages_in", "Messages stored.", None),
            (
                "message_in",
                "Bodies of messages stored.",
                Some(Unit::Bytes),
            ),
            ("messages_out", "Messages handed to consumers.", None),
            (
                "message_out",
                "Records handed to consumers.",
                Some(Unit::Bytes),
            ),
        ];
        for (at, (name, help, unit)) in families.iter().enumerate() {
            let unit = unit.as_ref();
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (label, row) in &rows {
                let mut counter = family.encode_family(label)?;
                counter.encode_counter::<NoLabelSet, _, u64>(&row[at], None)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
    name: &'static str,
}

/// The counters of all request codes, those that nobody knows together. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    known: BTreeMap<i32, (&'static str, CodeMetrics)>,
    other: CodeMetrics,
}

impl Codes {
    pub(super) fn new(codes: &[(i32, &'static str)]) -> Self {
        let codes = codes.iter();
        Self {
            known: codes
                .map(|(code, name)| (*code, (*name, CodeMetrics::default())))
                .collect(),
            other: CodeMetrics::default(),
        }
    }

    pub(super) fn get(&self, code: i32) -> &CodeMetrics {
        self.known.get(&code).map_or(&self.other, |(_, m)| m)
    }
}

impl Collector for Codes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let known = self.known.iter();
        let known = known.map(|(code, (name, counts))| (code.to_string(), *name, counts));
        let other = ("other".to_owned(), "OTHER", &self.other);
        let rows: Vec<(CodeLabel, [u64; 2])> = known
            .chain(std::iter::once(other))
            .map(|(code, name, counts)| {
                let counted = [counts.requests.get(), counts.errors.get()];
                (CodeLabel { code, name }, counted)
            })
            .filter(|(_, counted)| *counted != [0, 0])
            .collect();
        let families = [
            ("requests", "Requests by request code."),
            (
                "request_errors",
                "Requests answered with an error, by request code.",
            ),
        ];
        for (at, (name, help)) in families.iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (label, counted) in &rows {
                let mut counter = family.encode_family(label)?;
                counter.encode_counter::<NoLabelSet, _, u64>(&counted[at], None)?;
            }
        }
        Ok(())
    }
}

/// The page with the samples of each family in the order of their labels. Those of a histogram stay
/// in theirs.
pub(super) fn in_order(page: &str) -> String {
    let mut ordered = String::with_capacity(page.len());
    let mut samples: Vec<&str> = Vec::new();
    let mut histogram = false;
    let mut flush = |samples: &mut Vec<&str>, histogram: bool, next: &str| {
        if !histogram {
            samples.sort_unstable();
        }
        for line in samples.drain(..).chain([next]) {
            ordered.push_str(line);
        }
    };
    for line in page.split_inclusive('\n') {
        if line.starts_with('#') {
            flush(&mut samples, histogram, line);
            if line.starts_with("# TYPE ") {
                histogram = line.trim_end().ends_with(" histogram");
            }
        } else {
            samples.push(line);
        }
    }
    flush(&mut samples, histogram, "");
    ordered
}
