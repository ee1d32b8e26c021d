//! SIGTERM and SIGINT stop, SIGHUP reloads (design section 10).

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Waits for signals; a second party can end the wait through a [`Closer`].
pub struct Waiter {
    signals: Signals,
}

/// Ends a [`Waiter`]'s wait from another thread.
#[derive(Clone)]
pub struct Closer(Handle);

impl Waiter {
    /// Takes the signals over from here on: none is lost between this call and the first [`Waiter::wait`].
    pub fn new() -> anyhow::Result<Self> {
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("can't install the signal handlers")?;
        Ok(Self { signals })
    }

    /// How another thread ends the wait.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(self.signals.handle())
    }

    /// The next request, or `None` once a [`Closer`] was used.
    pub fn wait(&mut self) -> Option<Request> {
        self.signals.forever().next().map(|signal| {
            if signal == SIGHUP {
                Request::Reload
            } else {
                Request::Stop
            }
        })
    }
}

impl Closer {
    /// [`Waiter::wait`] returns `None` from now on.
    pub fn close(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_reload_from_stop_and_ends_when_closed() {
        let mut waiter = Waiter::new().expect("handlers");
        signal_hook::low_level::raise(SIGHUP).expect("raise");
        assert_eq!(waiter.wait(), Some(Request::Reload));
        signal_hook::low_level::raise(SIGTERM).expect("raise");
        assert_eq!(waiter.wait(), Some(Request::Stop));
        waiter.closer().close();
        assert_eq!(waiter.wait(), None);
    }
}
