//! Whether super-packets arrive: they leave the host by another way than single segments (`forward` instead of `output`), and a firewall may
//! stop them there without a word. What is lost so comes again in single segments, but each time after a timeout.
//!
//! A super-packet has arrived if its first byte is acknowledged and was sent once; it is lost if that byte arrives only when it is sent again,
//! alone. Ordinary loss hits one now and then, and to a machine that is dead nothing arrives. Where several in a row are lost, and none arrives
//! between, that machine gets single segments for a while, and then one more trial.

use super::context::Context;
use super::spec::{MachineRef, Micros, SECOND};
use super::{Counter, Event};

/// So many lost in a row are no accident: at a loss of one packet in ten this happens to one in ten thousand.
const STRIKES: u8 = 4;
/// How long single segments are sent then.
const PAUSE: Micros = 60 * SECOND;

/// What has become of the super-packets to one machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// Lost since one has arrived.
    strikes: u8,
    /// None is sent before.
    paused_until: Micros,
}

impl Context {
    /// Whether a machine may be sent super-packets.
    #[must_use]
    pub fn cuts_for(&self, now: Micros, id: MachineRef) -> bool {
        self.spec.super_packets
            && now >= self.arrivals[usize::from(id.service.0)][usize::from(id.machine.0)].paused_until
    }

    /// A super-packet to that machine has arrived, or is lost.
    pub fn note_super(&mut self, now: Micros, id: MachineRef, arrived: bool) {
        let arrivals = &mut self.arrivals[usize::from(id.service.0)][usize::from(id.machine.0)];
        if arrived {
            arrivals.strikes = 0;
            return;
        }
        arrivals.strikes += 1;
        if arrivals.strikes >= STRIKES {
            // The next trial has one chance.
            arrivals.strikes = STRIKES - 1;
            arrivals.paused_until = now + PAUSE;
            self.stats.count(Counter::SuperPacketPauses);
            self.event(Event::SuperPacketsLost { machine: id });
        }
    }
}
