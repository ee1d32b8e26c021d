//! The bench's own service: small questions and answers on thousands of connections, a sink, and a source.
//!
//! Every connection begins with an order of 64 bytes, whose first byte says what is wanted:
//!
//! - [`ASK`]: 64 bytes in answer, and so on with each further order;
//! - [`LAST`]: the same, and then the service closes;
//! - [`UPLOAD`]: whatever follows is swallowed up to its end, and counted; the count is the answer;
//! - [`DOWNLOAD`]: bytes without end, until the client goes.
//!
//! What it says follows from what it is told, so that replicas say the same.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::process::{Resource, getrlimit};
use slab::Slab;

use crate::lab::program::listen;

/// Bytes of an order and of an answer: the thesis's size, and sockperf's here.
pub const MESSAGE: usize = 64;
/// See the module.
pub const ASK: u8 = b'a';
/// See the module.
pub const LAST: u8 = b'l';
/// See the module.
pub const UPLOAD: u8 = b'u';
/// See the module.
pub const DOWNLOAD: u8 = b'd';
/// Bytes of one read or write of bulk data.
pub const CHUNK: usize = 256 << 10;

/// An order.
pub fn order(what: u8) -> [u8; MESSAGE] {
    let mut bytes = [b'.'; MESSAGE];
    bytes[0] = what;
    bytes
}

/// How many connections a proxy can hold with these descriptors: two each, and some for itself.
pub fn proxied_connections() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(100_000) / 2 - 100
}

/// A connection whose orders come one by one.
struct Talk {
    stream: TcpStream,
    read: [u8; MESSAGE],
    filled: usize,
}

/// What becomes of a connection that had something to say.
enum Next {
    Stay,
    End,
    /// A thread of its own, for bulk.
    Bulk(u8),
}

/// Serves until it is killed.
pub fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::from(listen(port)?);
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let of_listener = epoll::EventData::new_u64(u64::MAX);
    epoll::add(&poller, &listener, of_listener, epoll::EventFlags::IN)?;
    let mut talks: Slab<Talk> = Slab::new();
    let mut events = Vec::with_capacity(256);
    loop {
        match epoll::wait(&poller, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(talk) = talks.get_mut(number) else {
                accept_all(&listener, &poller, &mut talks)?;
                continue;
            };
            match talk.go_on() {
                Next::Stay => {}
                Next::End => drop(talks.remove(number)),
                Next::Bulk(what) => {
                    let stream = talks.remove(number).stream;
                    epoll::delete(&poller, &stream)?;
                    stream.set_nonblocking(false)?;
                    // However it ends: the client sees it.
                    std::thread::spawn(move || bulk(what, stream));
                }
            }
        }
    }
}

fn accept_all(listener: &TcpListener, poller: &rustix::fd::OwnedFd, talks: &mut Slab<Talk>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let entry = talks.vacant_entry();
        let number = epoll::EventData::new_u64(entry.key() as u64);
        epoll::add(poller, &stream, number, epoll::EventFlags::IN)?;
        entry.insert(Talk {
            stream,
            read: [0; MESSAGE],
            filled: 0,
        });
    }
    Ok(())
}

impl Talk {
    /// Reads what there is of an order, and answers one that is whole.
    fn go_on(&mut self) -> Next {
        match self.stream.read(&mut self.read[self.filled..]) {
            Ok(0) => return Next::End,
            Ok(n) => self.filled += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Stay,
            Err(_) => return Next::End,
        }
        if self.filled < MESSAGE {
            return Next::Stay;
        }
        self.filled = 0;
        match self.read[0] {
            what @ (UPLOAD | DOWNLOAD) => Next::Bulk(what),
            what => {
                // A client waits for each answer, so there is always room for it.
                let said = self.stream.write_all(&self.read);
                if said.is_ok() && what == ASK {
                    Next::Stay
                } else {
                    Next::End
                }
            }
        }
    }
}

fn bulk(what: u8, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![b'.'; CHUNK];
    if what == DOWNLOAD {
        loop {
            stream.write_all(&buffer)?;
        }
    }
    let mut count: u64 = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&count.to_be_bytes()),
            n => count += n as u64,
        }
    }
}
