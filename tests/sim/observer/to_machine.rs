//! What a packet to a machine must satisfy: it says what the client has said and no more, in a window that the machine has
//! opened, and acknowledges only what that machine has sent and the client has acknowledged.

use relevo::engine::{Micros, SourceMode};

use super::either_way::{check_echo, same_bytes};
use super::{Cause, Observer, Offsets};
use crate::books::{Flow, Leg, Violation, ensure, later, place};
use crate::packet::{ACK, FIN, Packet, RST, SYN};

impl Observer {
    /// A packet leaves the engine for a machine.
    pub fn leave_for_machine(
        &mut self,
        now: Micros,
        m: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> (Offsets, Result<(), Violation>) {
        let peer = (p.src, p.sport);
        let flow = match cause {
            Cause::Client(flow) => flow,
            _ if p.has(SYN) => self
                .flows
                .iter()
                .rposition(|f| f.isn == p.seq && f.peer.is_none_or(|known| known == peer)),
            _ => self.by_peer(m, p.src, p.sport),
        };
        let Some(f) = flow else {
            // A probe, or the reset of its answer.
            let probe = p.len == 0 && (p.has(SYN) || p.has(RST)) && cause == Cause::Engine;
            let stray = Violation {
                rule: "I6",
                text: "a packet for a machine without a flow".into(),
            };
            return ((None, None), if probe { Ok(()) } else { Err(stray) });
        };
        if p.has(RST) {
            self.note_reset(now, f, m, p);
        } else if let (isn, Some(leg)) = (self.flows[f].isn, &mut self.flows[f].legs[m]) {
            let (start, first) = (place(p.seq, isn, leg.acked), leg.acked as i64);
            let probes = leg.is_full() && p.len == 0 && start + 1 == first;
            if probes || (start <= first && first < start + i64::from(p.seq_len())) {
                leg.urged.again(now, leg.acked, self.state[m].frozen);
            }
        }
        let causality = self.check_causality(f, m, p, cause);
        let result = self.check_to_machine(f, m, p, bytes, cause).and(causality);
        self.note_opened(now, f, m);
        let flow = &self.flows[f];
        let offsets = flow.legs[m].as_ref().map_or((None, None), |leg| {
            let ack = leg
                .isn
                .filter(|_| p.has(ACK))
                .map(|isn| place(p.ack, isn, leg.told.ack));
            (Some(place(p.seq, flow.isn, leg.told.sent)), ack)
        });
        (offsets, result)
    }

    /// The engine resets machine `m`'s half of flow `f`.
    fn note_reset(&mut self, now: Micros, f: usize, m: usize, p: &Packet) {
        let flow = &mut self.flows[f];
        let Some(leg) = &mut flow.legs[m] else { return };
        // One that is for an older connection on these addresses ends nothing.
        let at = place(p.seq, flow.isn, leg.acked);
        if leg.reset || !(leg.acked as i64..=leg.edge as i64).contains(&at) {
            return;
        }
        leg.reset = true;
        // R10 limits R24: a service whose window is closed, as far as is known, is not waited for without end, nor a machine that is frozen. But
        // the one must be probed, since the word that it is open may be lost, and the other is excused only until the next repetition is due; a leg that
        // stands still for want of what the engine owes it, however long, is the engine's fault.
        let over = flow.finished_at.map(|at| at.max(leg.moved_at) + self.close_timeout);
        let stands = (leg.is_full() && leg.urged.is_recent(now)) || leg.urged.was_in_vain(now);
        leg.given_up = stands && over.is_some_and(|at| now >= at);
    }

    fn check_to_machine(
        &mut self,
        f: usize,
        m: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> Result<(), Violation> {
        p.check_sums(bytes)
            .map_err(|text| Violation { rule: "checksum", text })?;
        let (addr, mtu) = self.machines[m];
        ensure!(p.dport == addr.port(), "I6", "port {} of the machine", p.dport);
        ensure!(
            bytes.len() <= mtu,
            "R3",
            "{} bytes exceed the machine's MTU {mtu}",
            bytes.len()
        );
        let flow = &mut self.flows[f];
        let source = if self.source == SourceMode::Psc {
            self.psc.ip()
        } else {
            flow.client.0
        };
        ensure!(p.src == source, "I6", "its source is {}", p.src);
        if self.source == SourceMode::Client {
            ensure!(p.sport == flow.client.1, "I6", "source port {}", p.sport);
        }
        if p.has(RST) {
            return Ok(());
        }
        ensure!(
            !self.state[m].down,
            "R13",
            "machine {m} is down, but gets more than a reset"
        );
        ensure!(p.flags & 0xc0 == 0, "R2", "ECN bits");
        if p.has(SYN) {
            return Self::check_syn(flow, m, p, cause);
        }
        let stamped = flow.stamped;
        let Some(leg) = &mut flow.legs[m] else {
            ensure!(false, "R1", "machine {m} has no leg");
            return Ok(());
        };
        let Some(isn) = leg.isn else {
            ensure!(false, "R1", "machine {m} has not answered the SYN");
            return Ok(());
        };
        ensure!(!leg.lost, "R13", "machine {m} has lost this flow");
        ensure!(p.has(ACK), "R2", "no ACK flag");
        let unstamped = matches!(cause, Cause::Client(_)) && !stamped;
        ensure!(
            p.options.ts.is_some() == (leg.timestamps && !unstamped),
            "R5",
            "timestamps are not as the machine agreed"
        );
        let ack = place(p.ack, isn, leg.told.ack);
        ensure!(
            ack <= leg.sent as i64,
            "I4",
            "ack {ack}, but machine {m} has sent {}",
            leg.sent
        );
        ensure!(
            ack <= flow.acked as i64,
            "I4",
            "ack {ack}, but the client has acknowledged {}",
            flow.acked
        );
        let start = place(p.seq, flow.isn, leg.told.sent.max(leg.acked));
        let end = start + i64::from(p.seq_len());
        ensure!(
            start >= 0 && end <= flow.sent as i64,
            "I2",
            "u {start}..{end}, but the client has sent {}",
            flow.sent
        );
        ensure!(
            end <= leg.edge as i64 + 1,
            "R3",
            "u {end} is past the machine's window edge {}",
            leg.edge
        );
        ensure!(
            !p.has(FIN) || flow.fin == Some(end as u64),
            "I2",
            "FIN at u {end}, the client's is {:?}",
            flow.fin
        );
        same_bytes(p, bytes, start, leg.acked, &self.scripts[flow.id].up, "the client's")?;
        check_echo(
            leg.stamps.as_ref().map(|s| (s, "that machine")),
            p,
            cause != Cause::Engine,
        )?;
        for (left, right) in p.options.sack.iter().flatten() {
            let (left, right) = (place(*left, isn, leg.sent), place(*right, isn, leg.sent));
            ensure!(
                ack < left && left < right && right <= leg.sent as i64,
                "R8",
                "SACK block {left}..{right}, ack {ack}"
            );
        }
        let scale = match (flow.offer.options.scale, leg.scale) {
            (Some(scale), Some(_)) => u32::from(scale),
            _ => 0,
        };
        let edge = ack + (i64::from(p.win) << scale);
        let bound = flow.edge.max(leg.told.edge);
        ensure!(
            bound == u64::MAX || edge <= bound as i64,
            "R5",
            "window edge {edge} is past the client's {bound}"
        );
        leg.told.sent = leg.told.sent.max(end as u64);
        let tsval = p.options.ts.map(|t| t.0);
        // The client's own packets keep their order and their stamps, whichever those are.
        // A segment that is wholly old moves nobody's clock: it is out of the window (RFC 7323 section 4.3).
        let old = matches!(cause, Cause::Client(_)) && end <= flow.told.ack as i64 && end > start;
        let tsval = tsval.filter(|_| !old);
        let late = matches!(cause, Cause::Client(_)).then_some(leg.told.tsval).flatten();
        let tsval = tsval.zip(late).map(|(val, told)| later(val, told)).or(tsval);
        leg.told.advance(ack, edge, 1 << scale, tsval)
    }

    fn check_syn(flow: &mut Flow, m: usize, p: &Packet, cause: Cause) -> Result<(), Violation> {
        ensure!(!p.has(ACK) && p.len == 0, "R1", "a SYN with more");
        ensure!(
            p.seq == flow.isn,
            "R1",
            "opened with ISN {} instead of the client's {}",
            p.seq,
            flow.isn
        );
        flow.peer = Some((p.src, p.sport));
        let alone = flow
            .legs
            .iter()
            .enumerate()
            .all(|(i, l)| i == m || l.as_ref().is_none_or(|l| !l.counts()));
        ensure!(
            flow.proved || alone || flow.takeovers > 0,
            "R1",
            "machine {m} is opened before the client proved itself"
        );
        let (o, offer) = (&p.options, &flow.offer.options);
        ensure!(o.other.is_none(), "R2", "option {:?}", o.other);
        ensure!(
            o.mss <= offer.mss.max(Some(536)),
            "R5",
            "MSS {:?}, the client's is {:?}",
            o.mss,
            offer.mss
        );
        let accepted = flow.promise.filter(|_| cause == Cause::Engine);
        let (ts, sack, scale) = accepted
            .map_or((offer.ts.is_some(), offer.sack_permitted, offer.scale.is_some()), |a| {
                (a.timestamps, a.sack, a.scale.is_some())
            });
        ensure!(
            o.ts.is_none() || ts,
            "R1",
            "timestamps, which the original did not accept"
        );
        ensure!(
            !o.sack_permitted || sack,
            "R1",
            "SACK, which the original did not accept"
        );
        ensure!(
            o.scale.is_none() || scale,
            "R1",
            "a window scale, which the original did not accept"
        );
        ensure!(
            o.scale.is_none() || o.scale == offer.scale,
            "R1",
            "window scale {:?}",
            o.scale
        );
        if !flow.proved {
            // One machine at a time has the flow then. It starts over with this one, but where the client repeats its SYN to the same.
            let others = |i: usize| i != m || cause == Cause::Engine;
            let legs = flow.legs.iter_mut().enumerate().filter(|(i, _)| others(*i));
            legs.filter_map(|(_, leg)| leg.as_mut()).for_each(|leg| leg.lost = true);
        }
        let fresh = || Leg {
            acked: 1,
            edge: 1,
            ..Leg::default()
        };
        let leg = flow.legs[m].get_or_insert_with(fresh);
        if !leg.counts() {
            *leg = fresh();
        }
        leg.told.tsval = p.options.ts.map(|t| t.0);
        Ok(())
    }
}
