//! The queue in front of the writer thread: senders push under a short lock, the writer takes
//! everything at once. It sleeps without spinning: the writer has at most two cores to share with
//! those who feed it.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// The receiver sleeps and must be woken.
    asleep: bool,
    /// It was nudged, and has not looked since.
    nudged: bool,
    /// The receiver is gone.
    closed: bool,
    senders: usize,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
}

/// Hands items over. Cloneable.
#[derive(Debug)]
pub struct JobSender<T>(Arc<Shared<T>>);

/// Takes items. Dropping it refuses further ones.
#[derive(Debug)]
pub struct JobReceiver<T>(Arc<Shared<T>>);

/// A new queue without a limit: what may wait is limited where work enters the node.
pub fn job_queue<T>() -> (JobSender<T>, JobReceiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            asleep: false,
            nudged: false,
            closed: false,
            senders: 1,
        }),
        bell: Condvar::new(),
    });
    (JobSender(shared.clone()), JobReceiver(shared))
}

impl<T> JobSender<T> {
    /// Queues an item; gives it back when the receiver is gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.0.bell.notify_one();
        }
        Ok(())
    }

    /// Items waiting.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().items.len()
    }

    /// Wakes the receiver without an item: how long it may sleep has changed.
    pub fn nudge(&self) {
        let mut state = self.0.state.lock();
        state.nudged = true;
        if std::mem::take(&mut state.asleep) {
            self.0.bell.notify_one();
        }
    }

    /// The receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().closed
    }
}

impl<T> Clone for JobSender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for JobSender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.bell.notify_one();
        }
    }
}

impl<T> JobReceiver<T> {
    /// Waits up to `wait` for items.
    pub fn wait(&self, wait: Duration) {
        let mut state = self.0.state.lock();
        if state.items.is_empty() && state.senders > 0 && !state.nudged {
            state.asleep = true;
            self.0.bell.wait_for(&mut state, wait);
            state.asleep = false;
        }
        state.nudged = false;
    }

    /// Moves all items to the end of `out`. Returns false once no item can come any more.
    pub fn take(&self, out: &mut VecDeque<T>) -> bool {
        let mut state = self.0.state.lock();
        let open = state.senders > 0 || !state.items.is_empty();
        if out.is_empty() {
            std::mem::swap(out, &mut state.items);
        } else {
            out.append(&mut state.items);
        }
        open
    }
}

impl<T> Drop for JobReceiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        // Senders learn of it at their next item; what waits is dropped with it.
        state.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nudge_before_the_sleep_is_not_lost() {
        let (send, receive) = job_queue::<()>();
        send.nudge();
        receive.wait(Duration::from_secs(600));
        let thread = std::thread::spawn(move || receive.wait(Duration::from_secs(600)));
        while !send.0.state.lock().asleep {
            std::thread::yield_now();
        }
        send.nudge();
        thread.join().unwrap();
    }

    #[test]
    fn items_come_in_order_and_both_ends_learn_of_the_other() {
        let (send, receive) = job_queue();
        let mut out = VecDeque::new();
        assert!(receive.take(&mut out) && out.is_empty());
        send.send(1).unwrap();
        let other = send.clone();
        other.send(2).unwrap();
        assert_eq!(send.waiting(), 2);
        receive.wait(Duration::from_secs(60));
        assert!(receive.take(&mut out));
        assert_eq!(out, [1, 2]);
        let thread = std::thread::spawn(move || {
            let mut got = VecDeque::new();
            while receive.take(&mut got) {
                receive.wait(Duration::from_secs(60));
            }
            got
        });
        for i in 3..1000 {
            send.send(i).unwrap();
        }
        drop((send, other));
        let got = thread.join().unwrap();
        assert!(got.iter().copied().eq(3..1000));
        let (send, receive) = job_queue();
        drop(receive);
        assert_eq!(send.send(5), Err(5));
    }
}
