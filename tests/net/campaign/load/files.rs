//! Two files by curl, to nginx or from it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::super::plan::Plan;
use super::{Load, per_mille, share};
use crate::lab::pattern::{Pattern, hex};
use crate::lab::process::Process;
use crate::lab::services::Nginx;
use crate::lab::{Host, Lab};

/// Bytes of a file.
const SIZE: u64 = 48 << 20;
/// Files at once.
const FILES: u64 = 2;
/// How long curl may take in all. It gives up by itself after ten seconds without a byte.
const WORK: Duration = Duration::from_secs(120);

/// Which way the files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

pub struct Files {
    way: Way,
    servers: Vec<Nginx>,
    client: Host,
    psc: SocketAddr,
    dir: PathBuf,
    size: u64,
    digests: Vec<String>,
    curls: Vec<Process>,
}

impl Files {
    pub fn prepare(lab: &Lab, plan: &Plan, way: Way) -> Self {
        let servers: Vec<Nginx> = lab
            .machines()
            .iter()
            .map(|host| Nginx::start(host, lab.dir()))
            .collect();
        let size = share(SIZE, plan);
        let mut digests = Vec::new();
        for file in 0..FILES {
            let path = lab.dir().join(name(file));
            digests.push(write_pattern(&path, plan.seed ^ file, size));
            if way == Way::Down {
                for server in &servers {
                    std::fs::hard_link(&path, server.root().join(name(file))).expect("link the file");
                }
            }
        }
        Self {
            way,
            servers,
            client: lab.client().clone(),
            psc: lab.psc(plan.family, Nginx::PORT),
            dir: lab.dir().to_owned(),
            size,
            digests,
            curls: Vec::new(),
        }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.psc)
    }

    fn got(&self, file: u64) -> PathBuf {
        self.dir.join(format!("got-{file}"))
    }
}

impl Load for Files {
    fn port(&self) -> u16 {
        Nginx::PORT
    }

    fn begin(&mut self) {
        for file in 0..FILES {
            let mut curl = self.client.command("curl");
            curl.args([
                "-sS",
                "-g",
                "--fail",
                "--connect-timeout",
                "10",
                "--speed-time",
                "10",
                "--speed-limit",
                "1",
            ]);
            match self.way {
                Way::Up => curl.arg("-T").arg(self.dir.join(name(file))),
                Way::Down => curl.arg("-o").arg(self.got(file)),
            };
            curl.arg(self.url(&name(file)));
            self.curls
                .push(Process::start(&format!("curl-{file}"), &self.dir, &mut curl));
        }
    }

    fn progress(&self) -> u64 {
        let done = match self.way {
            // What the original has written, to its temporary files or to their last place.
            Way::Up => {
                let root = self.servers[0].root();
                size_of_all(&root.with_file_name("body")) + size_of_all(&root)
            }
            Way::Down => (0..FILES).map(|file| size_of(&self.got(file))).sum(),
        };
        per_mille(done, FILES * self.size)
    }

    fn finish(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, mut curl) in (0..).zip(std::mem::take(&mut self.curls)) {
            match curl.wait_up_to(WORK) {
                Some(status) if status.success() => (),
                status => wrong.push(format!("curl of file {file}: {status:?}: {}", curl.log().trim_end())),
            }
            if self.way == Way::Down {
                let digest = digest_of(&self.got(file));
                if digest != self.digests[usize::try_from(file).expect("few")] {
                    wrong.push(format!(
                        "file {file}: {} bytes, not the server's",
                        size_of(&self.got(file))
                    ));
                }
            }
        }
        wrong
    }

    fn held_by(&self, machine: usize) -> Result<String, String> {
        if self.way == Way::Down {
            return Ok(String::new());
        }
        for (file, wanted) in (0..).zip(&self.digests) {
            let path = self.servers[machine].root().join(name(file));
            if digest_of(&path) != *wanted {
                return Err(format!("{}: {} bytes, not the client's", name(file), size_of(&path)));
            }
        }
        Ok(self.digests.join(" "))
    }

    fn knock(&self) -> Result<(), String> {
        let mut curl = self.client.command("curl");
        curl.args(["-sS", "-g", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}"]);
        let output = curl.arg(self.url("none")).output().map_err(|e| e.to_string())?;
        match String::from_utf8_lossy(&output.stdout).as_ref() {
            "404" => Ok(()),
            other => Err(format!("GET: {other} {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn signal(&self, machine: usize, signal: Signal) {
        self.servers[machine].signal(signal);
    }
}

fn name(file: u64) -> String {
    format!("file-{file}")
}

/// Writes the file and returns its SHA-256.
pub fn write_pattern(path: &Path, seed: u64, len: u64) -> String {
    let mut bytes = vec![0; usize::try_from(len).expect("fits into memory")];
    Pattern::new(seed).fill(&mut bytes);
    std::fs::write(path, &bytes).expect("write the file");
    hash(&bytes)
}

/// The file's SHA-256, or why there is none.
pub fn digest_of(path: &Path) -> String {
    std::fs::read(path).map_or_else(|e| e.to_string(), |bytes| hash(&bytes))
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn size_of_all(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.map(|entry| size_of(&entry.path())).sum()
}
