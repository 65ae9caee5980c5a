//! Time for measurements: the monotonic clock in nanoseconds, and an alarm without the runtime's
//! millisecond steps.

use rustix::fd::OwnedFd;
use rustix::time::{
    clock_gettime, timerfd_create, timerfd_settime, ClockId, Itimerspec, TimerfdClockId,
    TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use std::io;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

const SECOND: u64 = 1_000_000_000;

fn nanos(t: Timespec) -> u64 {
    u64::try_from(t.tv_sec)
        .unwrap_or(0)
        .saturating_mul(SECOND)
        .saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// The monotonic clock, ns.
pub(super) fn now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time of this process so far, all threads, ns.
pub(super) fn own_cpu() -> u64 {
    nanos(clock_gettime(ClockId::ProcessCPUTime))
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0)
}

/// Rings at a time of the monotonic clock.
#[derive(Debug)]
pub(super) struct Alarm {
    fd: AsyncFd<OwnedFd>,
    set_for: u64,
}

impl Alarm {
    /// An alarm that is not set. Needs a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the file descriptor is owned by what is registered and lives as long.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { fd, set_for: 0 })
    }

    /// Ready when `at` has come. Every new `at` sets the alarm anew.
    pub(super) fn poll(&mut self, at: u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.set_for != at {
            let zero = Timespec::default();
            let value = Timespec {
                tv_sec: i64::try_from(at / SECOND).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at % SECOND).unwrap_or(0),
            };
            let spec = Itimerspec {
                it_interval: zero,
                it_value: value,
            };
            timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.set_for = at;
        }
        loop {
            match self.fd.poll_read_ready(cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(mut guard) => {
                    guard.clear_ready();
                    // An old ring may have been left over.
                    if now() >= at {
                        self.set_for = 0;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_rings_in_time_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::new().unwrap();
            for _ in 0..5 {
                let at = now() + 2_000_000;
                std::future::poll_fn(|cx| alarm.poll(at, cx)).await.unwrap();
                assert!(now() >= at);
            }
            let past = now() - 1;
            std::future::poll_fn(|cx| alarm.poll(past, cx))
                .await
                .unwrap();
        });
    }
}
