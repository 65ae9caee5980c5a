//! What a panic in the write path means.

/// Aborts the process when dropped by a panic: an actor of the write path that lost its state in
/// the middle of a change must not go on. Raft and restart are the recovery (design §5).
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("panic in the write path: aborting");
            std::process::abort();
        }
    }
}
