//! What a packet must satisfy whichever way it goes: its bytes are those of the script, its echoed time stamp was once sent.

use crate::books::{Stamps, Violation, ensure};
use crate::packet::Packet;

/// The time stamp that it echoes is one that its receiver has sent.
pub(super) fn check_echo(stamps: Option<(&Stamps, &str)>, p: &Packet, old: bool) -> Result<(), Violation> {
    if let (Some((stamps, who)), Some((_, echo))) = (stamps, p.options.ts) {
        ensure!(
            stamps.may_be_echoed(echo, old),
            "R5",
            "TSecr {echo} was never sent by {who}: {stamps:?}"
        );
    }
    Ok(())
}

/// The payload above what its receiver has acknowledged is `whole`'s; a keep-alive's byte lies below.
pub(super) fn same_bytes(
    p: &Packet,
    b: &[u8],
    start: i64,
    acked: u64,
    whole: &[u8],
    whose: &str,
) -> Result<(), Violation> {
    let data = &b[p.data_at..p.data_at + p.len];
    let skip = usize::try_from(acked as i64 - start).unwrap_or(0).min(data.len());
    let data = &data[skip..];
    if data.is_empty() {
        return Ok(());
    }
    let at = (start + skip as i64 - 1).max(0) as usize;
    ensure!(
        whole.get(at..at + data.len()) == Some(data),
        "I1",
        "{} bytes at offset {at} are not {whose}",
        data.len()
    );
    Ok(())
}
