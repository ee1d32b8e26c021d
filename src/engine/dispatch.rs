//! Whose packet it is: the way from an address to a flow, and a new flow's beginning.

use super::flow::{Flow, FlowState};
use super::{
    Counter, DropReason, Engine, MachineRef, Meta, Micros, ServiceId, SourceMode, UnknownPolicy, Verdict, ports,
};
use crate::wire::{Flags, Parsed};
use std::net::SocketAddr;

impl Engine {
    pub(super) fn dispatch(&mut self, now: Micros, meta: Meta, p: &Parsed, packet: &mut [u8]) -> Verdict {
        if let Some(machine) = self.table.machine(&p.src)
            && (self.cx.service(machine.service).source == SourceMode::Client
                || p.dst.ip() == self.cx.service(machine.service).psc.ip())
        {
            return self.dispatch_machine(now, meta, machine, p, packet);
        }
        match self.table.service(&p.dst) {
            Some(service) => self.dispatch_client(now, meta, service, p, packet),
            None => Verdict::Drop(DropReason::NotOurs),
        }
    }

    fn dispatch_machine(&mut self, now: Micros, meta: Meta, id: MachineRef, p: &Parsed, packet: &mut [u8]) -> Verdict {
        // R22: on its own interface or not at all.
        let own = self.cx.machine(id.service, id.machine).ifindex;
        if own.is_some_and(|own| meta.ifindex != 0 && own != meta.ifindex) {
            return Verdict::Drop(DropReason::WrongInterface);
        }
        self.heard = Some(id);
        let Some(key) = self.table.flow_of_peer(id.service, p.dst) else {
            return self.stranger_machine(now + meta.behind, id, p);
        };
        let Some(flow) = self.flows.get_mut(&mut self.cx, key) else {
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let Some(index) = flow.leg_of(id.machine) else {
            self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
            self.touch(key);
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let before = flow.is_half_open();
        let verdict = flow.hear_machine(&mut self.cx, now, meta.checksum, index, p, packet);
        self.half_open -= usize::from(before && !flow.is_half_open());
        self.touch(key);
        verdict
    }

    /// A machine speaks, and no flow knows of it: the answer to a probe, or something stale (R19).
    fn stranger_machine(&mut self, now: Micros, id: MachineRef, p: &Parsed) -> Verdict {
        let service = self.cx.service(id.service);
        let is_probe = p.dst == SocketAddr::new(service.psc.ip(), ports::PROBE_PORT);
        self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
        if is_probe {
            self.probe_age = self.age_of_probe(now, p.ack).filter(|_| p.flags.contains(Flags::ACK));
            if p.flags.contains(Flags::RST) {
                // RFC 9293 section 3.10.7.1: nobody listens. R22: only what answers a SYN of the last seconds is believed.
                return Verdict::Drop(match self.probe_age {
                    Some(_) => DropReason::ProbeRefused,
                    None => DropReason::MisplacedReset,
                });
            }
            self.cx.stats.count(Counter::ProbeReplies);
            return Verdict::Drop(DropReason::ProbeReply);
        }
        Verdict::Drop(DropReason::UnknownFlow)
    }

    fn dispatch_client(&mut self, now: Micros, meta: Meta, id: ServiceId, p: &Parsed, packet: &mut [u8]) -> Verdict {
        let syn = p.flags.contains(Flags::SYN);
        if syn && (p.flags.contains(Flags::ACK) || p.flags.contains(Flags::RST) || p.flags.contains(Flags::FIN)) {
            return Verdict::Drop(DropReason::Implausible);
        }
        match self.table.flow_of_client(id, p.src) {
            None if syn => self.open_flow(now, meta, id, p, packet),
            None => {
                if self.cx.service(id).unknown == UnknownPolicy::Reset {
                    self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
                }
                Verdict::Drop(DropReason::UnknownFlow)
            }
            Some(key) => self.client_speaks(now, meta, id, key, p, packet),
        }
    }

    fn client_speaks(
        &mut self,
        now: Micros,
        meta: Meta,
        id: ServiceId,
        key: usize,
        p: &Parsed,
        packet: &mut [u8],
    ) -> Verdict {
        let Some(flow) = self.flows.get_mut(&mut self.cx, key) else {
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let before = flow.is_half_open();
        let verdict = if p.flags.contains(Flags::SYN) {
            // R21: on a finished flow's addresses, or with another number on an unproved one, a SYN starts a new flow.
            if flow.is_over() || (before && p.seq != flow.client.isn) {
                // Where the machines see another port than the client's own, the old flow can still be played to its end (R24). An
                // unproved client's has nothing to be played.
                if !before && flow.has_followers() && self.cx.service(id).source == SourceMode::Psc {
                    flow.client.has_left = true;
                    self.table.detach(id, p.src);
                } else {
                    self.forget(key, true);
                }
                return self.open_flow(now, meta, id, p, packet);
            }
            if before {
                flow.forward_syn(&mut self.cx, now, meta.checksum, p, packet)
            } else {
                flow.challenge_syn(&mut self.cx, now, meta.checksum, p, packet)
            }
        } else if flow.state == FlowState::SynSent {
            flow.client_before_answer(&mut self.cx, now, meta.checksum, p, packet)
        } else {
            flow.hear_client(&mut self.cx, now, meta.checksum, p, packet)
        };
        self.half_open -= usize::from(before && !flow.is_half_open());
        self.touch(key);
        verdict
    }

    fn open_flow(&mut self, now: Micros, meta: Meta, id: ServiceId, p: &Parsed, packet: &mut [u8]) -> Verdict {
        if self.flows.len() >= self.cx.spec.limits.max_flows {
            return Verdict::Drop(DropReason::TableFull);
        }
        self.make_room_for_half_open();
        let Some(machine) = self.cx.serving(id) else {
            return Verdict::Drop(DropReason::NoMachine);
        };
        let Some(peer) = self.table.assign_peer(id, self.cx.service(id), p.src) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        let mut flow = Flow::for_syn(&self.cx, now, id, p, peer, machine);
        self.generation = self.generation.wrapping_add(1);
        flow.generation = self.generation;
        let verdict = flow.forward_syn(&mut self.cx, now, meta.checksum, p, packet);
        let key = self.flows.insert(flow);
        self.table.insert(id, p.src, peer, key);
        self.half_open += 1;
        self.unproved.push_back((key, self.generation));
        self.cx.stats.count(Counter::FlowsOpened);
        self.touch(key);
        verdict
    }

    /// R18: at the limit the oldest unproved client makes room, as a SYN backlog's would: a flood of forged SYNs must not lock out real
    /// clients, who prove themselves within a round trip.
    fn make_room_for_half_open(&mut self) {
        while let Some((key, generation)) = self.unproved.front().copied() {
            let flow = self
                .flows
                .awake(key)
                .filter(|f| f.generation == generation && f.is_half_open());
            if flow.is_some() {
                if self.half_open < self.cx.spec.limits.max_half_open {
                    return;
                }
                self.forget(key, true);
            }
            self.unproved.pop_front();
        }
    }
}
