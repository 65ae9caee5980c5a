//! What producers put into each topic and what each group got of it: sums and rates over the last minute, hour and
//! day, for VIEW_BROKER_STATS_DATA 315 and for the rates in 202 and 208. Every node counts what went through it.

use crate::telemetry::TopicMetrics;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Most topics, and most pairs of topic and group, whose figures are kept; what comes later has none.
const MAX_COUNTED: usize = 10_000;
/// A rate is never taken over less, ms.
const SHORTEST_MS: i64 = 1_000;

/// Messages and their bytes since the start of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// What producers put into a topic.
    pub fn stored(topic: &TopicMetrics) -> Self {
        Amount {
            messages: topic.messages_in.get(),
            bytes: topic.bytes_in.get(),
        }
    }
}

/// Counts what one group got of one topic.
#[derive(Debug, Default)]
pub struct Flow {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// A pull was answered with messages.
    pub fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn amount(&self) -> Amount {
        Amount {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// How far back a figure looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Minute,
    Hour,
    Day,
}

impl Window {
    const ALL: [Window; 3] = [Window::Minute, Window::Hour, Window::Day];

    /// Time between two samples, ms, and how many of them are kept.
    fn samples(self) -> (i64, usize) {
        match self {
            Window::Minute => (10_000, 7),
            Window::Hour => (600_000, 7),
            Window::Day => (3_600_000, 25),
        }
    }
}

/// What went through in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figure {
    /// Messages, or their bytes.
    pub sum: u64,
    /// A second.
    pub tps: f64,
}

/// Samples of one counter in each window. Time is given, in ms of a clock that only rises.
#[derive(Debug, Default)]
struct Series {
    windows: [VecDeque<(i64, Amount)>; 3],
}

impl Series {
    /// The counter was 0 at `now`.
    fn new(now: i64) -> Self {
        let mut series = Series::default();
        series.sample(now, Amount::default());
        series
    }

    fn sample(&mut self, now: i64, amount: Amount) {
        for window in Window::ALL {
            let (every, kept) = window.samples();
            let samples = &mut self.windows[window as usize];
            let due = samples.back().is_none_or(|(at, _)| now - at >= every);
            if due {
                if samples.len() >= kept {
                    samples.pop_front();
                }
                samples.push_back((now, amount));
            }
        }
    }

    /// Whether the counter went back.
    fn is_behind(&self, amount: Amount) -> bool {
        let last = self.windows[Window::Minute as usize].back();
        last.is_some_and(|(_, then)| amount.messages < then.messages)
    }

    /// Whether nothing came for as long as the longest window looks back.
    fn is_idle(&self, amount: Amount) -> bool {
        let samples = &self.windows[Window::Day as usize];
        samples.len() == Window::Day.samples().1 && samples.iter().all(|(_, then)| *then == amount)
    }

    fn figure(&self, window: Window, now: i64, amount: Amount, of: Of) -> Figure {
        let Some((at, then)) = self.windows[window as usize].front() else {
            return Figure::default();
        };
        let sum = of(&amount).saturating_sub(of(then));
        let ms = (now - at).max(SHORTEST_MS);
        let tps = sum as f64 * 1_000.0 / ms as f64;
        Figure { sum, tps }
    }
}

/// Which of an [`Amount`] is asked for.
pub type Of = fn(&Amount) -> u64;

/// Groups by the topics that they pulled from.
#[derive(Debug, Default)]
struct Flows {
    by_topic: FxHashMap<String, FxHashMap<String, Arc<Flow>>>,
    counted: usize,
}

impl Flows {
    fn get(&self, topic: &str, group: &str) -> Option<&Arc<Flow>> {
        self.by_topic.get(topic)?.get(group)
    }
}

#[derive(Debug, Default)]
struct Book {
    topics: FxHashMap<String, Series>,
    groups: FxHashMap<(String, String), Series>,
    sampled_at: i64,
}

impl Book {
    /// What was not there at the last sample counts from then on.
    fn figure(
        &self,
        series: Option<&Series>,
        window: Window,
        now: i64,
        amount: Amount,
        of: Of,
    ) -> Option<Figure> {
        match series {
            _ if amount.messages == 0 => None,
            Some(series) => Some(series.figure(window, now, amount, of)),
            None => Some(Series::new(self.sampled_at).figure(window, now, amount, of)),
        }
    }
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Traffic {
    flows: RwLock<Flows>,
    book: Mutex<Book>,
}

impl Traffic {
    /// Counts what a group gets of a topic; `None` when too many are counted already.
    pub fn flow(&self, topic: &str, group: &str) -> Option<Arc<Flow>> {
        {
            let flows = self.flows.read();
            let found = flows.get(topic, group);
            if found.is_some() || flows.counted >= MAX_COUNTED {
                return found.cloned();
            }
        }
        let mut flows = self.flows.write();
        let groups = flows.by_topic.entry(topic.to_owned()).or_default();
        let before = groups.len();
        let flow = groups.entry(group.to_owned()).or_default().clone();
        let new = groups.len() - before;
        flows.counted += new;
        Some(flow)
    }

    /// Whether the last sample is old enough for another.
    pub fn is_due(&self, now: i64) -> bool {
        let at = self.book.lock().sampled_at;
        at == 0 || now - at >= Window::Minute.samples().0
    }

    /// Takes a sample of the topics' counters, as given, and of the groups'.
    pub fn sample(&self, now: i64, topics: Vec<(String, Amount)>) {
        let mut guard = self.book.lock();
        let book = &mut *guard;
        let before = match book.sampled_at {
            0 => now,
            at => at,
        };
        book.sampled_at = now;
        let known: FxHashMap<&str, Amount> = topics.iter().map(|(t, a)| (t.as_str(), *a)).collect();
        book.topics
            .retain(|topic, _| known.contains_key(topic.as_str()));
        for (topic, amount) in topics {
            if amount.messages == 0 {
                continue;
            }
            if book.topics.len() >= MAX_COUNTED && !book.topics.contains_key(&topic) {
                continue;
            }
            let new = || Series::new(before);
            let series = book.topics.entry(topic).or_insert_with(new);
            if series.is_behind(amount) {
                // It was deleted and made again.
                *series = new();
            }
            series.sample(now, amount);
        }
        let mut flows = self.flows.write();
        flows.by_topic.retain(|topic, groups| {
            groups.retain(|group, flow| {
                let amount = flow.amount();
                let key = (topic.clone(), group.clone());
                if amount.messages == 0 {
                    // Nobody holds it: the group has not pulled since.
                    return Arc::strong_count(flow) > 1;
                }
                let series = book
                    .groups
                    .entry(key)
                    .or_insert_with(|| Series::new(before));
                series.sample(now, amount);
                !(series.is_idle(amount) && Arc::strong_count(flow) == 1)
            });
            !groups.is_empty()
        });
        flows.counted = flows.by_topic.values().map(FxHashMap::len).sum();
        book.groups
            .retain(|(topic, group), _| flows.get(topic, group).is_some());
    }

    /// What came into a topic; `None` when nothing did. `amount`: its counters now.
    pub fn put(
        &self,
        topic: &str,
        window: Window,
        now: i64,
        amount: Amount,
        of: Of,
    ) -> Option<Figure> {
        let book = self.book.lock();
        let series = book.topics.get(topic);
        if series.is_none() && book.topics.len() >= MAX_COUNTED {
            return None;
        }
        book.figure(series, window, now, amount, of)
    }

    /// What a group got of a topic; `None` when it got nothing.
    pub fn got(
        &self,
        topic: &str,
        group: &str,
        window: Window,
        now: i64,
        of: Of,
    ) -> Option<Figure> {
        let amount = self.flows.read().get(topic, group)?.amount();
        let book = self.book.lock();
        let key = (topic.to_owned(), group.to_owned());
        book.figure(book.groups.get(&key), window, now, amount, of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 5_000;

    fn amount(messages: u64) -> Amount {
        Amount {
            messages,
            bytes: messages * 10,
        }
    }

    /// A second of `each` messages at a time, sampled every 10 s.
    fn run(traffic: &Traffic, seconds: std::ops::Range<i64>, each: impl Fn(i64) -> u64) -> u64 {
        let mut total = 0;
        for second in seconds {
            if second % 10 == 0 {
                traffic.sample(
                    START + second * 1_000,
                    vec![("T".to_owned(), amount(total))],
                );
            }
            total += each(second);
        }
        total
    }

    #[test]
    fn each_window_looks_back_as_far_as_it_says() {
        let traffic = Traffic::default();
        let total = run(&traffic, 0..7_201, |s| if s < 3_600 { 1 } else { 10 });
        let now = START + 7_200_000;
        let figure = |window, of| traffic.put("T", window, now, amount(total), of).unwrap();
        let minute = figure(Window::Minute, |a| a.messages);
        assert_eq!(minute.sum, 610);
        assert!((minute.tps - 10.0).abs() < 0.2, "{minute:?}");
        let hour = figure(Window::Hour, |a| a.messages);
        assert!(
            (hour.tps - 10.0).abs() < 0.1 && hour.sum == 36_010,
            "{hour:?}"
        );
        let day = figure(Window::Day, |a| a.bytes);
        assert_eq!(day.sum, total * 10);
        assert_eq!(
            traffic.put("T", Window::Day, now, amount(0), |a| a.messages),
            None
        );
    }

    #[test]
    fn what_came_between_two_samples_counts_from_the_first() {
        let traffic = Traffic::default();
        traffic.sample(START, vec![]);
        assert_eq!(
            traffic.got("T", "G", Window::Minute, START, |a| a.messages),
            None
        );
        traffic.flow("T", "G").unwrap().add(20, 2_000);
        let got = traffic.got("T", "G", Window::Minute, START + 4_000, |a| a.messages);
        assert_eq!(got, Some(Figure { sum: 20, tps: 5.0 }));
        traffic.sample(START + 10_000, vec![]);
        traffic.flow("T", "G").unwrap().add(10, 1_000);
        let got = traffic.got("T", "G", Window::Minute, START + 15_000, |a| a.messages);
        assert_eq!(got, Some(Figure { sum: 30, tps: 2.0 }));
        let bytes = traffic.got("T", "G", Window::Hour, START + 15_000, |a| a.bytes);
        assert_eq!(bytes.unwrap().sum, 3_000);
        assert_eq!(
            traffic.got("T", "other", Window::Minute, START, |a| a.messages),
            None
        );
    }

    #[test]
    fn what_is_idle_for_a_day_or_gone_is_forgotten() {
        let traffic = Traffic::default();
        let flow = traffic.flow("T", "G").unwrap();
        traffic.flow("T", "never pulls again").unwrap();
        flow.add(5, 5);
        let hours = |from: i64, to: i64| {
            for hour in from..to {
                let now = START + hour * 3_600_000;
                traffic.sample(now, vec![("T".to_owned(), amount(5))]);
            }
        };
        hours(0, 3);
        assert_eq!(traffic.flows.read().by_topic["T"].len(), 1);
        hours(3, 40);
        let now = START + 40 * 3_600_000;
        let put = traffic.put("T", Window::Day, now, amount(5), |a| a.messages);
        assert_eq!(put, Some(Figure::default()));
        let got = traffic.got("T", "G", Window::Day, now, |a| a.messages);
        assert_eq!(got, Some(Figure::default()));
        // A connection may still count with it.
        assert_eq!(traffic.flows.read().counted, 1);
        drop(flow);
        hours(40, 42);
        assert_eq!(traffic.flows.read().counted, 0);
        assert!(traffic.book.lock().groups.is_empty());
    }

    #[test]
    fn a_topic_that_was_made_again_begins_at_nothing() {
        let traffic = Traffic::default();
        let sample = |second: i64, messages: Option<u64>| {
            let one = messages.map(|m| ("T".to_owned(), amount(m)));
            traffic.sample(START + second * 1_000, one.into_iter().collect());
        };
        sample(0, Some(100));
        sample(10, Some(120));
        sample(20, Some(3));
        let sum = |now: u64| {
            let put = traffic.put("T", Window::Minute, START + 20_000, amount(now), |a| {
                a.messages
            });
            put.unwrap().sum
        };
        assert_eq!(sum(4), 4);
        sample(30, None);
        assert!(traffic.book.lock().topics.is_empty());
    }
}
