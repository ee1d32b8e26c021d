//! What lies under a stack: its link, its clock, its chance.

use std::cell::Cell;
use std::collections::VecDeque;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Packets on their way in and out of a stack.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) mtu: usize,
    pub(super) rx: VecDeque<Vec<u8>>,
    pub(super) tx: VecDeque<Vec<u8>>,
}

pub(super) struct RxToken(Vec<u8>);
pub(super) struct TxToken<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.mtu;
        caps
    }
    fn receive(&mut self, _: Instant) -> Option<(RxToken, TxToken<'_>)> {
        self.rx
            .pop_front()
            .map(|packet| (RxToken(packet), TxToken(&mut self.tx)))
    }
    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(TxToken(&mut self.tx))
    }
}

thread_local! {
    /// smoltcp asks a bare function for the time stamp: the clock of the host that is being run.
    pub(super) static TSVAL: Cell<u32> = const { Cell::new(0) };
}

pub(super) fn tsval() -> u32 {
    TSVAL.get()
}

/// The seed that makes smoltcp's generator (sPCG32, one draw spent on the IPv4 identification) draw `isn` first.
pub(super) fn seed_for(isn: u32) -> u64 {
    const M: u64 = 0xbb2e_fcec_3c39_611d;
    const A: u64 = 0x7590_ef39;
    // Newton's iteration: each step doubles the right bits of M's inverse modulo 2^64.
    let inverse = (0..6).fold(1u64, |x, _| x.wrapping_mul(2u64.wrapping_sub(M.wrapping_mul(x))));
    // A state whose top three bits are 0 puts out its bits 29 to 60.
    let state = u64::from(isn) << 29 | 0x0123_4567;
    (0..2).fold(state, |s, _| s.wrapping_sub(A).wrapping_mul(inverse))
}
