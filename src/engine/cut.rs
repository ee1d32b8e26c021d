//! RFC 9293 section 3.10.7.4: a segment that begins within the window and ends beyond it is cut, as the receiver's stack would do. What is cut
//! off was never sent, as far as anybody here is concerned: whoever sent it will say it again.

use super::Checksum;
use super::flow::Flow;
use super::pos::{Pos, span};
use crate::wire::{Editor, Flags, Parsed};

impl Flow {
    /// A segment of the machine whose leg is `index`, as far as the client's window goes, if that ends within it.
    pub(super) fn cut_to_client(
        &self,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Option<Parsed> {
        // Up to a unit of the window's scale beyond, it may be within what the machine was told (see `plausible`).
        cut(
            (self.legs[index].v_of(p.seq), self.client.edge),
            self.client_shift(),
            checksum,
            p,
            bytes,
        )
    }

    /// A segment of the client as far as the window goes that it was given, if that ends within it.
    pub(super) fn cut_to_promise(&self, checksum: Checksum, p: &Parsed, bytes: &mut [u8]) -> Option<Parsed> {
        // What lies up to a unit beyond is rounding, or a probe (see `place`).
        let shift = self.promise.wscale.unwrap_or(0);
        cut((self.u_of(p.seq), self.client.edge_out), shift, checksum, p, bytes)
    }
}

/// The segment from `at` on without what lies beyond `edge`, if it begins before and ends more than a unit of the scale beyond.
fn cut((at, edge): (Pos, Pos), shift: u8, checksum: Checksum, p: &Parsed, bytes: &mut [u8]) -> Option<Parsed> {
    let beyond = at + Pos::from(p.seq_len()) - edge;
    if at >= edge || beyond <= 1 << shift {
        return None;
    }
    let fin = Pos::from(p.flags.contains(Flags::FIN));
    let mut ed = Editor::new(bytes, p);
    ed.set_flags(p.flags.without(Flags::FIN | Flags::PSH));
    ed.truncate_payload(usize::try_from(span(p.payload_len()) + fin - beyond).ok()?);
    let len = ed.finish(checksum.into());
    Parsed::parse(bytes.get(..len)?).ok()
}
