//! An upload whose pace is looked at while it goes on.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::cluster::PATIENCE;
use super::raw::unacknowledged;

/// An upload on an open connection, in spans whose goodput is measured.
pub struct Upload {
    stream: TcpStream,
    given: u64,
}

impl Upload {
    /// Connects, and says that an upload follows.
    pub fn open(psc: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(psc)?;
        stream.set_write_timeout(Some(Duration::from_millis(20)))?;
        writeln!(stream, "PUT 1")?;
        Ok(Self { stream, given: 0 })
    }

    /// Sends for `span`, at most `pace` bytes a second. Returns the bytes a second that were acknowledged, thus taken by every machine:
    /// what was given to the kernel less what still lies in it.
    pub fn measure(&mut self, span: Duration, pace: Option<u64>) -> io::Result<f64> {
        let chunk = [7; 16 << 10];
        let start = Instant::now();
        let (mut given, waiting) = (0u64, unacknowledged(&self.stream)?);
        loop {
            let spent = start.elapsed();
            if spent >= span {
                break;
            }
            if pace.is_some_and(|pace| given as f64 >= pace as f64 * spent.as_secs_f64()) {
                std::thread::sleep(Duration::from_micros(200)); // the pace itself, no waiting for anything
                continue;
            }
            match self.stream.write(&chunk) {
                Ok(n) => given += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        self.given += given;
        Ok((given + waiting).saturating_sub(unacknowledged(&self.stream)?) as f64 / start.elapsed().as_secs_f64())
    }

    /// Ends it; the service must have got every byte.
    pub fn finish(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer)?;
        let got = answer.split(' ').next().and_then(|word| word.parse().ok());
        assert_eq!(got, Some(self.given), "bytes that the service got: {answer:?}");
        Ok(())
    }
}
