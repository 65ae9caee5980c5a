//! A few threads that run reads which may wait for the disk.

use super::Reader;
use crossbeam_channel::{bounded, Sender, TrySendError};
use std::thread::JoinHandle;

type Work = Box<dyn FnOnce(&Reader) + Send>;

/// Work waiting for each thread, at most.
const QUEUE_PER_THREAD: usize = 256;

/// The queue of the pool is full (or the pool has ended): the caller should answer "busy".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many reads are waiting")]
pub struct ReadPoolFull;

/// Threads that hold a [`Reader`] and run closures on it. Dropping the pool waits for the work
/// already queued.
pub struct ReadPool {
    queue: Option<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadPool {
    /// Starts `threads` threads (at least one).
    pub fn spawn(reader: &Reader, threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (queue, work) = bounded::<Work>(threads * QUEUE_PER_THREAD);
        let mut pool = Self {
            queue: Some(queue),
            threads: Vec::new(),
        };
        for n in 0..threads {
            let (work, reader) = (work.clone(), reader.clone());
            let thread = std::thread::Builder::new()
                .name(format!("read-{n}"))
                .spawn(move || {
                    for job in work {
                        job(&reader);
                    }
                })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues `work`; it runs on one of the threads, in no promised order.
    pub fn submit(&self, work: Work) -> Result<(), ReadPoolFull> {
        match self.queue.as_ref().map(|queue| queue.try_send(work)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                Err(ReadPoolFull)
            }
        }
    }

    /// Work waiting for a thread.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }
}

impl Drop for ReadPool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
