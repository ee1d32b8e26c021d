//! The other end of the admin socket: what `relevo status`, `failover` and `machine` do.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::status::{Answer, Request, Status};
use super::table;
use crate::engine::Micros;
use crate::host::admin::read_line;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer in bytes: some hundred for each machine, so this is never reached.
const MAX_ANSWER: usize = 64 << 20;

/// Prints the daemon's status, as a table or as JSON (docs/admin.md).
pub fn show_status(socket: &Path, json: bool) -> anyhow::Result<()> {
    let status = fetch_status(socket)?;
    let text = if json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        table::render(&status)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `relevo status | head` is no failure.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("can't write the status"),
        _ => Ok(()),
    }
}

/// The daemon's status, for whoever wants more than a look at it.
pub fn fetch_status(socket: &Path) -> anyhow::Result<Status> {
    ask(socket, &Request::Status)?
        .status
        .context("the daemon's answer holds no status")
}

/// Moves a service's flows to the machine `to`, or to the next by the service's choice, each when that machine is level; those in which it is
/// not within `within_us` stay.
pub fn failover(socket: &Path, service: &str, to: Option<&str>, within_us: Micros) -> anyhow::Result<()> {
    let answer = ask(
        socket,
        &Request::Failover {
            service: service.to_owned(),
            to: to.map(str::to_owned),
            within_us,
        },
    )?;
    match answer.takeover {
        Some(takeover) => println!("{service}: {}", table::takeover(&takeover)),
        None => println!("{service}: nothing to move"),
    }
    Ok(())
}

/// Takes a machine in (`enable`) or out.
pub fn machine(socket: &Path, enable: bool, service: &str, machine: &str) -> anyhow::Result<()> {
    let request = Request::Machine {
        service: service.to_owned(),
        machine: machine.to_owned(),
        enable,
    };
    let answer = ask(socket, &request)?;
    println!(
        "{service}: {machine} is {}",
        if enable {
            "enabled: it serves new flows"
        } else {
            "disabled"
        }
    );
    if let Some(takeover) = answer.takeover {
        println!("{service}: {}", table::takeover(&takeover));
    }
    Ok(())
}

/// One request, one answer; the daemon's no is an error with its words.
fn ask(socket: &Path, request: &Request) -> anyhow::Result<Answer> {
    let shown = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("relevo is not running: nobody listens at {shown}")
        }
        ErrorKind::PermissionDenied => anyhow::anyhow!("{shown} is root's alone: run this as root"),
        _ => anyhow::Error::new(e).context(format!("can't connect to {shown}")),
    })?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream
        .write_all(line.as_bytes())
        .with_context(|| format!("can't write to {shown}"))?;
    let patience = PATIENCE + request.takes();
    let answer = read_line(&mut stream, &mut Vec::new(), MAX_ANSWER, Instant::now() + patience)
        .with_context(|| format!("no answer from {shown}"))?
        .with_context(|| format!("the daemon at {shown} closed the connection"))?;
    let answer: Answer = serde_json::from_str(&answer).context("can't read the daemon's answer")?;
    if !answer.ok {
        bail!(
            "{}",
            answer
                .error
                .unwrap_or_else(|| "the daemon refused without saying why".to_owned())
        );
    }
    Ok(answer)
}
