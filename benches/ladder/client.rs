//! What the benches' own clients have in common.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::lab::netns::Host;
use crate::server::{MESSAGE, order};
use crate::stage::CORE;

/// After this long without progress a client gives up, and the bench fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `work` in a thread on the host, on the client's core.
pub fn on_core<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    host.enter(|| {
        stay_on_core();
        work()
    })
}

/// Keeps this thread on the client's core.
pub fn stay_on_core() {
    let mut cores = CpuSet::new();
    cores.set(CORE.parse().expect("a core's number"));
    sched_setaffinity(None, &cores).expect("stay on one core");
}

/// Connects.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A question and its answer.
pub fn ask(stream: &mut TcpStream, what: u8) -> io::Result<()> {
    let question = order(what);
    let mut answer = [0; MESSAGE];
    stream.write_all(&question)?;
    stream.read_exact(&mut answer)?;
    if answer == question {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "another answer than its question",
    ))
}

/// Ends a connection by a RST: nothing of it is left on any side.
pub fn abort(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
