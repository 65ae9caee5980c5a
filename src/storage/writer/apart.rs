//! Syncs beside the appends: what ASYNC_FLUSH does not wait for must not hold up what comes next.

use crate::storage::{StoreError, SyncTask};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::thread::JoinHandle;

/// A thread that does one sync at a time.
pub(super) struct Apart {
    tasks: Option<Sender<SyncTask>>,
    results: Receiver<Result<(), StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    /// `done` is called after each sync.
    pub fn spawn(done: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (tasks, todo) = bounded::<SyncTask>(1);
        let (tell, results) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("log-sync".into())
            .spawn(move || {
                for task in todo {
                    if tell.send(task()).is_err() {
                        return;
                    }
                    done();
                }
            })?;
        Ok(Self {
            tasks: Some(tasks),
            results,
            thread: Some(thread),
        })
    }

    /// Begins a sync; none may be under way.
    pub fn begin(&self, task: SyncTask) {
        if let Some(tasks) = &self.tasks {
            // A thread that is gone shows when its result is asked for.
            let _ = tasks.send(task);
        }
    }

    /// The result of the sync under way when there is one already.
    pub fn poll(&self) -> Option<Result<(), StoreError>> {
        match self.results.try_recv() {
            Ok(result) => Some(result),
            Err(crossbeam_channel::TryRecvError::Empty) => None,
            Err(crossbeam_channel::TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }

    /// Waits for it.
    pub fn wait(&self) -> Result<(), StoreError> {
        self.results.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> StoreError {
    StoreError::Io("the thread that syncs has ended".into())
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
