//! How the workers' threads run: pinned, before others, looking for packets without sleeping; and what is said where that can't be had.

use serde_json::Value;

use crate::lab::Family;
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, freeze};
use crate::lab::peers::Client;
use crate::lab::wait_for;
use crate::turn;

/// SCHED_RR, sched(7).
const ROUND_ROBIN: &str = "2";

/// The other processor, if there is one.
fn another() -> usize {
    usize::from(std::thread::available_parallelism().is_ok_and(|n| n.get() > 1))
}

/// A thread of the engine's comes to run so: on these processors, with this real-time priority, in this class. A thread names and places itself, soon
/// after the engine is ready.
fn comes_to_run(engine: &Engine, name: &str, wanted: [&str; 3]) {
    let mut seen = None;
    let what = format!("{name} to run as {wanted:?}");
    wait_for(&what, PATIENCE, || {
        let has = thread(engine, name);
        let arrived = has.as_ref().is_some_and(|has| *has == wanted);
        if !arrived && seen != has {
            println!("{name}: {has:?}");
            seen = has;
        }
        arrived.then_some(())
    });
}

/// What proc(5) says of a thread of the engine's: where it may run, its real-time priority, its class.
fn thread(engine: &Engine, name: &str) -> Option<[String; 3]> {
    let tasks = format!("/proc/{}/task", engine.pid().as_raw_nonzero());
    let tasks = std::fs::read_dir(&tasks).expect("list the engine's threads");
    let read = |task: &std::fs::DirEntry, file| std::fs::read_to_string(task.path().join(file)).expect("read proc");
    let task = tasks.flatten().find(|task| read(task, "comm").trim() == name)?;
    let status = read(&task, "status");
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let stat = read(&task, "stat");
    // Fields 40 and 41; the third is the first behind the name.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default().to_owned();
    Some([cpus.unwrap_or_default().trim().to_owned(), field(40), field(41)])
}

fn queue(engine: &Engine, number: usize) -> Value {
    engine.status()["queues"][number].clone()
}

#[test]
fn workers_run_where_and_as_they_are_told_and_fail_over() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let lines = format!(
        "worker_cpus = [{}, 0]\nrealtime_priority = 3\nbusy_poll = \"50us\"",
        another()
    );
    // On so few processors that nothing is left for others, which it says.
    let by = ["taskset", "-c", if another() > 0 { "0,1" } else { "0" }];
    let engine = Engine::start_with_by(&cluster.lab, &lines, &[cluster.config(Family::V4)], &by);
    assert!(
        engine
            .log()
            .contains("busy_poll with realtime_priority: nobody else runs")
    );
    for (number, cpu) in [another(), 0].into_iter().enumerate() {
        comes_to_run(
            &engine,
            &format!("relevo-{number}"),
            [&*cpu.to_string(), "3", ROUND_ROBIN],
        );
        let said = queue(&engine, number);
        assert_eq!(said["cpus"], cpu.to_string(), "{said:#}");
        assert_eq!(said["realtime_priority"], 3, "{said:#}");
    }
    let coordinator = thread(&engine, "relevo-coord").expect("it has answered");
    assert_eq!(coordinator[1..], ["0", "0"], "no other thread");

    let psc = cluster.lab.psc(Family::V4, PORT);
    let client = || Client::connect(psc, PATIENCE).expect("connect");
    cluster.lab.client().enter(|| {
        client().upload(1, 16 * MIB, |_| ()).expect("upload");
        let halfway = |round| {
            if round == 20 {
                freeze(cluster.lab.machine(0), Freeze::LinkDown);
            }
        };
        client().talk(2, 40, halfway).expect("talk");
        client().download(3, 16 * MIB, |_| ()).expect("download");
    });
    let orders = [
        "PUT 1".to_owned(),
        "TALK 2 40".to_owned(),
        format!("GET 3 {}", 16 * MIB),
    ];
    cluster.assert_identical(&[1, 2], &orders);
    cluster.assert_no_resets();
    assert_eq!(engine.original(), "m1");
    let found = [0, 1].map(|number| queue(&engine, number)["busy_polls"].as_u64().unwrap_or(0));
    assert!(found.iter().sum::<u64>() > 0, "no packet was found by looking for it");
}

#[test]
fn unless_told_workers_run_as_everybody_does() {
    let _turn = turn();
    let cluster = Cluster::new(1);
    let engine = cluster.engine(Family::V4, &[]);
    let own = std::fs::read_to_string("/proc/self/status").expect("read proc");
    let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    comes_to_run(&engine, "relevo-1", [own.unwrap_or_default().trim(), "0", "0"]);
    assert_eq!(queue(&engine, 1)["realtime_priority"], 0);
}

#[test]
fn what_cannot_be_had_is_told_and_gone_without() {
    let _turn = turn();
    let cluster = Cluster::new(2);
    let lines = "worker_cpus = [1023, 0]\nrealtime_priority = 1";
    let without = ["setpriv", "--bounding-set", "-sys_nice"];
    let engine = Engine::start_with_by(&cluster.lab, lines, &[cluster.config(Family::V4)], &without);
    let psc = cluster.lab.psc(Family::V4, PORT);
    cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        client.talk(1, 10, |_| ()).expect("talk");
    });
    cluster.assert_identical(&[0, 1], &["TALK 1 10".to_owned()]);
    let log = engine.log();
    for part in [
        "queue 0: worker_cpus: this process can't run on processor 1023",
        "queue 1: realtime_priority: 1 can't be had",
        "it takes CAP_SYS_NICE",
    ] {
        assert!(log.contains(part), "{part:?} is not in the log");
    }
    let doctor = engine.command(&["doctor"]).stdout;
    let doctor = String::from_utf8_lossy(&doctor);
    assert!(
        doctor.contains("note  worker_cpus: this process can't run on processor 1023"),
        "{doctor}"
    );
}
