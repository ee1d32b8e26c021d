//! The admin socket: who may connect, how much they may say, how long they may take. What is said is the daemon's business.
//!
//! A Unix stream socket, mode 0600; one request and one answer to a line. Each client has a thread of its own, their number
//! is bounded, and none of them ever touches a worker: they only hand lines to a function that the daemon gives.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use socket2::{Domain, SockAddr, Socket, Type};

/// The longest request in bytes, newline included; the longest that makes sense is some 200.
pub const MAX_REQUEST: usize = 4_096;

/// How long a client may take to say a whole line, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients at a time; more are told so and sent away.
const MAX_CLIENTS: usize = 16;

/// Answers one line (without its newline) by one line (without its newline).
pub type Handler = dyn Fn(&str) -> String + Send + Sync;

/// The bound socket. Removes its file when dropped.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Binds `path`. A file left over by a dead daemon is removed; one that a live daemon listens on is an error, and so is
    /// anything that is not a socket.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
            std::fs::create_dir(dir).with_context(|| format!("can't create {} for the admin socket", dir.display()))?;
        }
        remove_stale(path)?;
        let listener = bind_private(path).with_context(|| format!("can't listen at {}", path.display()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Starts a thread that accepts clients for as long as the process lives.
    pub fn serve(&self, handler: Arc<Handler>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        std::thread::Builder::new()
            .name("relevo-admin".into())
            .spawn(move || accept_clients(&listener, &handler))?;
        Ok(())
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The mode is set between bind and listen: until then nobody can connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("can't look at {shown}")),
        Ok(file) if !file.file_type().is_socket() => bail!("{shown} is in the way: it is not a socket"),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another relevo is running: it listens at {shown}"),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("can't remove the stale socket {shown}"))
        }
        Err(e) => Err(e).with_context(|| format!("can't tell whether another relevo listens at {shown}")),
    }
}

fn accept_clients(listener: &UnixListener, handler: &Arc<Handler>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            // Out of descriptors or memory: those clients wait, the rest of the daemon does not.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let slot = Slot::take(&clients);
        if clients.load(Ordering::Relaxed) > MAX_CLIENTS {
            let _ = stream.set_write_timeout(Some(Duration::from_millis(10)));
            let _ = stream.write_all(b"{\"ok\":false,\"error\":\"too many clients\"}\n");
            continue;
        }
        let handler = Arc::clone(handler);
        let client = std::thread::Builder::new().name("relevo-client".into());
        // A thread that can't start drops the stream, which the client sees as a closed connection.
        let _ = client.spawn(move || {
            let _slot = slot;
            let _ = serve_client(&mut stream, &*handler);
        });
    }
}

/// One client among those counted, until dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(clients))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers line after line until the client goes, says too much or takes too long.
fn serve_client(stream: &mut UnixStream, handler: &Handler) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut pending = Vec::new();
    while let Some(line) = read_line(stream, &mut pending, MAX_REQUEST, Instant::now() + PATIENCE)? {
        let mut answer = handler(&line);
        answer.push('\n');
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// The next line without its newline, `None` at the end of the stream. `pending` carries what was read beyond it from call
/// to call. An error if the line is longer than `limit` bytes, not UTF-8, or not whole by `deadline`.
pub fn read_line(
    stream: &mut UnixStream,
    pending: &mut Vec<u8>,
    limit: usize,
    deadline: Instant,
) -> io::Result<Option<String>> {
    let mut searched = 0;
    loop {
        if let Some(end) = pending[searched..].iter().position(|&b| b == b'\n') {
            let rest = pending.split_off(searched + end + 1);
            let mut line = std::mem::replace(pending, rest);
            line.pop();
            return String::from_utf8(line)
                .map(Some)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        }
        searched = pending.len();
        if searched >= limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(n) => pending.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(stream: &mut UnixStream, request: &[u8]) -> Option<String> {
        stream.write_all(request).ok()?;
        read_line(stream, &mut Vec::new(), 1 << 20, Instant::now() + PATIENCE)
            .ok()
            .flatten()
    }

    fn echo_server(path: &Path) -> AdminSocket {
        let socket = AdminSocket::bind(path).expect("bind");
        socket.serve(Arc::new(|line: &str| format!("<{line}>"))).expect("serve");
        socket
    }

    #[test]
    fn lines_are_answered_in_order() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("deep").join("admin.sock");
        let _socket = echo_server(&path);
        assert_eq!(
            std::fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        let mut client = UnixStream::connect(&path).expect("connect");
        assert_eq!(exchange(&mut client, b"one\n").as_deref(), Some("<one>"));
        assert_eq!(exchange(&mut client, b"two\n").as_deref(), Some("<two>"));
    }

    #[test]
    fn a_client_that_says_too_much_is_cut_off_and_the_next_is_served() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("admin.sock");
        let _socket = echo_server(&path);
        let mut loud = UnixStream::connect(&path).expect("connect");
        assert_eq!(exchange(&mut loud, &[b'x'; 2 * MAX_REQUEST]), None);
        let mut garbage = UnixStream::connect(&path).expect("connect");
        assert_eq!(exchange(&mut garbage, b"\xff\xfe\n"), None);
        let mut client = UnixStream::connect(&path).expect("connect");
        assert_eq!(exchange(&mut client, b"ok\n").as_deref(), Some("<ok>"));
    }

    #[test]
    fn idle_clients_are_bounded_and_leave_their_place() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("admin.sock");
        let _socket = echo_server(&path);
        let idle: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| UnixStream::connect(&path).expect("connect"))
            .collect();
        let mut one_more = UnixStream::connect(&path).expect("connect");
        let answer = read_line(&mut one_more, &mut Vec::new(), 1 << 20, Instant::now() + PATIENCE).expect("answer");
        assert!(answer.expect("line").contains("too many clients"));
        drop(idle);
        let served = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            let mut client = UnixStream::connect(&path).expect("connect");
            exchange(&mut client, b"ok\n").as_deref() == Some("<ok>")
        });
        assert!(served);
    }

    #[test]
    fn a_stale_file_is_removed_a_live_one_and_a_stranger_are_not() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("admin.sock");
        let live = AdminSocket::bind(&path).expect("bind");
        let error = AdminSocket::bind(&path).err().expect("refused");
        assert!(error.to_string().contains("another relevo is running"), "{error}");
        drop(live);
        assert!(!path.exists(), "removed when dropped");

        drop(UnixListener::bind(&path).expect("leave a stale file"));
        assert!(path.exists());
        drop(AdminSocket::bind(&path).expect("stale file removed"));

        std::fs::write(&path, "mine").expect("write");
        assert!(AdminSocket::bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "mine");
    }
}
