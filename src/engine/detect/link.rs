//! What the host itself knows of the link to a machine.

use crate::engine::spec::Micros;

/// A link that the host has lost brings nothing more; but what it brought before may still wait in a packet queue, a few milliseconds on a busy
/// host, and is no sign of life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    lost_at: Option<Micros>,
}

impl Link {
    /// It has no carrier, or is down.
    pub fn lose(&mut self, now: Micros) {
        self.lost_at = Some(now);
    }

    /// The machine has answered what was `sent` a time: if the link was lost before, it is back.
    pub fn answered(&mut self, sent: Micros) {
        self.lost_at = self.lost_at.filter(|lost| sent <= *lost);
    }

    /// Whether what was taken from a queue `at` a time may be older than the loss. Longer than `patience` nothing waits there.
    pub fn may_have_brought(&self, at: Micros, patience: Micros) -> bool {
        self.lost_at.is_some_and(|lost| at < lost.saturating_add(patience))
    }

    /// Another one, or another time.
    pub fn forget(&mut self) {
        self.lost_at = None;
    }
}
