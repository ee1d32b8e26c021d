//! What can go wrong with a machine or a link.
//!
//! kernel.md: removing any base chain silently drops the packets that wait in that namespace's queues. So rules that are taken
//! away again are only ever put into clients and machines; what is put into the engine host stays until the lab ends.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::Lab;
use super::netns::Host;

/// How a machine falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Its link goes down: the engine host could see the lost carrier.
    LinkDown,
    /// Its stack hears and says nothing more, ARP and neighbour discovery included; the link stays up.
    Mute,
    /// It hears nothing more; what it says by itself gets through. One-way loss of everything.
    Deaf,
    /// Nothing that it says gets through; it hears. One-way loss of everything, the other way.
    Unheard,
}

impl Freeze {
    /// The two in turn.
    pub fn alternate(i: usize) -> Self {
        if i.is_multiple_of(2) {
            Self::LinkDown
        } else {
            Self::Mute
        }
    }
}

const MUTE: &str = "table inet lab_mute {\n chain in { type filter hook prerouting priority -500; policy drop; iifname \"lo\" accept; }\n \
    chain out { type filter hook output priority -500; policy drop; oifname \"lo\" accept; }\n}\n\
    table arp lab_mute {\n chain in { type filter hook input priority 0; policy drop; }\n}\n";

const DEAF: &str =
    "table netdev lab_deaf {\n chain in { type filter hook ingress device \"eth0\" priority 0; policy drop; }\n}\n";

const UNHEARD: &str =
    "table netdev lab_unheard {\n chain out { type filter hook egress device \"eth0\" priority 0; policy drop; }\n}\n";

/// A freeze that waits for its moment: the tool is started and ready, so that pulling it takes well under a millisecond.
pub struct Trigger {
    tool: Child,
    stdin: Option<ChildStdin>,
    line: &'static str,
}

impl Trigger {
    /// Prepares the freeze of `host`.
    pub fn arm(host: &Host, kind: Freeze) -> Self {
        let (mut command, line) = match kind {
            Freeze::LinkDown => {
                let mut command = Command::new("ip");
                command.args(["-n", host.ns(), "-batch", "-"]);
                (command, "link set eth0 down\n")
            }
            Freeze::Mute | Freeze::Deaf | Freeze::Unheard => {
                let mut command = host.command("nft");
                command.args(["-f", "-"]);
                let rules = match kind {
                    Freeze::Deaf => DEAF,
                    Freeze::Unheard => UNHEARD,
                    _ => MUTE,
                };
                (command, rules)
            }
        };
        let mut tool = command
            .stdin(Stdio::piped())
            .spawn()
            .expect("start the tool that freezes");
        let stdin = tool.stdin.take();
        Self { tool, stdin, line }
    }

    /// Freezes. Returns the moment before, by the clock that captures use.
    pub fn pull(mut self) -> SystemTime {
        let before = SystemTime::now();
        let mut stdin = self.stdin.take().expect("armed once");
        stdin.write_all(self.line.as_bytes()).expect("tell the tool");
        drop(stdin);
        assert!(
            self.tool.wait().expect("wait for the tool").success(),
            "the freeze failed"
        );
        before
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        if self.stdin.take().is_some() {
            let _ = self.tool.kill();
            let _ = self.tool.wait();
        }
    }
}

/// Something that is to happen at a certain point of a client's work, without the client waiting for it.
pub struct Fuse<T> {
    lit: mpsc::Sender<()>,
    thread: JoinHandle<Option<T>>,
}

impl<T: Send + 'static> Fuse<T> {
    /// Makes ready for it; `bang` runs in a thread of its own once the fuse is lit.
    pub fn lay(bang: impl FnOnce() -> T + Send + 'static) -> Self {
        let (lit, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || wait.recv().ok().map(|()| bang()));
        Self { lit, thread }
    }

    /// Now. Further calls do nothing.
    pub fn light(&self) {
        let _ = self.lit.send(());
    }

    /// Waits for it to be done; panics if it was never lit.
    pub fn done(self) -> T {
        drop(self.lit);
        let result = self
            .thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.expect("the point at which it was to happen was never reached")
    }
}

/// A freeze that happens when the fuse is lit.
pub fn freeze_fuse(host: &Host, kind: Freeze) -> Fuse<SystemTime> {
    let trigger = Trigger::arm(host, kind);
    Fuse::lay(move || trigger.pull())
}

/// Freezes now.
pub fn freeze(host: &Host, kind: Freeze) -> SystemTime {
    Trigger::arm(host, kind).pull()
}

/// Undoes [`freeze`].
pub fn thaw(host: &Host, kind: Freeze) {
    match kind {
        Freeze::LinkDown => {
            host.ip_batch("link set eth0 up\n");
            host.add_default_routes();
        }
        Freeze::Mute => host.nft("delete table inet lab_mute\ndelete table arp lab_mute\n"),
        Freeze::Deaf => host.nft("delete table netdev lab_deaf\n"),
        Freeze::Unheard => host.nft("delete table netdev lab_unheard\n"),
    }
}

/// One link of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Between client number `.0` and the engine host.
    Client(usize),
    /// Between the engine host and machine number `.0`.
    Machine(usize),
}

impl Link {
    /// The engine host's interface.
    pub fn interface(self) -> String {
        match self {
            Self::Client(i) => format!("c{i}"),
            Self::Machine(i) => format!("m{i}"),
        }
    }

    /// The host at the other end.
    pub fn host(self, lab: &Lab) -> &Host {
        match self {
            Self::Client(i) => &lab.clients()[i],
            Self::Machine(i) => lab.machine(i),
        }
    }
}

/// Loses every packet with a chance of `per_mille` ‰ in both directions of a link, for as long as the lab lives.
pub fn lose(lab: &Lab, link: Link, per_mille: u32) {
    may_lose(lab, link);
    set_loss(lab, link, per_mille);
}

/// Makes ready for [`set_loss`]; loses nothing yet. To be done once for a link.
pub fn may_lose(lab: &Lab, link: Link) {
    for (host, device) in ends(lab, link) {
        host.nft(&format!(
            "table netdev lab_loss_{device} {{\n counter lost {{ }}\n chain in {{\n  type filter hook ingress device \"{device}\" priority 0;\n }}\n}}\n"
        ));
    }
}

/// How much a link loses from now on, in both directions; 0 is nothing. The base chain stays.
///
/// Dropped where the packet comes in, never where it leaves: a local stack that is told of the drop would not call it loss but
/// congestion of its own, and send again at once.
pub fn set_loss(lab: &Lab, link: Link, per_mille: u32) {
    for (host, device) in ends(lab, link) {
        let table = format!("netdev lab_loss_{device}");
        let rule = match per_mille {
            0 => String::new(),
            _ => format!("add rule {table} in numgen random mod 1000 < {per_mille} counter name lost drop\n"),
        };
        host.nft(&format!("flush chain {table} in\n{rule}"));
    }
}

fn ends(lab: &Lab, link: Link) -> [(&Host, String); 2] {
    [(link.host(lab), "eth0".to_owned()), (lab.engine(), link.interface())]
}
