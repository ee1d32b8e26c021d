//! PostgreSQL behind a PSC: each machine gives a session a key of its own for cancelling it, of the same length on all (R17), and what a
//! client says before it has the last answer ends the session (R23). Not in `make test`, which does not install PostgreSQL:
//! `apt-get install postgresql`, then `cargo test --test net -- --ignored postgres`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::lab::cluster::PATIENCE;
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Freeze, freeze};
use crate::lab::netns::Host;
use crate::lab::process::Process;
use crate::lab::services::{addresses, wait_until_listening};
use crate::lab::{Family, Lab, counters, wait_for};
use crate::turn;

const PORT: u16 = 5432;
/// Who runs the servers: PostgreSQL refuses to run as root.
const USER: &str = "postgres";

/// Where Debian puts the server's programs.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (apt-get install postgresql)");
    let newest = versions.flatten().map(|entry| entry.path().join("bin")).max();
    newest.expect("a version of PostgreSQL")
}

fn run(command: &mut Command) {
    let output = command.output().expect("start a program");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The same fresh database for each machine; clients are trusted.
fn databases(dir: &Path, machines: usize) -> Vec<PathBuf> {
    run(Command::new("chown").arg(USER).arg(dir));
    let first = dir.join("m0");
    run(Command::new("runuser")
        .args(["-u", USER, "--"])
        .arg(programs().join("initdb"))
        .args(["-A", "trust", "-D"])
        .arg(&first));
    let hba = std::fs::OpenOptions::new().append(true).open(first.join("pg_hba.conf"));
    writeln!(hba.expect("open pg_hba.conf"), "host all all 0.0.0.0/0 trust").expect("write pg_hba.conf");
    let all: Vec<PathBuf> = (0..machines).map(|m| dir.join(format!("m{m}"))).collect();
    for copy in &all[1..] {
        run(Command::new("cp").arg("-a").arg(&first).arg(copy));
    }
    all
}

fn serve(host: &Host, log: &Path, data: &Path) -> Process {
    let mut command = host.command("runuser");
    command.args(["-u", USER, "--"]).arg(programs().join("postgres"));
    command.args([
        "-c",
        "listen_addresses=*",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
        "-D",
    ]);
    command.arg(data);
    let process = Process::start("postgres", log, &mut command);
    wait_until_listening(host, PORT);
    process
}

/// A psql session that is told a statement at a time.
struct Session {
    child: Child,
    stdin: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(host: &Host, server: &str) -> Self {
        let mut command = host.command("psql");
        command.args([
            "-h",
            server,
            "-U",
            USER,
            "-d",
            "postgres",
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start psql");
        Self {
            stdin: child.stdin.take().expect("piped"),
            answers: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// The one line that a statement is answered with.
    fn ask(&mut self, statement: &str) -> String {
        writeln!(self.stdin, "{statement}").expect("tell psql");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read psql's answer");
        line.trim_end().to_owned()
    }

    fn close(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().expect("wait for psql").success(), "psql failed");
    }
}

#[test]
#[ignore = "needs PostgreSQL: apt-get install postgresql"]
fn a_session_of_postgresql_goes_on_and_its_key_is_told_as_a_difference() {
    let _turn = turn();
    let lab = Lab::new(3);
    let dir = tempfile::tempdir().expect("make a directory");
    let databases = databases(dir.path(), 3);
    let logs: Vec<PathBuf> = (0..3).map(|m| lab.dir().join(format!("postgres-m{m}"))).collect();
    let _servers: Vec<Process> = (0..3)
        .map(|m| {
            std::fs::create_dir_all(&logs[m]).expect("make a directory");
            serve(lab.machine(m), &logs[m], &databases[m])
        })
        .collect();
    let psc = lab.psc(Family::V4, PORT);
    let machines = addresses(lab.machines(), Family::V4, PORT);
    let engine = Engine::start(&lab, &[ServiceConfig::new("db", psc, &machines)]);

    let mut session = Session::open(lab.client(), &psc.ip().to_string());
    assert_eq!(
        session.ask("begin; create table t (n int); insert into t values (1), (2), (3); commit; select sum(n) from t;"),
        "6"
    );
    // Both replicas' keys differ from the one that the client was given; they are of the same length.
    wait_for("both keys to be told", PATIENCE, || {
        (engine.counter("legs_diverged") >= 2).then_some(())
    });
    assert_eq!(engine.counter("lengths_diverged"), 0);
    assert_eq!(engine.counter("legs_ineligible"), 0);

    freeze(lab.machine(0), Freeze::Mute);
    assert_eq!(session.ask("insert into t values (4); select sum(n) from t;"), "10");
    assert_eq!(engine.original(), "m1");
    session.close();
    for m in [1, 2] {
        let mut local = Session::open(lab.machine(m), "127.0.0.1");
        wait_for("the replica to have it all", PATIENCE, || {
            (local.ask("select sum(n) from t;") == "10").then_some(())
        });
        local.close();
    }
    assert_eq!(engine.counter("flows_lost"), 0);
    assert_eq!(counters::resets_seen(lab.client()), 0);
}
