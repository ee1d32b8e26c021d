//! What a packet to the client must satisfy: it comes from the flow's original or takes over from it, says only what the service
//! says and the client's window allows, and acknowledges and opens no more than the machines that count bear out.

use relevo::engine::Micros;

use super::either_way::{check_echo, same_bytes};
use super::{Cause, Observer, Offsets};
use crate::books::{Flow, Leg, Promise, Told, Violation, ensure, place};
use crate::packet::{ACK, FIN, Packet, RST, SYN, URG};
use crate::script::Script;

impl Observer {
    /// The offsets of a packet on its way to a client.
    fn client_offsets(flow: &Flow, p: &Packet) -> Offsets {
        let seq = flow.promise.map(|promise| place(p.seq, promise.isn, flow.told.sent));
        (seq, Some(place(p.ack, flow.isn, flow.told.ack)).filter(|_| p.has(ACK)))
    }

    /// A packet leaves the engine for a client. The offsets are for the trace, whatever the checks say.
    pub fn leave_for_client(
        &mut self,
        now: Micros,
        c: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> (Offsets, Result<(), Violation>) {
        let Some(f) = self.by_client(p.dst, p.dport) else {
            let stray = if p.has(RST) {
                Ok(())
            } else {
                Err(Violation {
                    rule: "I6",
                    text: "a packet for a client without a flow".into(),
                })
            };
            return ((None, None), stray);
        };
        // What the engine says by itself is of a connection that it still has. What a machine says on one that the engine has forgotten passes as it
        // is, and a reset is looked at as the newer one's: its client must not take it for its own.
        let own = cause == Cause::Engine && !p.has(RST);
        let f = if own { self.answered(f, p) } else { f };
        self.note_trailing(now, f);
        let result = self.check_to_client(now, c, f, p, bytes, cause);
        self.flows[f].note_end(now);
        (Self::client_offsets(&self.flows[f], p), result)
    }

    fn check_to_client(
        &mut self,
        now: Micros,
        c: usize,
        f: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> Result<(), Violation> {
        p.check_sums(bytes)
            .map_err(|text| Violation { rule: "checksum", text })?;
        ensure!(
            (p.src, p.sport) == (self.psc.ip(), self.psc.port()),
            "I6",
            "its source is not the PSC"
        );
        ensure!(
            bytes.len() <= self.client_mtu[c],
            "R3",
            "{} bytes exceed the client's MTU",
            bytes.len()
        );
        ensure!(!p.has(URG) && p.flags & 0xc0 == 0, "R2", "flags {:#x}", p.flags);
        let lived = (0..self.machines.len()).find(|m| self.could_carry(*m, &self.flows[f]));
        let is_alone = |m: usize| (0..self.machines.len()).all(|o| o == m || !self.could_carry(o, &self.flows[f]));
        let believed = p.has(RST) && matches!(cause, Cause::Machine(m) if self.believes || is_alone(m));
        let (max_lag, forgotten_after, fastest) = (self.max_lag, self.forgotten_after, self.fastest);
        let states = &self.state;
        let client = self.flows[f].client;
        let known_before = self.flows[..f].iter().any(|other| other.client == client);
        let flow = &mut self.flows[f];
        if let Cause::Machine(m) = cause {
            if known_before && flow.promise.is_none() && flow.legs[m].is_none() {
                // It belongs to the older connection on these addresses.
                return Ok(());
            }
            ensure!(
                !states[m].down,
                "R13",
                "machine {m} is down, and its packet was let through"
            );
            ensure!(
                flow.legs[m].as_ref().is_some_and(|l| !l.lost),
                "R13",
                "machine {m} has lost this flow"
            );
            flow.moves_on(m);
            if let Some(at) = flow.heirs.iter().position(|heir| *heir == m) {
                let sent = flow.legs[m].as_ref().map_or(0, |l| l.sent);
                ensure!(
                    fastest || flow.original.is_none() || sent >= flow.told.sent,
                    "R12",
                    "moved by plan to machine {m}, which has said {sent} of {}",
                    flow.told.sent
                );
                // What was planned before is past.
                flow.original = Some(m);
                flow.heirs.drain(..=at);
            }
            if flow.settled {
                flow.heirs.clear();
            }
            let original = if fastest { m } else { *flow.original.get_or_insert(m) };
            ensure!(
                original == m,
                "I6",
                "a packet of machine {m}, but the original is {original}"
            );
        }
        // R11: where a machine could have gone on, its word stands against an original that has failed, if it says anything.
        let unmasked = lived.is_none() || self.are_silent_on(now, f, p);
        let ends = unmasked && self.passes_an_end(f, p, cause);
        if ends && p.has(RST) {
            return Ok(());
        }
        let (states, flow) = (&self.state, &mut self.flows[f]);
        // RFC 9293 section 3.10.7.3: a reset without an acceptable acknowledgement is no news in SYN-SENT. It is the answer to what is left of an
        // older connection.
        if p.has(RST) && !p.has(ACK) && flow.promise.is_none() && known_before {
            return Ok(());
        }
        if p.has(RST) {
            if flow.promise.is_none() && (!p.has(ACK) || p.ack != flow.isn.wrapping_add(1)) {
                // For what is left of an older connection on these addresses; in SYN-SENT it is ignored (RFC 9293, 3.10.7.3).
                return Ok(());
            }
            // The service's own refusal is passed on as the original says it, once none that could be asked accepts.
            let refusal = matches!(cause, Cause::Machine(m) if states[m].refuses);
            // A stack forgets a connection that both sides have ended (TIME-WAIT), however often its last acknowledgement was lost, and resets what
            // comes later (RFC 9293 section 3.10.7.1). Where ends are believed, or nobody else is there who could say otherwise, so is that one; it costs
            // the client nothing.
            let forgotten = matches!(cause, Cause::Machine(m) if believed && flow.lacks_only_an_acknowledgement(m));
            flow.refused |= refusal && lived.is_none();
            ensure!(
                flow.refused || forgotten || flow.finished() || lived.is_none(),
                "I1",
                "the client is reset though machine {} lived through its flow",
                lived.unwrap_or(0)
            );
            flow.reset_to_client = true;
            return Ok(());
        }
        if p.has(SYN) {
            return Self::check_syn_ack(now, forgotten_after, flow, p);
        }
        let Some(promise) = flow.promise else {
            // What a machine says on an older connection passes as it is: the client's reset is its answer (RFC 9293, 3.5.1).
            // So does the challenge to a SYN that meets a live connection (R21).
            let challenge = cause == Cause::Engine && known_before && p.flags == ACK && p.len == 0;
            ensure!(
                matches!(cause, Cause::Machine(_)) || challenge,
                "R1",
                "a packet before the SYN/ACK"
            );
            return Ok(());
        };
        ensure!(p.has(ACK), "R2", "no ACK flag");
        let unstamped =
            matches!(cause, Cause::Machine(m) if flow.legs[m].as_ref().is_some_and(|l| l.timestamps && l.unstamped));
        ensure!(
            p.options.ts.is_some() == (promise.timestamps && !unstamped),
            "R5",
            "timestamps are not as promised"
        );
        if flow.client_reset {
            return Ok(());
        }
        if !ends {
            Self::check_data_to_client(flow, p, bytes, &promise, &self.scripts[flow.id], cause, lived.is_some())?;
        }
        check_echo(
            flow.stamps.as_ref().map(|s| (s, "the client")),
            p,
            cause != Cause::Engine,
        )?;
        let ack = place(p.ack, flow.isn, flow.told.ack);
        // One that is the original for the second time may find the client's clock ahead of its own, and has to wait for it. Who was it between may
        // have said nothing.
        let again = flow.takeovers > 1 || flow.may_have_moved();
        if let (Cause::Machine(m), Some((told, _))) = (cause, p.options.ts)
            // Of several clocks at once the latest counts.
            && !fastest
            && let Some(leg) = &mut flow.legs[m]
            && let Some((stamps, true)) = leg.stamps.map(|s| (s, leg.latest_is_newest))
        {
            let offset = told.wrapping_sub(stamps.latest);
            let waits = again && flow.told.tsval == Some(told);
            let (mut fixed, waited) = *leg.clock_offset.get_or_insert((offset, waits));
            if waited && !waits && (fixed.wrapping_sub(offset) as i32) >= 0 {
                // It had to wait when it was first heard: what it was ahead by was not yet to be seen.
                fixed = offset;
                leg.clock_offset = Some((fixed, false));
            }
            ensure!(
                offset == fixed || waits,
                "R5",
                "the clock of machine {m} has the offset {offset} after {fixed}"
            );
        }
        let said = ack == flow.told.ack as i64
            && ack + (i64::from(p.win) << promise.scale.map_or(0, u32::from)) <= flow.told.edge as i64;
        if let Cause::Machine(m) = cause
            && let Some(Leg { latest: (u, true), .. }) = flow.legs[m]
        {
            ensure!(
                !said || u as i64 == ack,
                "R6",
                "machine {m} acknowledges {u}, the client hears {ack} again"
            );
        }
        let bound = flow.ack_bound(max_lag).max(flow.told.ack);
        ensure!(ack <= bound as i64, "I3", "ack {ack} is past {bound}: {}", acks(flow));
        ensure!(
            ack <= flow.sent as i64,
            "I4",
            "ack {ack} of what the client has not sent ({})",
            flow.sent
        );
        if ack > 1 {
            for (m, leg) in flow.legs.iter().enumerate() {
                let in_service = !states[m].down && !states[m].ever_down;
                ensure!(
                    leg.is_some() || !in_service,
                    "I3",
                    "ack {ack} though machine {m} has no leg yet"
                );
            }
        }
        for (left, right) in p.options.sack.iter().flatten() {
            let (left, right) = (place(*left, flow.isn, flow.sent), place(*right, flow.isn, flow.sent));
            ensure!(promise.sack, "R8", "SACK was not agreed on");
            ensure!(
                ack < left && left < right && right <= flow.sent as i64,
                "R8",
                "SACK block {left}..{right}, ack {ack}"
            );
        }
        let scale = promise.scale.map_or(0, u32::from);
        let edge = ack + (i64::from(p.win) << scale);
        let bound = flow.edge_bound(max_lag == Some(0)).max(flow.told.edge);
        // Once its FIN is acknowledged, a window says nothing to the client any more.
        let sends = flow.fin.is_none_or(|fin| ack < fin as i64);
        ensure!(
            !sends || bound == u64::MAX || edge <= bound as i64,
            "R5",
            "window edge {edge} is past {bound}: {}",
            acks(flow)
        );
        flow.told.advance(ack, edge, 1 << scale, p.options.ts.map(|t| t.0))
    }

    fn check_syn_ack(now: Micros, forgotten_after: Micros, flow: &mut Flow, p: &Packet) -> Result<(), Violation> {
        ensure!(
            p.has(ACK) && p.ack == flow.isn.wrapping_add(1),
            "R1",
            "SYN/ACK of something else"
        );
        let (o, offer) = (&p.options, &flow.offer.options);
        ensure!(o.other.is_none(), "R2", "option {:?}", o.other);
        ensure!(
            o.scale.is_none() || offer.scale.is_some(),
            "R2",
            "a window scale that was not offered"
        );
        ensure!(
            o.ts.is_none() || offer.ts.is_some(),
            "R2",
            "timestamps that were not offered"
        );
        ensure!(
            !o.sack_permitted || offer.sack_permitted,
            "R2",
            "SACK that was not offered"
        );
        let new = Promise {
            isn: p.seq,
            scale: o.scale,
            sack: o.sack_permitted,
            timestamps: o.ts.is_some(),
        };
        if flow.may_open_anew(now, forgotten_after) {
            flow.promise = Some(new);
            (flow.reset_to_client, flow.told) = (false, Told::default());
        }
        let promise = *flow.promise.get_or_insert(new);
        ensure!(
            (promise.isn, promise.scale, promise.timestamps) == (new.isn, new.scale, new.timestamps),
            "R5",
            "another SYN/ACK than before: {new:?}, was {promise:?}"
        );
        flow.told.sent = flow.told.sent.max(1);
        flow.told.edge = flow.told.edge.max(1 + u64::from(p.win));
        flow.told.tsval = p.options.ts.map(|t| t.0).or(flow.told.tsval);
        Ok(())
    }

    fn check_data_to_client(
        flow: &mut Flow,
        p: &Packet,
        bytes: &[u8],
        promise: &Promise,
        script: &Script,
        cause: Cause,
        survived: bool,
    ) -> Result<(), Violation> {
        let start = place(p.seq, promise.isn, flow.told.sent);
        let end = start + i64::from(p.seq_len());
        ensure!(
            start >= 0 && end <= flow.whole as i64,
            "I1",
            "v {start}..{end} of {}",
            flow.whole
        );
        ensure!(
            p.seq_len() == 0 || cause != Cause::Engine || flow.takeovers > 0 || flow.may_have_moved(),
            "I6",
            "data, but nobody took over"
        );
        ensure!(
            end <= flow.edge as i64 + 1,
            "R22",
            "v {end} is past the client's window edge {}",
            flow.edge
        );
        ensure!(
            !p.has(FIN) || end == flow.whole as i64 || !survived,
            "I1",
            "FIN at v {end} instead of {}",
            flow.whole
        );
        same_bytes(p, bytes, start, flow.acked, &script.down, "the service's")?;
        if p.seq_len() > 0 {
            // A bare acknowledgement from beyond a hole gives the client nothing up to there.
            flow.told.sent = flow.told.sent.max(end as u64);
        }
        Ok(())
    }
}

/// Every leg's position in a few words.
fn acks(flow: &Flow) -> String {
    let legs = flow.legs.iter().enumerate().filter_map(|(m, l)| Some((m, l.as_ref()?)));
    let legs = legs.map(|(m, l)| {
        format!(
            "{m}: acked {} edge {} counts {} trails {}",
            l.acked,
            l.edge,
            l.counts(),
            l.trails
        )
    });
    format!("original {:?}, {}", flow.original, legs.collect::<Vec<_>>().join("; "))
}
