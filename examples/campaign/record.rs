//! What a campaign has shown, for the next reader: a line for each run, and the table made of the lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::campaign::death::{Death, Summary};
use crate::campaign::plan::{MASKED, Plan};
use crate::campaign::run::Outcome;
use crate::lab::surroundings::{Journal, Surroundings};

/// What a reader must not conclude.
const NOT_SHOWN: &str = "Namespaces on one small machine with veth links: nothing about real network cards and switches, or about more \
traffic than two cores make. One fault at a time (a bad link with one freeze at most). Two faults at once, the death of a second machine, and \
long runs are not tried here. The seed draws the run again, but kernels don't replay exactly. Downloads are compared at the client only: \
what a replica's nginx has said is not kept. The longest pause is of the client's slowest connection by its capture, the start of the connection included; \
captures and the relays take their share of the two cores, so the pauses are longer than without them.";

/// The record of one day and commit.
pub struct Record {
    surroundings: Surroundings,
    journal: Journal,
}

impl Record {
    /// Goes on with the day's record, or begins it.
    pub fn open(name: &str) -> Result<Self> {
        let surroundings = Surroundings::read();
        let journal = Journal::open(&surroundings, name)?;
        Ok(Self { surroundings, journal })
    }

    /// Notes a run.
    pub fn add(&mut self, plan: &Plan, outcome: &Outcome) -> Result<()> {
        self.journal.add(&outcome.to_json(plan))
    }

    /// Makes the table of all lines; returns it.
    pub fn write_table(&self) -> Result<String> {
        let lines = self.journal.lines()?;
        let seeds: Vec<u64> = lines.iter().filter_map(|l| l["seed"].as_u64()).collect();
        let (first, last) = (seeds.iter().min().unwrap_or(&0), seeds.iter().max().unwrap_or(&0));
        let table = table(&lines);
        let markdown = format!(
            "{}\n\n{} {} runs, seeds {first} to {last}.\n\n{table}\n\
             What it does not show: {NOT_SHOWN}\n\n    {}\n",
            self.surroundings.title("Fault campaign"),
            self.surroundings,
            seeds.len(),
            closing(&lines)
        );
        let path = self.journal.path().with_extension("md");
        std::fs::write(&path, markdown).with_context(|| format!("write {}", path.display()))?;
        Ok(table)
    }
}

/// `campaign: N runs, L lost, R reset` over all lines of masked faults.
fn closing(lines: &[Value]) -> String {
    let row = Row::of(lines.iter());
    let unbalanced = match row.unbalanced {
        0 => String::new(),
        n => format!(", {n} unbalanced"),
    };
    format!(
        "campaign: {} runs, {} lost, {} reset{unbalanced}",
        row.runs, row.lost, row.reset
    )
}

/// The runs with one fault.
#[derive(Default)]
struct Row {
    runs: u64,
    taken_over: u64,
    late: u64,
    queue_lost: u64,
    pauses: Vec<f64>,
    lost: u64,
    reset: u64,
    unbalanced: u64,
}

impl Row {
    fn of<'a>(lines: impl Iterator<Item = &'a Value>) -> Self {
        let mut row = Self::default();
        for line in lines {
            let more = |name: &str| u64::from(line[name].as_u64().unwrap_or(0) > 0);
            let some = |name: &str| u64::from(line[name].as_array().is_some_and(|list| !list.is_empty()));
            row.runs += 1;
            row.taken_over += more("takeovers");
            row.late += u64::from(line["late"] == true);
            row.queue_lost += more("queue_lost");
            row.pauses.extend(line["pause_ms"].as_f64());
            row.lost += some("lost");
            row.reset += more("resets");
            row.unbalanced += some("books");
        }
        row.pauses.sort_by(f64::total_cmp);
        row
    }

    fn write(&self, name: &str, text: &mut String) {
        let Self {
            runs,
            taken_over,
            late,
            queue_lost,
            pauses,
            lost,
            reset,
            unbalanced,
        } = self;
        let pause = |at: usize| pauses.get(at).copied().unwrap_or(0.0);
        let (median, longest) = (pause(pauses.len() / 2), pause(pauses.len().saturating_sub(1)));
        let _ = writeln!(
            text,
            "| {name} | {runs} | {taken_over} | {late} | {queue_lost} | {median:.0} | {longest:.0} | {lost} | {reset} | {unbalanced} |"
        );
    }
}

fn table(lines: &[Value]) -> String {
    let mut faults: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for line in lines {
        faults
            .entry(line["fault"].as_str().unwrap_or_default().to_owned())
            .or_default()
            .push(line);
    }
    let mut text = String::from(
        "| fault | runs | with takeover | too late | with loss in the queues | longest pause, median, ms | longest pause, ms | lost | reset | unbalanced |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut rows = |faults_in_order: &[String], text: &mut String| {
        for name in faults_in_order {
            if let Some(lines) = faults.remove(name) {
                Row::of(lines.into_iter()).write(name, text);
            }
        }
    };
    let masked: Vec<String> = MASKED.iter().map(ToString::to_string).collect();
    rows(&masked, &mut text);
    let all = Row::of(lines.iter());
    all.write("**all of these**", &mut text);
    text
}

/// Writes the record of a campaign of engine deaths.
pub fn write_deaths(deaths: &[Death], summary: &Summary, seed: u64) -> Result<()> {
    let surroundings = Surroundings::read();
    let path = surroundings
        .file("campaign-death", "md")
        .context("make bench-results")?;
    let mut text = format!(
        "{}\n\n{surroundings} SEED={seed}, {} deaths (SIGKILL) under load, each followed by a new engine.\n\n{}\n",
        surroundings.title("Engine deaths"),
        deaths.len(),
        summary.markdown()
    );
    for wrong in deaths.iter().filter(|death| !death.wrong.is_empty()) {
        let _ = writeln!(text, "- {wrong}");
    }
    let _ = write!(text, "\nWhat it does not show: {}\n", crate::campaign::death::NOT_SHOWN);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
