//! Any bytes on the admin socket: lines come out as they went in, and each is a request or is refused in one line.

use relevo::daemon::status::{Answer, Request};
use relevo::host::admin::{MAX_REQUEST, read_line};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Says `data` to the socket's reader.
pub fn run(data: &[u8]) {
    // What a socket's buffer takes without anybody reading.
    let data = &data[..data.len().min(32 << 10)];
    let (mut client, mut server) = UnixStream::pair().expect("a pair of sockets");
    client.write_all(data).expect("room for it");
    client.shutdown(Shutdown::Write).expect("shut down");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut pending, mut sent) = (Vec::new(), data.split_inclusive(|b| *b == b'\n'));
    while let Ok(Some(line)) = read_line(&mut server, &mut pending, MAX_REQUEST, deadline) {
        let said = sent.next().expect("as many lines as were sent");
        assert_eq!(Some(line.as_bytes()), said.strip_suffix(b"\n"));
        answer(&line);
    }
}

fn answer(line: &str) {
    let answer = match serde_json::from_str::<Request>(line) {
        Ok(request) => {
            let again = serde_json::to_string(&request).expect("a request can be written");
            assert_eq!(serde_json::from_str::<Request>(&again).expect("and read"), request);
            assert!(!again.contains('\n'));
            Answer::done(None)
        }
        Err(error) => Answer::error(format!("can't read the request: {error}")),
    };
    let said = serde_json::to_string(&answer).expect("an answer can be written");
    assert!(!said.contains('\n'), "one line");
    assert_eq!(serde_json::from_str::<Answer>(&said).expect("and read"), answer);
}
