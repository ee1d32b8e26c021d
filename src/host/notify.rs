//! Tells the service manager how far we are (the sd_notify protocol: one datagram to `$NOTIFY_SOCKET`).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (such as `READY=1`) if somebody asked for it. Nobody is told of a failure: the service runs all the same.
pub fn notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        let _ = send(&path, state);
    }
}

/// A leading `@` stands for the NUL of an abstract address.
fn send(path: &OsStr, state: &str) -> std::io::Result<usize> {
    let addr = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_a_path_and_an_abstract_name() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bind");
        send(path.as_os_str(), "READY=1").expect("send");
        let mut buffer = [0; 32];
        assert_eq!(listener.recv(&mut buffer).expect("recv"), 7);
        assert_eq!(&buffer[..7], b"READY=1");

        let name = format!("relevo-notify-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).expect("name");
        let listener = UnixDatagram::bind_addr(&addr).expect("bind");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("send");
        assert_eq!(listener.recv(&mut buffer).expect("recv"), 10);
    }
}
