//! What the packet queue costs by itself: every packet of a port goes to a program that gives it back unread.
//!
//! The program is this one, in a thread on the engine's core, with the engine's own queue code.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relevo::engine::Verdict;
use relevo::host::queue::{DirectQueue, PacketQueue as _, Waker};
use relevo::wire::{Editor, Parsed};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::lab::Lab;

/// Far from the engine's.
const QUEUE: u16 = 100;

/// Ends the thread when dropped.
pub struct Floor(Arc<AtomicBool>, Waker);

impl Drop for Floor {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.wake();
    }
}

/// Lets all TCP packets from and to `port` that the engine's host forwards pass through a queue.
pub fn let_pass(lab: &Lab, port: u16, core: &str) -> Floor {
    let stop = Arc::new(AtomicBool::new(false));
    let waker = Waker::new().expect("make an eventfd");
    let (ended, woken) = (Arc::clone(&stop), waker.clone());
    let (ready, opened) = std::sync::mpsc::channel();
    let core: usize = core.parse().expect("a core's number");
    lab.engine().spawn(move || {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).expect("stay on one core");
        let mut queue = DirectQueue::open(QUEUE).expect("open a packet queue");
        ready.send(()).expect("somebody waits");
        while !ended.load(Ordering::Relaxed) {
            queue
                .wait(&woken, Some(Duration::from_secs(1)))
                .expect("wait for packets");
            queue.receive(&mut give_back).expect("receive a packet");
        }
    });
    opened.recv().expect("the queue's thread");
    for direction in ["--dport", "--sport"] {
        let rule = [
            "-t",
            "raw",
            "-A",
            "PREROUTING",
            "-p",
            "tcp",
            direction,
            &port.to_string(),
        ];
        let mut command: Command = lab.engine().command("iptables");
        command
            .args(rule)
            .args(["-j", "NFQUEUE", "--queue-num", &QUEUE.to_string()]);
        let status = command.stderr(Stdio::inherit()).status().expect("start iptables");
        assert!(status.success(), "iptables can't send port {port} to a queue: {status}");
    }
    Floor(stop, waker)
}

/// As it came; but a checksum that the sender's kernel has left open must be whole (kernel's rule for what a verdict gives back).
fn give_back(meta: relevo::engine::Meta, packet: &mut [u8]) -> Verdict {
    let len = match Parsed::parse(packet) {
        Ok(parsed) => Editor::new(packet, &parsed).finish(meta.checksum.into()),
        Err(_) => packet.len(),
    };
    Verdict::Accept { len }
}
