//! The engine's boundary: packets go in and come out past the observer, and the engine and the detector are polled until both
//! rest, as the daemon does.

use std::num::NonZeroU16;

use relevo::engine::detect::{Action, Detector};
use relevo::engine::{Checksum, DropReason, Event, Meta, Micros, Probe, Reason, Verdict};

use super::World;
use super::queue::Happening;
use crate::books::{Violation, ensure};
use crate::cut::cut;
use crate::gateway::Gateway;
use crate::observer::Cause;
use crate::packet::Packet;
use crate::scenario::{CLIENT_IFINDEX, Cuts, MACHINE_IFINDEX, Sums, When};

/// The engine's memory is looked at after each so many packets, for the answer costs more than most packets.
const MEMORY_EVERY: u64 = 16;
/// How long an engine that works in parts is at one of them.
const PART_TIME: Micros = 20;

impl<G: Gateway> World<G> {
    pub(super) fn engine_packet(&mut self, host: usize, mut bytes: Vec<u8>) -> Result<(), Violation> {
        let before = Packet::parse(&bytes).map_err(|text| Violation { rule: "network", text })?;
        if let Some(capture) = self.captures.get_mut(host) {
            capture.packet(self.now, &bytes);
        }
        let from_machine = host < self.machines();
        let (cause, offsets) = if from_machine {
            (
                Cause::Machine(host),
                self.observer.hear_machine(self.now, host, &before),
            )
        } else {
            let (flow, offsets) = self.observer.hear_client(self.now, &before);
            (Cause::Client(flow), offsets)
        };
        let checksum = match self.scenario.sums {
            Sums::Complete => Checksum::Complete,
            Sums::Partial => {
                // The sum of the pseudo header alone stands there; any value does.
                let at = if bytes[0] >> 4 == 4 { 20 } else { 40 } + 16;
                bytes[at..at + 2].copy_from_slice(&[0xbe, 0xef]);
                Checksum::Partial
            }
        };
        let ifindex = if from_machine { MACHINE_IFINDEX } else { CLIENT_IFINDEX };
        let length = bytes.len();
        let skipped = self.engine.skipped();
        let verdict = self.engine.handle_packet(
            self.now,
            Meta {
                ifindex,
                checksum,
                ..Meta::default()
            },
            &mut bytes,
        );
        self.summary.packets += 1;
        if from_machine && self.engine.skipped() > skipped {
            self.observer.skipped(host, &before);
        }
        let (now, hosts) = (self.now, &self.hosts);
        self.trace.packet(
            now,
            || format!("{} > engine", hosts[host].name),
            &before,
            offsets,
            || format!("{verdict:?}"),
        );
        if let Some(machine) = self.engine.heard()
            && let Some(detector) = &mut self.detector
        {
            ensure!(
                Some(machine) == from_machine.then(|| Self::machine_ref(host)),
                "R14",
                "heard {machine:?}"
            );
            detector.handle_heard(self.now, machine);
            let sent = self.now.saturating_sub(self.engine.probe_age().unwrap_or(0));
            match verdict {
                Verdict::Drop(DropReason::ProbeReply) => detector.handle_service(sent, self.now, machine, true),
                Verdict::Drop(DropReason::ProbeRefused) => detector.handle_service(sent, self.now, machine, false),
                _ => {}
            }
        }
        if let Verdict::Accept { len } = verdict {
            self.accepted += 1;
            ensure!(len <= length, "I7", "{len} bytes accepted of {length}");
            bytes.truncate(len);
            self.leave(&bytes, cause)?;
        }
        self.engine_rest()?;
        let seen = self.summary.packets;
        if seen.is_multiple_of(MEMORY_EVERY) {
            self.check_memory(&self.engine.status())?;
        }
        let due = self
            .scenario
            .faults
            .iter()
            .filter(|(w, _)| matches!(w, When::Packets(n) if *n == seen));
        for fault in due.map(|(_, fault)| *fault).collect::<Vec<_>>() {
            self.strike(fault)?;
        }
        Ok(())
    }

    /// A packet leaves the engine: it is checked and sent on its way.
    fn leave(&mut self, bytes: &[u8], cause: Cause) -> Result<(), Violation> {
        let packet = Packet::parse(bytes).map_err(|text| Violation { rule: "I7", text })?;
        let Some(host) = self.hosts.iter().position(|h| h.addr == packet.dst) else {
            ensure!(false, "I6", "a packet for {} from {cause:?}", packet.dst);
            return Ok(());
        };
        if let Some(capture) = self.captures.get_mut(host) {
            capture.packet(self.now, bytes);
        }
        let (offsets, result) = if host < self.machines() {
            self.observer.leave_for_machine(self.now, host, &packet, bytes, cause)
        } else {
            self.observer
                .leave_for_client(self.now, host - self.machines(), &packet, bytes, cause)
        };
        let (now, hosts) = (self.now, &self.hosts);
        let how = if cause == Cause::Engine { "engine >>" } else { "     >" };
        self.trace.packet(
            now,
            || format!("{how} {}", hosts[host].name),
            &packet,
            offsets,
            String::new,
        );
        if self.detector.is_some() {
            result?;
        }
        for at in self.down[host]
            .transit(self.now, bytes.len(), false)
            .into_iter()
            .flatten()
        {
            self.at(at, Happening::ToHost(host, bytes.to_vec()));
        }
        Ok(())
    }

    /// Polls the engine and the detector until both rest, as the daemon does after each packet; or until it is time to see whether
    /// another packet has come.
    pub(super) fn engine_rest(&mut self) -> Result<(), Violation> {
        for _ in 0..64 {
            let (left, released) = (self.engine.crashes_left(), self.engine.released());
            self.engine.poll_part(self.now, &mut self.outbox, self.scenario.part);
            let left = self.engine.crashes_left() - left;
            if self.engine.released() > released {
                self.observer.note_released(self.now);
            }
            if left > 0 {
                self.trace.note(self.now, || format!("{left} flows leave a crash"));
                self.observer
                    .left_crash(self.now, left, &self.scenario.service.detect)?;
            }
            let events: Vec<Event> = std::iter::from_fn(|| self.engine.take_event()).collect();
            for event in &events {
                if let Event::Evict {
                    machine,
                    reason: Reason::ReplicaTimeout,
                } = event
                {
                    // The flow that evicts a leg may release its client at once; the other flows hear of it by command.
                    self.observer.evicted(usize::from(machine.machine.0));
                }
            }
            let mut again = self.send_outbox()? || !events.is_empty();
            for event in events {
                self.trace.note(self.now, || format!("{event:?}"));
                match event {
                    Event::Suspect { machine, reason } => {
                        if let Some(d) = &mut self.detector {
                            d.handle_suspect(self.now, machine, reason);
                        }
                    }
                    Event::Diverged { machine, difference } => self.note_difference(machine, &difference)?,
                    // The links lose packets, and the engine goes on with single segments.
                    Event::SuperPacketsLost { .. } => {}
                    Event::Outvoted { client, .. } => {
                        // The others agree that an original which has ended early should have gone on.
                        let ended = self.observer.client_is_at_limit((client.ip(), client.port()));
                        ensure!(ended, "R17", "{event:?}, although nobody agrees with the odd one");
                    }
                    Event::Evict { machine, .. } => {
                        self.summary.evictions += 1;
                        self.down(machine)?;
                    }
                }
            }
            while let Some(action) = self.detector.as_mut().and_then(|d| d.poll(self.now)) {
                again = true;
                match action {
                    Action::Probe { machine } => {
                        let (at, m) = (self.now, usize::from(machine.machine.0));
                        let last = self.probed_at[m].replace(at);
                        self.engine.probe(Probe { machine, at, last }, &mut self.outbox);
                        self.send_outbox()?;
                    }
                    Action::Down { machine, reason, .. } => self.declared_dead(machine, reason)?,
                }
            }
            if self.engine.is_behind() && self.scenario.part < usize::MAX {
                self.engine_timer.set(None);
                return self.set_timer(Some(self.now + PART_TIME));
            }
            if !again {
                if self.detector.is_some() {
                    self.observer.check_replayed()?;
                }
                return self.set_engine_timer();
            }
        }
        ensure!(false, "contract", "the engine never rests");
        Ok(())
    }

    fn send_outbox(&mut self) -> Result<bool, Violation> {
        if self.outbox.is_empty() {
            return Ok(false);
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        for packet in outbox.iter() {
            let dst = packet.dst;
            let pieces = match packet.cut {
                Some(told) => cut(&packet, self.size_of_cut(told))?,
                None => vec![packet.bytes.to_vec()],
            };
            for bytes in pieces {
                let addressed = Packet::parse(&bytes).is_ok_and(|p| p.dst == dst);
                ensure!(addressed, "contract", "the outbox says {dst}, the packet does not");
                self.leave(&bytes, Cause::Engine)?;
            }
        }
        outbox.clear();
        self.outbox = outbox;
        Ok(true)
    }

    /// How a super-packet is cut: as told, or smaller, as by a router that puts segments together and cuts them again.
    fn size_of_cut(&mut self, told: NonZeroU16) -> NonZeroU16 {
        if self.scenario.cuts == Cuts::Smaller && self.cuts.chance(300) {
            let size = self
                .cuts
                .range(u64::from(told.get()).div_ceil(4), u64::from(told.get()));
            return u16::try_from(size).ok().and_then(NonZeroU16::new).unwrap_or(told);
        }
        told
    }

    fn set_engine_timer(&mut self) -> Result<(), Violation> {
        let detector = self.detector.as_ref().and_then(Detector::next_deadline);
        let engine = self.engine.next_deadline();
        ensure!(
            engine.is_none_or(|at| at > self.now),
            "contract",
            "after poll the engine's deadline {engine:?} has passed"
        );
        ensure!(
            detector.is_none_or(|at| at > self.now),
            "contract",
            "the detector's deadline {detector:?} has passed"
        );
        self.set_timer(engine.into_iter().chain(detector).min())
    }

    fn set_timer(&mut self, next: Option<Micros>) -> Result<(), Violation> {
        if let Some((at, number)) = self.engine_timer.set(next) {
            self.at(at, Happening::Engine(number));
        }
        Ok(())
    }
}
