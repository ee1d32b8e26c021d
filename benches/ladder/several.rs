//! What any design has to do in which replicas really have each byte, and nothing else: the client sends the same on an ordinary connection to each machine.
//!
//! So this is what the machine that everything runs on leaves of an upload, without an engine.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bulk::GIGABIT;
use crate::client::{connect, on_core};
use crate::lab::{Family, Lab};
use crate::record::Sample;
use crate::rounds::{Length, Result};
use crate::server::{CHUNK, UPLOAD, order};
use crate::ways::Way;

/// By how many bytes one machine may be ahead of another: Relevo's `flow_buffer`.
const LEAD: u64 = 4 << 20;
/// Who has not taken anything for so long has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Only an upload: of a download a replica's part ends in the engine, which no ordinary client has.
pub fn measure(lab: &Lab, way: &Way, length: Length) -> Result<Sample> {
    let machines = lab.machines()[..way.machines()].iter();
    let to: Vec<SocketAddr> = machines.map(|host| host.addr(Family::V4, way.port())).collect();
    let length = Duration::from_secs(length.seconds);
    let (bytes, time) = on_core(lab.client(), || upload(&to, length)).map_err(|e| format!("upload: {e}"))?;
    Ok(Sample::from([("up_gbps", bytes * GIGABIT / time)]))
}

/// One of the connections, and what it has been given.
struct Stream(TcpStream, u64);

/// Bytes to each, and seconds until all of them have said that they have them.
fn upload(to: &[SocketAddr], length: Duration) -> std::io::Result<(f64, f64)> {
    let mut streams = Vec::new();
    for addr in to {
        let mut stream = connect(*addr)?;
        stream.write_all(&order(UPLOAD))?;
        stream.set_nonblocking(true)?;
        streams.push(Stream(stream, 0));
    }
    let chunk = vec![b'.'; CHUNK];
    let start = Instant::now();
    while start.elapsed() < length {
        let least = streams.iter().map(|stream| stream.1).min().unwrap_or(0);
        feed(&mut streams, &chunk, least + LEAD)?;
    }
    let most = streams.iter().map(|stream| stream.1).max().unwrap_or(0);
    while streams.iter().any(|stream| stream.1 < most) {
        feed(&mut streams, &chunk, most)?;
    }
    for Stream(stream, _) in &mut streams {
        stream.set_nonblocking(false)?;
        stream.shutdown(Shutdown::Write)?;
    }
    for Stream(stream, sent) in &mut streams {
        let mut count = [0; 8];
        stream.read_exact(&mut count)?;
        if u64::from_be_bytes(count) != *sent {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "bytes are missing"));
        }
    }
    Ok((most as f64, start.elapsed().as_secs_f64()))
}

/// Waits until somebody takes something, and gives to each what it takes, up to `most` in all.
fn feed(streams: &mut [Stream], chunk: &[u8], most: u64) -> std::io::Result<()> {
    let hungry = streams.iter().filter(|stream| stream.1 < most);
    let mut fds: Vec<PollFd<'_>> = hungry.map(|stream| PollFd::new(&stream.0, PollFlags::OUT)).collect();
    if poll(&mut fds, Some(&PATIENCE))? == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    for Stream(stream, sent) in streams.iter_mut().filter(|stream| stream.1 < most) {
        let room = usize::try_from(most - *sent).unwrap_or(usize::MAX).min(chunk.len());
        match stream.write(&chunk[..room]) {
            Ok(n) => *sent += n as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
