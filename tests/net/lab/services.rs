//! Real services from Debian's packages, each with a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::Family;
use super::netns::Host;
use super::process::Process;
use super::wait_for;

/// How long a service may take to listen.
const START: Duration = Duration::from_secs(10);

/// redis-server on a machine, port 6379, nothing on disk.
pub struct Redis {
    host: Host,
    process: Process,
}

impl Redis {
    /// The port.
    pub const PORT: u16 = 6379;

    /// Starts it and waits until it answers.
    pub fn start(host: &Host, dir: &Path) -> Self {
        Self::start_on(host, dir, Self::PORT)
    }

    /// As [`Redis::start`], on another port; [`Redis::local`] is for the usual one.
    pub fn start_on(host: &Host, dir: &Path, port: u16) -> Self {
        let dir = dir.join(format!("{}-redis-{port}", host.name()));
        std::fs::create_dir_all(&dir).expect("make redis's directory");
        let mut command = host.command("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "0.0.0.0",
            "::",
            "--protected-mode",
            "no",
            "--save",
            "",
        ]);
        command
            .args([
                "--appendonly",
                "no",
                "--enable-debug-command",
                "yes",
                "--daemonize",
                "no",
                "--dir",
            ])
            .arg(&dir);
        let process = Process::start("redis", &dir, &mut command);
        wait_until_listening(host, port);
        Self {
            host: host.clone(),
            process,
        }
    }

    /// A command given on the machine itself, by its loopback: works when the machine is frozen.
    pub fn local(&self, command: &[&str]) -> String {
        self.host
            .output("redis-cli", &[&["-h", "127.0.0.1"], command].concat())
            .trim_end()
            .to_owned()
    }

    /// The digest of all keys and values.
    pub fn digest(&self) -> String {
        self.local(&["DEBUG", "DIGEST"])
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Its process id.
    pub fn pid(&self) -> rustix::process::Pid {
        self.process.pid()
    }

    /// Commands carried out since the start.
    pub fn commands_processed(&self) -> u64 {
        let info = self.local(&["INFO", "stats"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.and_then(|n| n.trim().parse().ok())
            .expect("redis counts its commands")
    }
}

/// nginx with WebDAV's PUT on a machine, port 80.
pub struct Nginx {
    dir: PathBuf,
    process: Process,
}

impl Nginx {
    /// The port.
    pub const PORT: u16 = 80;

    /// Starts it and waits until it listens. Files lie in [`Nginx::root`].
    pub fn start(host: &Host, dir: &Path) -> Self {
        let dir = dir.join(format!("{}-nginx", host.name()));
        for sub in ["root", "body", "tmp"] {
            std::fs::create_dir_all(dir.join(sub)).expect("make nginx's directory");
        }
        let config = dir.join("nginx.conf");
        std::fs::write(&config, Self::config(&dir)).expect("write nginx.conf");
        let mut command = host.command("nginx");
        command
            .arg("-p")
            .arg(&dir)
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-c")
            .arg(&config);
        let process = Process::start("nginx", &dir, &mut command);
        wait_until_listening(host, Self::PORT);
        Self { dir, process }
    }

    /// `daemon off` and `master_process off`: one process, which is the child. What a response says is the same on all machines but for
    /// the date, which has one length.
    fn config(dir: &Path) -> String {
        let dir = dir.display();
        format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {dir}/pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n  \
             access_log off;\n  sendfile on;\n  client_max_body_size 0;\n  client_body_temp_path {dir}/body;\n  \
             proxy_temp_path {dir}/tmp;\n  fastcgi_temp_path {dir}/tmp;\n  uwsgi_temp_path {dir}/tmp;\n  scgi_temp_path {dir}/tmp;\n  \
             server {{\n    listen 80;\n    listen [::]:80;\n    root {dir}/root;\n    dav_methods PUT;\n  }}\n}}\n"
        )
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Where the files lie that it serves and takes.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The file that a PUT in progress is being written to.
    pub fn upload_in_progress(&self) -> Option<PathBuf> {
        let mut files = std::fs::read_dir(self.dir.join("body"))
            .ok()?
            .flatten()
            .map(|entry| entry.path());
        files.find(|path| path.is_file())
    }
}

/// Polls by connecting on the machine itself.
pub fn wait_until_listening(host: &Host, port: u16) {
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    host.enter(|| {
        wait_for(&format!("{}:{port} to listen", host.name()), START, || {
            std::net::TcpStream::connect_timeout(&local, Duration::from_millis(200)).ok()
        });
    });
}

/// The services' addresses on the machines, for the engine's configuration.
pub fn addresses(hosts: &[Host], family: Family, port: u16) -> Vec<SocketAddr> {
    hosts.iter().map(|host| host.addr(family, port)).collect()
}
