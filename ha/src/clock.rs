//! The clock the election runs by: CLOCK_BOOTTIME, which goes on while the host is suspended, and an alarm on it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use crate::election::Time;
use crate::readiness::when_readable;

/// What time it is.
pub fn now() -> Time {
    // The call cannot fail: the clock exists since Linux 2.6.39 and the result is ours to write. Were it to, the epoch
    // would make every deadline lie ahead: nothing is sent, and the lease runs out.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Time(0), |time| {
        Time(u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1000)
    })
}

/// Until when a virtual router may hold its addresses: set by its election's thread, looked at by the one that adds them.
///
/// A time that was sent along with a request would not do: adverts that are sent while the request waits put it off.
#[derive(Debug, Clone, Default)]
pub(crate) struct InTime(Arc<AtomicU64>);

impl InTime {
    /// `None`: it may not.
    pub(crate) fn set(&self, until: Option<Time>) {
        self.0.store(until.map_or(0, |until| until.0), Ordering::Release);
    }

    pub(crate) fn is_now(&self) -> bool {
        now().0 < self.0.load(Ordering::Acquire)
    }
}

/// Wakes at an absolute time. Runtime sleeps are on another clock and round up to milliseconds, too coarse for adverts
/// every 10 ms.
pub(crate) struct Alarm {
    timer: TimerFd,
    /// The same timer, watched by the runtime.
    rings: AsyncFd<OwnedFd>,
    set_to: Option<Time>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Alarm> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let rings = when_readable(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Alarm { timer, rings, set_to: None })
    }

    /// Returns when `deadline` has come; never without one. May be dropped and called again with another.
    pub(crate) async fn reached(&mut self, deadline: Option<Time>) -> io::Result<()> {
        let Some(deadline) = deadline else { return std::future::pending().await };
        if self.set_to != Some(deadline) {
            self.timer.set(Expiration::OneShot(time_spec(deadline)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.set_to = Some(deadline);
        }
        loop {
            let mut ready = self.rings.readable().await?;
            match ready.try_io(|_rings| Ok(self.timer.wait()?)) {
                Ok(rung) => {
                    self.set_to = None;
                    return rung;
                }
                // It rang for an earlier deadline that was replaced since.
                Err(_would_block) => continue,
            }
        }
    }
}

pub(crate) fn time_spec(time: Time) -> TimeSpec {
    // Zero would disarm the timer.
    let microseconds = time.0.max(1);
    let seconds = i64::try_from(microseconds / 1_000_000).unwrap_or(i64::MAX);
    TimeSpec::new(seconds, (microseconds % 1_000_000 * 1000) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_at_its_time_and_not_before() -> io::Result<()> {
        let mut alarm = Alarm::new()?;
        for milliseconds in [3, 0, 10] {
            let deadline = Time(now().0 + milliseconds * 1000);
            alarm.reached(Some(deadline)).await?;
            assert!(now() >= deadline);
        }
        Ok(())
    }

    #[tokio::test]
    async fn an_alarm_that_was_put_off_does_not_ring_at_the_first_time() -> io::Result<()> {
        let mut alarm = Alarm::new()?;
        let (early, late) = (Time(now().0 + 1000), Time(now().0 + 20_000));
        tokio::select! {
            biased;
            rung = alarm.reached(Some(early)) => rung?,
            () = std::future::ready(()) => (),
        }
        alarm.reached(Some(late)).await?;
        assert!(now() >= late);
        Ok(())
    }
}
