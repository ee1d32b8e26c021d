//! Where and when something was measured, and the files that keep it: what every record in `bench-results` says of itself.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

/// Day, program, kernel and processor.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Year, month and day of the local clock.
    pub date: String,
    /// Git's short name of the commit; ends in `-changed` if the program is another than that.
    pub commit: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Model and number of cores.
    pub processor: String,
}

impl Surroundings {
    /// Asks date, git, uname and /proc/cpuinfo.
    pub fn read() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = line
            .and_then(|line| line.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim());
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        // What is recorded does not make another program of it.
        let changed = printed(
            "git",
            &[
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                ".",
                ":!bench-results",
            ],
        );
        let commit = printed("git", &["rev-parse", "--short=10", "HEAD"]);
        Self {
            date: printed("date", &["+%Y-%m-%d"]),
            commit: format!(
                "{}{}",
                if commit.is_empty() { "unknown" } else { &commit },
                if changed.is_empty() { "" } else { "-changed" }
            ),
            kernel: printed("uname", &["-r"]),
            processor: format!("{model}, {cores} cores"),
        }
    }

    /// `bench-results/<name>-<date>-<commit>.<extension>`; the directory is made.
    pub fn file(&self, name: &str, extension: &str) -> std::io::Result<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-results");
        std::fs::create_dir_all(&dir)?;
        Ok(dir.join(format!("{name}-{}-{}.{extension}", self.date, self.commit)))
    }

    /// The first line of a record.
    pub fn title(&self, what: &str) -> String {
        format!("# {what}, {}, commit {}", self.date, self.commit)
    }
}

/// Kernel and processor, as a record's second paragraph begins.
impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel {}; processor {}.", self.kernel, self.processor)
    }
}

/// The lines of one day and commit (JSON), to which every run adds.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Goes on with `bench-results/<name>-<date>-<commit>.jsonl`, or begins it.
    pub fn open(surroundings: &Surroundings, name: &str) -> anyhow::Result<Self> {
        let path = surroundings.file(name, "jsonl").context("make bench-results")?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a line.
    pub fn add(&mut self, line: &Value) -> anyhow::Result<()> {
        // At once: a run that is killed leaves a line, or none.
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .context("write the record")
    }

    /// All lines of all runs. What a run that was killed has left half written is none.
    pub fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.path).context("read the record")?;
        Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
    }
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}
