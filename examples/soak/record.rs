//! The soak's files in `bench-results`: every second as it comes, and what it was at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::arguments::beside;
use crate::lab::surroundings::Surroundings;
use crate::plot;
use crate::soak::sample::Sample;
use crate::soak::{Outcome, Pieces, Plan};

/// What a reader must not conclude.
const NOT_SHOWN: &str = "Namespaces on one small machine with veth links: nothing about real network cards and switches, or about more traffic than \
two cores make. The clients pace themselves, and connections last seconds (idle ones twelve), since machines join for new connections only: a connection \
of hours through many faults is not tried. One fault at a time; hang and crash of a service, and the engine's own death, are the campaigns' matter. \
What a machine holds is asked only if it was in service all the time; one that comes back is emptied first, as nobody else copies to it what it has missed. \
Memory is resident memory, so what the allocator keeps of a peak counts as used. Minutes are no weeks.";

/// Columns of the record that say how much there was.
const TOTALS: [&str; 14] = [
    "packets_in",
    "originated",
    "flows_opened",
    "legs_opened",
    "takeovers",
    "flows_lost",
    "legs_evicted",
    "legs_ineligible",
    "legs_refused",
    "legs_reset",
    "retransmissions",
    "timeouts",
    "queue_dropped",
    "user_dropped",
];

/// The files of one soak.
pub struct Record {
    surroundings: Surroundings,
    csv: PathBuf,
    file: File,
}

impl Record {
    /// Begins the CSV.
    pub fn open() -> Result<Self> {
        let surroundings = Surroundings::read();
        let csv = surroundings.file("soak", "csv").context("make bench-results")?;
        let mut file = File::create(&csv).with_context(|| format!("make {}", csv.display()))?;
        writeln!(file, "{}", Sample::header()).context("write the record")?;
        Ok(Self {
            surroundings,
            csv,
            file,
        })
    }

    /// Adds a second.
    pub fn add(&mut self, sample: &Sample) -> Result<()> {
        writeln!(self.file, "{}", sample.row()).context("write the record")
    }

    /// Writes the plot and the record.
    pub fn finish(self, plan: &Plan, outcome: &Outcome) -> Result<()> {
        let (svg, md) = (self.csv.with_extension("svg"), self.csv.with_extension("md"));
        if outcome.samples.len() > 1 {
            plot::draw(&svg, outcome).with_context(|| format!("draw {}", svg.display()))?;
        }
        let name = |path: &PathBuf| {
            path.file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let text = format!(
            "{}\n\n{} SEED={}, a fault every {} s. Beside it, on the same cores: {}\n\n![{}]({})\n\n{}\n{}\n{}\n\
             Every second: [{csv}]({csv}). What it does not show: {NOT_SHOWN}\n\n    {outcome}\n",
            self.surroundings.title("Soak"),
            self.surroundings,
            plan.seed,
            plan.cycle.as_secs(),
            beside(),
            "Memory, processor time, flows and packets over time; grey lines are faults",
            name(&svg),
            faults(outcome),
            totals(outcome),
            wrong(outcome),
            csv = name(&self.csv),
        );
        std::fs::write(&md, text).with_context(|| format!("write {}", md.display()))?;
        println!("written: {} and .csv, .svg", md.display());
        Ok(())
    }
}

/// How many there were of each fault, and how long until all machines were in service again.
fn faults(outcome: &Outcome) -> String {
    let mut rows: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for strike in &outcome.strikes {
        rows.entry(format!("{:?}", strike.trouble))
            .or_default()
            .push(strike.took);
    }
    let mut text = "| fault | times | from its begin until all machines were in service again, median | longest |\n|---|---|---|---|\n".to_owned();
    for (name, mut took) in rows {
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        let (median, longest) = (median.as_secs_f64(), longest.as_secs_f64());
        let _ = writeln!(text, "| {name} | {} | {median:.1} s | {longest:.1} s |", took.len());
    }
    text
}

fn totals(outcome: &Outcome) -> String {
    let Some(last) = outcome.samples.last() else {
        return String::new();
    };
    let Pieces {
        done,
        held,
        nobody,
        nothing,
    } = outcome.pieces;
    let loaded = outcome.samples.iter().take(outcome.samples.len() - 1);
    let mean = loaded.clone().map(|s| s.cpu).sum::<f64>() / loaded.len().max(1) as f64;
    let flows = loaded.map(|s| s.flows).max().unwrap_or(0);
    let mut text = format!(
        "{done} pieces of work by the clients: {held} found on every machine that was in service all the time; for {nobody} there was no such machine; \
         {nothing} (downloads) leave nothing there to ask for. {flows} flows at most at once; the daemon took \
         {mean:.0} % of a core on average. Its memory was {} KiB at the start, {} KiB at \
         most, {} KiB when all connections were forgotten. The bound is {} KiB more than in the first {} s, by the medians.\n\n| counter | at the end |\n|---|---|\n",
        outcome.at_start_kib,
        outcome.samples.iter().map(|s| s.rss_kib).max().unwrap_or(0),
        last.rss_kib,
        outcome.slack_kib(),
        outcome.warm_up.as_secs(),
    );
    for name in TOTALS {
        let _ = writeln!(text, "| `{name}` | {} |", last.counter(name));
    }
    let _ = writeln!(text, "| drops of all reasons | {} |", last.drops);
    let _ = writeln!(text, "| open descriptors | {} |", last.descriptors);
    text
}

fn wrong(outcome: &Outcome) -> String {
    let mut text = String::new();
    for wrong in outcome.lost.1.iter().chain(&outcome.books) {
        let _ = writeln!(text, "- WRONG: {}", wrong.chars().take(600).collect::<String>());
    }
    text
}
