//! R14's probe: a SYN to a machine's service port.

use std::net::SocketAddr;

use super::spec::{Micros, SECOND};
use super::{Engine, Outbox, Probe, handshake, ports, pump};
use crate::wire::{Flags, Options, Segment, Seq};

/// What a probe's number grows by is time in units of this many microseconds.
const PROBE_TICK: Micros = 64;

/// For how long the answer to a probe is believed.
const PROBE_MEMORY: Micros = 10 * SECOND;

impl Engine {
    /// Appends a probe to `machine`: a SYN from the PSC's reserved port to the service port (R14). Its answer comes back
    /// through [`Engine::handle_packet`], where it counts as life (`DropReason::ProbeReply`) and is reset.
    pub fn probe(&mut self, probe: Probe, out: &mut Outbox) {
        let Probe { machine, at, last } = probe;
        if self.down_flag(machine).is_none() {
            return;
        }
        let psc = self.cx.service(machine.service).psc;
        let mut segment = Segment {
            src: SocketAddr::new(psc.ip(), ports::PROBE_PORT),
            dst: self.cx.machine(machine.service, machine.machine).addr,
            seq: Seq(0),
            ack: Seq(0),
            flags: Flags::RST,
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload: (&[], &[]),
        };
        if let Some(last) = last {
            // The last probe's half-open connection is still there if its SYN/ACK, or our RST for that, was lost or is on its way; a SYN that
            // meets it is answered with a RST by Linux where it lies in the window, as if nobody listened, and at most twice a second where
            // not. A RST at exactly the number that is expected next ends it (RFC 5961 section 3.2: any other is challenged, which newer
            // kernels do here, too); one that finds nothing is ignored (RFC 9293 section 3.10.7.2).
            segment.seq = self.probe_seq(last).add(1);
            pump::send(&mut self.cx, &segment, out);
        }
        segment.seq = self.probe_seq(at);
        segment.flags = Flags::SYN;
        segment.window = 1_024;
        segment.options.mss = Some(handshake::default_mss(psc.ip()));
        pump::send(&mut self.cx, &segment, out);
    }

    /// How long ago the probe was sent, in microseconds, that is answered with this acknowledgement; `now` by the clock of [`Probe::at`]. `None`
    /// if it is none of the last seconds: only such an answer is believed (R22).
    pub(super) fn age_of_probe(&self, now: Micros, ack: Seq) -> Option<Micros> {
        let age = Micros::from(self.probe_seq(now).0.wrapping_sub(ack.0.wrapping_sub(1))) * PROBE_TICK;
        (age <= PROBE_MEMORY).then_some(age)
    }

    /// The number of a probe sent now. RFC 6528: none that a third party can guess; a clock and a secret.
    fn probe_seq(&self, now: Micros) -> Seq {
        let key = self.cx.spec.hash_key;
        let secret = u32::from_le_bytes([key[0], key[1], key[2], key[3]]);
        #[expect(clippy::cast_possible_truncation, reason = "a clock modulo 2³² is meant")]
        let clock = (now / PROBE_TICK) as u32;
        Seq(secret).add(clock)
    }
}
