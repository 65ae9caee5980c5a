//! Threads for reads that block: old messages, message look-ups, offset searches.

use crossbeam_channel::{bounded, Sender, TrySendError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// `None` ends the thread that takes it.
type Job = Option<Box<dyn FnOnce() + Send>>;

/// Reads waiting beyond this are refused ("system busy").
const QUEUE: usize = 4_096;

/// A fixed number of threads and a bounded queue before them.
pub struct ReadPool {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a read did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Too many reads are waiting.
    #[error("too many reads are waiting")]
    Full,
    /// The read died or the pool stopped.
    #[error("the read did not finish")]
    Gone,
}

impl ReadPool {
    /// Starts `threads` threads (at least one).
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(QUEUE);
        let threads = (0..threads.max(1))
            .map(|i| {
                let queue = queue.clone();
                std::thread::Builder::new()
                    .name(format!("read-{i}"))
                    .spawn(move || {
                        while let Ok(Some(job)) = queue.recv() {
                            // A read that panics loses its own answer, nobody else's.
                            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                        }
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { jobs, threads })
    }

    /// A handle to submit reads with.
    pub fn handle(&self) -> ReadHandle {
        ReadHandle {
            jobs: self.jobs.clone(),
        }
    }

    /// Lets the waiting reads finish and joins the threads.
    pub fn stop(self) {
        for _ in &self.threads {
            let _ = self.jobs.send(None);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Submits reads to a [`ReadPool`].
#[derive(Clone)]
pub struct ReadHandle {
    jobs: Sender<Job>,
}

impl ReadHandle {
    /// Runs `read` on the pool and gives its result.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (done, result) = oneshot::channel();
        let job: Job = Some(Box::new(move || {
            let _ = done.send(read());
        }));
        match self.jobs.try_send(job) {
            Ok(()) => result.await.map_err(|_| PoolError::Gone),
            Err(TrySendError::Full(_)) => Err(PoolError::Full),
            Err(TrySendError::Disconnected(_)) => Err(PoolError::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_run_and_a_panic_hits_only_its_own() {
        let rt = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let pool = ReadPool::start(1).unwrap();
        let handle = pool.handle();
        rt.block_on(async {
            assert_eq!(handle.run(|| 7).await, Ok(7));
            assert_eq!(
                handle.run(|| -> i32 { panic!("test") }).await,
                Err(PoolError::Gone)
            );
            assert_eq!(handle.run(|| 8).await, Ok(8));
        });
        pool.stop();
        assert_eq!(rt.block_on(handle.run(|| 9)), Err(PoolError::Gone));
    }
}
