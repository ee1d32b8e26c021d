//! What stands in Relevo's place on the engine's host: proxies, and rules of the kernel's.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::netns::Host;
use crate::lab::process::Process;
use crate::server::proxied_connections;
use crate::ways::Peer;

/// Where Debian puts nginx' modules.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Starts a proxy on `core` that hands what comes to `from` on to `to`, or says why it can't be had.
pub fn start(
    peer: Peer,
    host: &Host,
    dir: &Path,
    core: &str,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<Process, String> {
    let (program, words) = match peer {
        Peer::Haproxy => ("haproxy", haproxy(dir, from, to)),
        Peer::Nginx => ("nginx", nginx(dir, from, to)),
        Peer::Socat => ("socat", socat(from, to)),
    };
    let needed = match peer {
        Peer::Nginx => vec![program, NGINX_STREAM],
        Peer::Haproxy | Peer::Socat => vec![program],
    };
    if let Some(missing) = needed.into_iter().find(|file| !installed(file)) {
        return Err(format!("not installed ({missing})"));
    }
    let mut command = host.command("taskset");
    command.args(["-c", core, program]).args(words);
    Ok(Process::start(&format!("{program}-proxy"), dir, &mut command))
}

/// Whether a program is in the PATH, or a file there.
fn installed(file: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    file.starts_with('/') && Path::new(file).exists() || path.split(':').any(|dir| Path::new(dir).join(file).is_file())
}

/// One thread, since it has one core. Everything else as HAProxy's own defaults have it.
fn haproxy(dir: &Path, from: SocketAddr, to: SocketAddr) -> Vec<String> {
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn {}\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n\
         listen bench\n  bind {from}\n  server m0 {to}\n",
        proxied_connections()
    );
    std::fs::write(&file, text).expect("write haproxy.cfg");
    ["-db", "-f"]
        .map(str::to_owned)
        .into_iter()
        .chain([path(&file)])
        .collect()
}

/// One process. It must let a client end its own direction first, as the other ways do.
fn nginx(dir: &Path, from: SocketAddr, to: SocketAddr) -> Vec<String> {
    let file = dir.join("nginx-stream.conf");
    let text = format!(
        "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\nuser root;\npid {}/nginx-stream.pid;\nworker_rlimit_nofile {files};\n\
         events {{ worker_connections {files}; }}\nstream {{ server {{ listen {from} backlog=4096; proxy_pass {to}; proxy_half_close on; }} }}\n",
        dir.display(),
        files = 2 * proxied_connections(),
    );
    std::fs::write(&file, text).expect("write nginx-stream.conf");
    [
        "-e".to_owned(),
        path(&dir.join("nginx-stream.log")),
        "-c".to_owned(),
        path(&file),
    ]
    .to_vec()
}

fn socat(from: SocketAddr, to: SocketAddr) -> Vec<String> {
    let listen = format!(
        "TCP-LISTEN:{},bind={},reuseaddr,fork,backlog=4096,nodelay",
        from.port(),
        from.ip()
    );
    vec![listen, format!("TCP:{to},nodelay")]
}

fn path(file: &Path) -> String {
    file.to_str().expect("a path in UTF-8").to_owned()
}

/// Sends a copy of whatever comes from the client to `port` to so many machines. They drop it: it is not addressed to them.
pub fn copy(host: &Host, port: u16, copies: usize) -> Result<(), String> {
    let to: String = (1..=copies)
        .map(|i| format!(" dup to 10.0.{}.2 device \"m{i}\"", 10 + i))
        .collect();
    // Before the translation (-100), so each copy is of what the client has sent.
    let rules = format!(
        "table ip lab_dup {{\n chain pre_{port} {{\n  type filter hook prerouting priority -150;\n  iifname \"c0\" tcp dport {port}{to}\n }}\n}}\n"
    );
    let mut child = host
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("nft: {e}"))?;
    let input = child.stdin.take().expect("piped").write_all(rules.as_bytes());
    let output = child.wait_with_output().map_err(|e| format!("nft: {e}"))?;
    if input.is_ok() && output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "not in this kernel, nft says: {}",
        said.lines().next().unwrap_or("nft failed")
    ))
}

/// The version that a peer says it has, for the record.
pub fn version(program: &str) -> String {
    let flag = if program == "socat" { "-V" } else { "-v" };
    let output = Command::new(program).arg(flag).output();
    let text = output.map_or(String::new(), |o| {
        [o.stdout, o.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat()
    });
    let is_version = |word: &&str| word.contains('.') && word.contains(|c: char| c.is_ascii_digit());
    let word = text.split_whitespace().find(is_version).unwrap_or("unknown");
    format!("{program} {}", word.trim_start_matches("nginx/"))
}
