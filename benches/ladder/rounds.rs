//! What a bench is, and its rounds: every way once in each, so that the machine's drift meets all alike.

use crate::record::{self, Column, Record, Row, Rows, Sample, Target};
use crate::stage::{CORE, Server, Stage, other_core};
use crate::ways::{self, Way};

/// Or what went wrong, in a sentence.
pub type Result<T> = std::result::Result<T, String>;

/// Rounds, and seconds of each measurement.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// See above.
    pub rounds: u64,
    /// See above.
    pub seconds: u64,
}

/// A bench of the ladder.
pub struct Bench {
    /// As in `WHAT` and in the closing line.
    pub name: &'static str,
    /// Of the record.
    pub title: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Names of the ways that it has.
    pub ways: &'static [&'static str],
    /// The way that ratios are against.
    pub base: &'static str,
    /// What the machines run.
    pub server: Server,
    /// Without `ROUNDS`.
    pub rounds: u64,
    /// What is measured of each way.
    pub columns: &'static [Column],
    /// The ways of the closing line.
    pub shown: &'static [&'static str],
    /// The column whose ratios the closing line has.
    pub main: &'static str,
    /// One measurement of one way.
    pub measure: fn(&Stage, &Way, Length) -> Result<Sample>,
    /// What was to be reached, and what was.
    pub targets: fn(&Rows<'_>) -> Vec<Target>,
    /// More for the record.
    pub beside: fn(&Rows<'_>) -> String,
    /// What a reader must not conclude, beyond what holds for all benches.
    pub not_shown: &'static str,
}

impl Bench {
    /// Runs it. A run of some ways only shows its figures and records none.
    pub fn run(&self, length: Length, chosen: Option<&[String]>) -> anyhow::Result<()> {
        let ways = ways::some(self.ways, chosen);
        if ways.is_empty() {
            println!("{}: none of its ways was chosen", self.name);
            return Ok(());
        }
        announce(self.name, self.what, length, ways.len());
        let mut stage = Stage::open(&ways, self.server, self.base);
        for round in 1..=length.rounds {
            let line = self.round(&mut stage, length)?;
            println!("round {round:2}:{line}");
        }
        let rows = Rows(&stage.rows);
        let closing = record::closing_line(self.name, &rows, self.main, self.shown);
        if chosen.is_some() {
            println!("{}", record::figures(self.columns, &rows, self.base));
            return Ok(());
        }
        Record {
            bench: self.name,
            title: self.title,
            how: how(self.what, length),
            columns: self.columns,
            against: self.base,
            rows,
            targets: (self.targets)(&rows),
            beside: (self.beside)(&rows),
            more: serde_json::Value::Null,
            not_shown: self.not_shown,
            closing,
        }
        .write()
    }

    /// Each way once. A peer that fails has failed for good, which its row says; Relevo and plain routing must not.
    fn round(&self, stage: &mut Stage, length: Length) -> anyhow::Result<String> {
        let mut line = String::new();
        for i in 0..stage.rows.len() {
            let Row { way, absent: None, .. } = stage.rows[i] else {
                continue;
            };
            match (self.measure)(stage, way, length) {
                Ok(sample) => {
                    line += &format!("  {} {:.1}", way.name, sample.get(self.main).unwrap_or(&f64::NAN));
                    stage.rows[i].add(sample);
                }
                Err(error) => {
                    if let Some(engine) = stage.engine(way) {
                        eprintln!("{}\n{:#}", engine.log(), engine.status());
                    }
                    anyhow::ensure!(!way.is_relevo() && way.name != self.base, "{}: {error}", way.name);
                    line += &format!("  {} failed: {error}", way.name);
                    stage.rows[i].absent = Some(format!("failed: {error}"));
                }
            }
        }
        Ok(line)
    }
}

/// Says what is about to be done.
pub fn announce(name: &str, what: &str, Length { rounds, seconds }: Length, ways: usize) {
    println!(
        "{name}: {what}; {rounds} rounds of {seconds} s for each of {ways} ways; client, engine and original on core {CORE}, replicas on core {}",
        other_core()
    );
}

/// The same, for the record.
pub fn how(what: &str, Length { rounds, seconds }: Length) -> String {
    format!(
        "{what}. {rounds} rounds of {seconds} s for each figure of each way, the ways taking turns. Client, engine or proxy, and original on core {CORE}, \
         replicas' services and stacks on core {} (where the names end in s: on core {CORE}).",
        other_core()
    )
}
