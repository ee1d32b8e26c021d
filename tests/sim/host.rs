//! A host: a real smoltcp stack with its own clock, initial sequence numbers, buffers and applications.

mod device;
mod hearing;
mod misfortune;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use relevo::engine::Micros;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use self::device::{Queues, TSVAL, seed_for, tsval};
use crate::app::{ClientApp, Odd, Pace, ServerApp};
use crate::net::LinkSpec;
use crate::packet::Packet;
use crate::quirks::Quirks;
use crate::script::Script;

/// How a host's stack and applications behave.
#[derive(Clone, Copy, Debug)]
pub struct HostSpec {
    /// MTU in bytes, IP header included.
    pub mtu: usize,
    /// Receive and send buffer of each socket in bytes.
    pub rx: usize,
    pub tx: usize,
    /// Timestamps: the clock's value at the run's start, and whether they are offered or accepted at all.
    pub ts_base: u32,
    pub timestamps: bool,
    /// SACK and window scaling are offered and accepted.
    pub sack: bool,
    pub scaling: bool,
    /// Its service says something else than the others (R17).
    pub odd: Option<Odd>,
    /// The initial sequence number of its first connection.
    pub first_isn: u32,
    /// Milliseconds; 0 acknowledges at once.
    pub ack_delay: u64,
    pub nagle: bool,
    pub reno: bool,
    /// Milliseconds; 0 sends no keep-alives.
    pub keep_alive: u64,
    pub pace: Pace,
    /// Nothing listens on it.
    pub refuses: bool,
    /// To the engine, and from it.
    pub up: LinkSpec,
    pub down: LinkSpec,
}

/// What a socket of a host is for.
#[derive(Debug)]
enum Role {
    /// Waits for a connection; the flag says that a SYN has been here.
    Listener(bool),
    Server(Box<ServerApp>),
    Client(Box<ClientApp>),
    /// The application has gone.
    Orphan,
}

/// What a machine's application had read of a flow when its connection ended, or by now.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub flow: usize,
    pub read: usize,
    pub eof: bool,
}

fn socket_has_data(sockets: &SocketSet<'_>, handle: SocketHandle) -> bool {
    sockets.get::<tcp::Socket>(handle).can_recv()
}

/// One host.
pub struct Host {
    pub name: String,
    pub addr: IpAddr,
    pub spec: HostSpec,
    queues: Queues,
    iface: Interface,
    sockets: SocketSet<'static>,
    slots: Vec<(SocketHandle, Role)>,
    scripts: Rc<Vec<Script>>,
    greeting: u32,
    service: Option<u16>,
    spare_listeners: usize,
    finished: Vec<Progress>,
    quirks: Quirks,
    /// The applications do nothing, though the stack runs.
    pub hung: bool,
    /// Every SYN of each peer.
    opened: Vec<(IpEndpoint, u32)>,
    /// When an application last read, wrote or closed anything.
    pub worked_at: Micros,
}

impl Host {
    /// `service` is the port on which it listens, if it is a machine.
    pub fn new(
        name: String,
        addr: IpAddr,
        spec: HostSpec,
        scripts: Rc<Vec<Script>>,
        service: Option<u16>,
        greeting: u32,
    ) -> Self {
        let mut queues = Queues {
            mtu: spec.mtu,
            rx: VecDeque::new(),
            tx: VecDeque::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed_for(spec.first_isn);
        let mut iface = Interface::new(config, &mut queues, Instant::from_micros(0));
        iface.update_ip_addrs(|list| {
            // The list is empty and has room for two.
            let _ = list.push(IpCidr::new(addr.into(), if addr.is_ipv4() { 24 } else { 64 }));
        });
        let _ = match addr {
            IpAddr::V4(_) => iface
                .routes_mut()
                .add_default_ipv4_route([10, 0, 0, 254].into())
                .map(|_| ()),
            IpAddr::V6(_) => iface
                .routes_mut()
                .add_default_ipv6_route("fd00::fe".parse().expect("address"))
                .map(|_| ()),
        };
        let mut host = Self {
            name,
            addr,
            queues,
            iface,
            sockets: SocketSet::new(Vec::new()),
            slots: Vec::new(),
            spare_listeners: scripts.len().min(8) + 2,
            scripts,
            greeting,
            service: service.filter(|_| !spec.refuses),
            spec,
            finished: Vec::new(),
            quirks: Quirks::default(),
            hung: false,
            opened: Vec::new(),
            worked_at: 0,
        };
        host.keep_listening();
        host
    }

    fn new_socket(&self) -> tcp::Socket<'static> {
        let s = &self.spec;
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; s.rx]),
            tcp::SocketBuffer::new(vec![0; s.tx]),
        );
        socket.set_tsval_generator(s.timestamps.then_some(tsval as fn() -> u32));
        socket.set_nagle_enabled(s.nagle);
        socket.set_ack_delay((s.ack_delay > 0).then(|| Duration::from_millis(s.ack_delay)));
        socket.set_keep_alive((s.keep_alive > 0).then(|| Duration::from_millis(s.keep_alive)));
        socket.set_congestion_control(if s.reno {
            CongestionControl::Reno
        } else {
            CongestionControl::None
        });
        socket
    }

    fn keep_listening(&mut self) {
        let Some(port) = self.service else { return };
        let free = self
            .slots
            .iter()
            .filter(|(_, role)| matches!(role, Role::Listener(false)))
            .count();
        for _ in free..self.spare_listeners {
            let mut socket = self.new_socket();
            socket.listen(port).expect("a fresh socket may listen");
            self.slots.push((self.sockets.add(socket), Role::Listener(false)));
        }
    }

    /// Opens the connection of `flow`; an older one from the same port is forgotten first, as hosts reuse TIME-WAIT.
    pub fn connect(&mut self, to: SocketAddr, port: u16, app: ClientApp) {
        let sockets = &mut self.sockets;
        self.slots.retain(|(handle, _)| {
            let same = sockets
                .get::<tcp::Socket>(*handle)
                .local_endpoint()
                .is_some_and(|e| e.port == port);
            if same {
                sockets.remove(*handle);
            }
            !same
        });
        let mut socket = self.new_socket();
        socket
            .connect(self.iface.context(), IpEndpoint::from(to), port)
            .expect("a fresh socket may connect");
        self.slots.push((self.sockets.add(socket), Role::Client(Box::new(app))));
    }

    /// Takes a packet in, if there is one, and runs the stack and the applications until they rest.
    ///
    /// An error is what an application found wrong, with the number of its flow.
    pub fn run(&mut self, now: Micros, packet: Option<Vec<u8>>) -> Result<(), (usize, String)> {
        TSVAL.set(self.spec.ts_base.wrapping_add((now / 1000) as u32));
        let packet = packet.filter(|p| self.syn_is_welcome(p) && !self.stalls_fin(p) && !self.overshoots(p));
        let packet = packet.map(|bytes| self.quirks.within_window(self.without_options(bytes)));
        let packet = packet.map(|bytes| self.quirks.without_early_fin(bytes));
        if let Some(bytes) = &packet {
            self.quirks.note_heard(bytes);
        }
        self.queues.rx.extend(packet);
        let (slots, sockets) = (&self.slots, &self.sockets);
        let reminders = self.quirks.reminders(now, |to, port| {
            slots.iter().any(|(handle, _)| {
                let socket = sockets.get::<tcp::Socket>(*handle);
                let own = socket.local_endpoint().is_some_and(|e| e.port == port);
                own && socket.remote_endpoint() == Some(to) && socket.send_queue() > 0
            })
        });
        self.queues.rx.extend(reminders);
        let time = Instant::from_micros(now as i64);
        loop {
            self.iface.poll(time, &mut self.queues, &mut self.sockets);
            self.take_connections();
            let mut busy = false;
            for (handle, role) in &mut self.slots {
                let socket = self.sockets.get_mut::<tcp::Socket>(*handle);
                busy |= match role {
                    Role::Listener(_) => false,
                    // What nobody will read ends in a reset, as other stacks answer it (RFC 9293 section 3.6.1, RFC 2525 section 2.17).
                    Role::Orphan if socket.can_recv() => {
                        socket.abort();
                        true
                    }
                    Role::Orphan => false,
                    Role::Server(app) if self.hung => {
                        app.keep(socket);
                        false
                    }
                    Role::Server(app) => {
                        if let (State::CloseWait, Some(to)) = (socket.state(), socket.remote_endpoint()) {
                            let own = socket.local_endpoint().map_or(0, |e| e.port);
                            app.room_to_close = self.quirks.room_to_close(to, own);
                        }
                        app.step(now, socket).map_err(|text| (app.flow().unwrap_or(0), text))?
                    }
                    Role::Client(app) => app.step(now, socket).map_err(|text| (app.flow, text))?,
                };
            }
            if !busy {
                return Ok(());
            }
            self.worked_at = now;
        }
    }

    fn forget(&mut self, i: usize) {
        let (handle, role) = self.slots.remove(i);
        let socket = self.sockets.get::<tcp::Socket>(handle);
        if let (Some(to), Some(own)) = (socket.remote_endpoint(), socket.local_endpoint()) {
            self.quirks.forget(to, own.port);
        }
        if let Role::Server(app) = role
            && let Some(flow) = app.flow()
        {
            self.finished.push(Progress {
                flow,
                read: app.read,
                eof: app.eof,
            });
        }
        self.sockets.remove(handle);
    }

    /// Listeners that were connected become servers; what is over is forgotten.
    fn take_connections(&mut self) {
        let mut over = Vec::new();
        for (i, (handle, role)) in self.slots.iter_mut().enumerate() {
            let state = self.sockets.get::<tcp::Socket>(*handle).state();
            match (&mut *role, state) {
                // A listener keeps what the last SYN lacked (timestamps): a used one is replaced.
                (Role::Listener(used), State::Listen) if *used => over.push(i),
                (Role::Listener(_), State::Listen) => (),
                (Role::Listener(used), State::SynReceived) => *used = true,
                (Role::Listener(_), _) => {
                    let app = ServerApp::new(self.greeting, self.spec.pace, self.spec.odd, Rc::clone(&self.scripts));
                    *role = Role::Server(Box::new(app));
                }
                (Role::Orphan, State::Closed) => over.push(i),
                (Role::Orphan, _) => (),
                (Role::Server(app), State::Closed) if app.has_kept() => (),
                (Role::Server(_), State::Closed) if !socket_has_data(&self.sockets, *handle) => over.push(i),
                (Role::Server(_) | Role::Client(_), _) => (),
            }
        }
        for i in over.into_iter().rev() {
            self.forget(i);
        }
        self.keep_listening();
    }

    /// The next packet that the host sends.
    pub fn take_packet(&mut self, now: Micros) -> Option<Vec<u8>> {
        let mut bytes = self.queues.tx.pop_front()?;
        self.quirks.note_sent(now, &mut bytes);
        Some(self.without_options(bytes))
    }

    /// When the host wants to run again if no packet comes.
    pub fn next_deadline(&mut self, now: Micros) -> Option<Micros> {
        let stack = self.iface.poll_at(Instant::from_micros(now as i64), &self.sockets);
        let stack = stack.map(|at| at.total_micros().max(0) as Micros);
        let apps = self.slots.iter().filter_map(|(handle, role)| {
            let socket = self.sockets.get::<tcp::Socket>(*handle);
            match role {
                Role::Listener(_) | Role::Orphan => None,
                Role::Server(_) if self.hung => None,
                Role::Server(app) => app.next_deadline(socket, now),
                Role::Client(app) => app.next_deadline(socket, now),
            }
        });
        stack.into_iter().chain(apps).chain(self.quirks.next_deadline()).min()
    }

    /// The client's side of a flow.
    pub fn client(&self, flow: usize) -> Option<&ClientApp> {
        self.slots.iter().find_map(|(_, role)| match role {
            Role::Client(app) if app.flow == flow => Some(&**app),
            _ => None,
        })
    }

    /// How far the machine's application is with a flow, the best of its connections.
    pub fn progress(&self, flow: usize) -> Option<Progress> {
        let open = self.slots.iter().filter_map(|(_, role)| match role {
            Role::Server(app) => app.flow().map(|flow| Progress {
                flow,
                read: app.read,
                eof: app.eof,
            }),
            _ => None,
        });
        open.chain(self.finished.iter().copied())
            .filter(|p| p.flow == flow)
            .max_by_key(|p| (p.read, p.eof))
    }

    /// Every connection in words, for a failure's report.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (handle, role) in &self.slots {
            let socket = self.sockets.get::<tcp::Socket>(*handle);
            let what = match role {
                Role::Listener(false) => continue,
                Role::Listener(true) => "listener".into(),
                Role::Orphan => "nobody".into(),
                Role::Server(app) => format!("server of flow {:?}: read {} eof {}", app.flow(), app.read, app.eof),
                Role::Client(app) => {
                    format!(
                        "client of flow {}: written {} read {} done {}",
                        app.flow, app.written, app.read, app.done
                    )
                }
            };
            text += &format!(
                "    {} {:?} {what}; {} queued to send, {} to read\n",
                self.name,
                socket.state(),
                socket.send_queue(),
                socket.recv_queue()
            );
        }
        text
    }
}

#[test]
fn first_isn_is_as_wished() {
    for isn in [0, 1, 0x8000_0000, u32::MAX - 3] {
        let script = Rc::new(vec![Script::new(
            1,
            0,
            0,
            &crate::script::Dialogue {
                trailer: 0,
                records: vec![],
                ending: crate::script::Ending::HalfClose,
            },
        )]);
        let spec = HostSpec {
            first_isn: isn,
            ..crate::scenario::plain_host(1_000)
        };
        let mut host = Host::new("c".into(), [10, 0, 1, 1].into(), spec, Rc::clone(&script), None, 0);
        host.connect(
            ([10, 0, 1, 100], 80).into(),
            4000,
            ClientApp::new(script, 0, Pace::FAST),
        );
        host.run(1, None).expect("nothing to go wrong");
        let syn = Packet::parse(&host.take_packet(1).expect("a SYN")).expect("whole");
        assert_eq!(syn.seq, isn);
    }
}

/// One that has filled the window acknowledges from its right edge: see [`Quirks::within_window`].
#[test]
fn an_acknowledgement_at_the_edge_of_the_window_is_heard() {
    use relevo::wire::{Flags, Options, Segment, Seq};
    let record = crate::script::Record {
        upload: 100,
        reply: 10,
        echo: false,
        wait: false,
        think: 0,
    };
    let dialogue = crate::script::Dialogue {
        trailer: 0,
        records: vec![record],
        ending: crate::script::Ending::ClientCloses,
    };
    let script = Rc::new(vec![Script::new(1, 0, 0, &dialogue)]);
    // A window of two kilobytes, and one that needs a scale.
    for rx in [2_000, 262_144] {
        let spec = HostSpec {
            rx,
            ..crate::scenario::plain_host(1_000)
        };
        let (own, server) = (([10, 0, 1, 1], 4000).into(), ([10, 0, 1, 100], 80).into());
        let mut host = Host::new("c".into(), [10, 0, 1, 1].into(), spec, Rc::clone(&script), None, 0);
        host.connect(server, 4000, ClientApp::new(Rc::clone(&script), 0, Pace::FAST));
        let heard = |host: &mut Host| -> Vec<Packet> {
            std::iter::from_fn(|| host.take_packet(1))
                .map(|bytes| Packet::parse(&bytes).expect("whole"))
                .collect()
        };
        let say = |host: &mut Host, seq: u32, ack: u32, syn: bool| {
            let segment = Segment {
                src: server,
                dst: own,
                seq: Seq(seq),
                ack: Seq(ack),
                flags: if syn { Flags::SYN | Flags::ACK } else { Flags::ACK },
                window: 30_000,
                urgent: 0,
                options: Options {
                    wscale: syn.then_some(0),
                    ..Options::default()
                },
                payload: (&[], &[]),
            };
            let mut bytes = vec![0; segment.len()];
            assert!(segment.write(&mut bytes));
            host.run(1, Some(bytes)).expect("nothing to go wrong");
        };
        host.run(1, None).expect("nothing to go wrong");
        let syn = heard(&mut host)[0];
        say(&mut host, 7_000, syn.seq.wrapping_add(1), true);
        let last = *heard(&mut host).last().expect("a request");
        let edge = last.ack + (u32::from(last.win) << syn.options.scale.unwrap_or(0));
        assert_eq!(edge, 7_001 + rx as u32, "all of the buffer is offered");
        say(&mut host, edge, last.seq.wrapping_add(last.seq_len()), false);
        assert!(host.describe().contains("; 0 queued to send"), "{}", host.describe());
    }
}
