//! What the bench has shown: a line for each takeover, removal and calm run, and the tables made of the lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::calm::Trouble;
use crate::lab::capture::Segment;
use crate::lab::quantile::quantile;
use crate::lab::surroundings::{Journal, Surroundings};
use crate::sight::{self, Sight};
use crate::stage::{Death, Kind};

/// Thesis, table 5.6: milliseconds with one, two, three replicas.
pub const THESIS_SWITCH_MS: [f64; 3] = [5.05, 5.07, 5.64];
/// Thesis, section 5.3.7: the worst removal of a replica, in microseconds.
pub const THESIS_REMOVAL_US: f64 = 3.526;
/// The sizes of the crowd.
pub const SIZES: [usize; 3] = [1, 100, 10_000];

/// What a reader must not conclude.
const NOT_SHOWN: &str = "Namespaces on one small machine with veth links: clients, engine, four machines and the capture share two cores, and a wake-up across \
them takes some 50 µs; nothing about real network cards, switches or longer ways. Kills come one after another, never two at once. The many flows are paced (each asks every \
40 ms with 100, every 3.8 s with 10,000), so most of ten thousand have nothing under way when the machine dies: what they are owed is an acknowledgement. The gap is that of the \
whole crowd: from the old original's last byte to anybody on to the first of anybody else to anybody; how long single requests waited is in its own column. A machine's packets are told \
apart by their time to live, which each begins with a number of its own. The thesis measured other machines, another network and flows of its own; its figures stand beside ours, \
not against them.";

/// The record of one day and commit.
pub struct Record {
    surroundings: Surroundings,
    journal: Journal,
}

impl Record {
    /// Goes on with the day's record, or begins it.
    pub fn open() -> Result<Self> {
        let surroundings = Surroundings::read();
        let journal = Journal::open(&surroundings, "failover")?;
        Ok(Self { surroundings, journal })
    }

    /// Notes a line.
    pub fn add(&mut self, line: &Value) -> Result<()> {
        self.journal.add(line)
    }

    /// Makes tables and plot of all lines of the record; returns the closing line and whether all was well.
    pub fn finish(&self, beside: &str) -> Result<(String, bool)> {
        let all = Lines(self.journal.lines()?);
        let (closing, good) = all.closing();
        let path = self.journal.path();
        let (md, svg) = (path.with_extension("md"), path.with_extension("svg"));
        crate::plot::draw(&svg, &all).with_context(|| format!("draw {}", svg.display()))?;
        let name = |path: &Path| {
            path.file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let markdown = format!(
            "{}\n\n{} Beside it, on the same cores: {beside}\n\n{}\n![Gap and switch by kind of failure]({})\n\n{}\n{}{}\n{}\nEvery line: [{jsonl}]({jsonl}). \
             What it does not show: {NOT_SHOWN}\n\n    {closing}\n",
            self.surroundings.title("Failover"),
            self.surroundings,
            all.deaths(),
            name(&svg),
            all.by_replicas(),
            all.floor(),
            all.removals(),
            all.calm(),
            jsonl = name(path),
        );
        std::fs::write(&md, markdown).with_context(|| format!("write {}", md.display()))?;
        println!("written: {} and .jsonl, .svg", md.display());
        Ok((closing, good))
    }
}

/// All lines of a record.
pub struct Lines(Vec<Value>);

impl Lines {
    fn of(&self, what: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line["what"] == what)
    }

    /// The deaths that a filter picks: of one kind, or of all.
    pub fn picked(&self, kind: Option<Kind>, replicas: Option<usize>, flows: Option<usize>) -> Vec<&Value> {
        let is = |line: &Value, kind: Kind| line["kind"] == kind.name();
        self.of("death")
            .filter(|l| kind.is_none_or(|k| is(l, k)))
            .filter(|l| replicas.is_none_or(|r| l["replicas"] == r))
            .filter(|l| flows.is_none_or(|f| l["flows"] == f))
            .collect()
    }

    fn deaths(&self) -> String {
        let mut text = String::from(
            "Times in milliseconds, p50 / p99 / greatest. *Detection*: from the first suspicion to the decision. *Switch*: from the decision until every flow had \
             its new original and the first packet in its name was out (the thesis's definition). *Heard*: from the decision to the first byte of another machine at the client. *All sent*: until the last packet that the takeover owes was out. \
             *Gap*: from the last byte of the old original to the first of another machine at the client. *Asked*: that part of the gap in which a request was under way; before it, nobody \
             waited. *Wait*: the request that waited longest, in each takeover, of those asked before that first byte; *worst*: of those asked until the next death.\n\n\
             | failure | replicas | flows | takeovers | not noticed | detection | switch | heard | all sent | gap | asked | wait | worst | lost | resets |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for kind in Kind::ALL {
            self.rows(kind, kind.name(), &mut text);
        }
        let _ = writeln!(text, "| **all of these** | | {}", cells(&self.picked(None, None, None)));
        text.push('\n');
        for kind in Kind::ALL {
            let _ = writeln!(text, "- {}", kind.what());
        }
        text
    }

    /// The rows of a kind of failure.
    fn rows(&self, kind: Kind, name: &str, text: &mut String) {
        for replicas in 1..=3 {
            for flows in SIZES {
                let lines = self.picked(Some(kind), Some(replicas), Some(flows));
                if !lines.is_empty() {
                    let _ = writeln!(text, "| {name} | {replicas} | {flows} {}", cells(&lines));
                }
            }
        }
    }

    fn by_replicas(&self) -> String {
        let mut text = String::from(
            "| replicas | thesis, table 5.6, mean | switch here, 1 flow, mean | 100 flows | 10,000 flows |\n|---|---|---|---|---|\n",
        );
        for (replicas, thesis) in (1..).zip(THESIS_SWITCH_MS) {
            let mean = |flows| {
                let values = redirects(&self.picked(None, Some(replicas), Some(flows)), 1e3);
                if values.is_empty() {
                    return "none".to_owned();
                }
                format!("{:.3} ms", values.iter().sum::<f64>() / values.len() as f64)
            };
            let [one, hundred, many] = SIZES.map(mean);
            let _ = writeln!(text, "| {replicas} | {thesis} ms | {one} | {hundred} | {many} |");
        }
        let one = self.picked(None, None, Some(SIZES[0]));
        let _ = writeln!(
            text,
            "\nOne connection, milliseconds from the decision, p50 / p99 / greatest: until the kernel had returned from sending the first packet (switch) {}; until the first packet, with or \
             without a byte, was at the client's interface {}; until a byte of another machine was (heard) {}.",
            figures(&redirects(&one, 1e3), 3),
            figures(&ms(&one, "arrived_us", 1e3), 3),
            figures(&ms(&one, "heard_us", 1e3), 3)
        );
        text
    }

    fn floor(&self) -> String {
        let mut text = String::new();
        for flows in SIZES {
            let lines: Vec<&Value> = self.of("floor").filter(|l| l["flows"] == flows).collect();
            if !lines.is_empty() {
                let _ = writeln!(
                    text,
                    "Without Relevo, by plain routing, a killed process's {flows} connections end at the client so many milliseconds after the kill ({} kills): the first {}, the last {}.\n",
                    lines.len(),
                    figures(&ms(&lines, "first_ms", 1.0), 1),
                    figures(&ms(&lines, "last_ms", 1.0), 1),
                );
            }
        }
        text
    }

    fn removals(&self) -> String {
        // Of the greatest crowd only, as the table says; what few flows share is another figure.
        let most = |line: &&Value| line["flows"].as_u64() > Some(SIZES[2] as u64 * 9 / 10);
        let us = |what| sorted(self.of(what).filter(most).filter_map(|l| l["us_a_flow"].as_f64()));
        let (real, alone) = (us("removal"), us("engine-removal"));
        let mut text = format!(
            "Removal of a replica from 10,000 flows, microseconds a flow, p50 / p99 / greatest: {} in the running daemon, from the decision until the last worker had sent what \
             follows ({} removals); {} in the engine alone, on one core. The thesis (5.3.7) has {THESIS_REMOVAL_US} for one connection.\n\n",
            figures(&real, 2),
            real.len(),
            figures(&alone, 2),
        );
        let _ = writeln!(
            text,
            "The engine alone, one shard on one core, every flow with an answer of the replicas to be sent: \n\n\
             | replicas | flows | switch pass, ms | all packets made, ms |\n|---|---|---|---|"
        );
        let mut cells: BTreeMap<(u64, u64), Vec<&Value>> = BTreeMap::new();
        for line in self.of("engine-takeover") {
            let number = |name: &str| line[name].as_u64().unwrap_or(0);
            cells
                .entry((number("replicas"), number("flows")))
                .or_default()
                .push(line);
        }
        for ((replicas, flows), lines) in cells {
            let _ = writeln!(
                text,
                "| {replicas} | {flows} | {} | {} |",
                figures(&ms(&lines, "pass_us", 1e3), 3),
                figures(&ms(&lines, "made_us", 1e3), 3)
            );
        }
        text
    }

    fn calm(&self) -> String {
        let mut text = String::from(
            "| must not fail over | runs | false takeovers | replicas taken out | lost | resets |\n|---|---|---|---|---|---|\n",
        );
        for trouble in Trouble::ALL {
            let lines: Vec<&Value> = self.of("calm").filter(|l| l["trouble"] == trouble.name()).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                trouble.what(),
                lines.len(),
                sum(&lines, "false"),
                sum(&lines, "evicted"),
                sum(&lines, "lost"),
                sum(&lines, "resets")
            );
        }
        text
    }

    /// The closing line, and whether nothing was lost, reset or taken over without need.
    fn closing(&self) -> (String, bool) {
        let deaths = self.picked(None, None, None);
        let calm: Vec<&Value> = self.of("calm").collect();
        let all: Vec<&Value> = deaths.iter().chain(&calm).copied().collect();
        let (lost, reset, wrong) = (sum(&all, "lost"), sum(&all, "resets"), sum(&calm, "false"));
        let taken = deaths.iter().filter(|l| l["noticed"] == true).count();
        let switch = most(&redirects(&deaths, 1.0), 0);
        // A hang is seen only where `hang` is set: its gap is that setting's, and says nothing of the defaults.
        let hung = |line: &&&Value| line["kind"] == Kind::Hung.name();
        let (hung, others): (Vec<&Value>, Vec<&Value>) = deaths.iter().partition(|line| hung(line));
        let [gap, hung] = [others, hung].map(|lines| most(&ms(&lines, "gap_ms", 1.0), 1));
        let line = format!(
            "failover: runs={taken} lost={lost} reset={reset} false={wrong} switch_p99_us={switch} gap_p99_ms={gap} hung_gap_p99_ms={hung}"
        );
        (line, lost + reset + wrong == 0 && taken == deaths.len())
    }
}

/// The cells of a row of deaths.
fn cells(lines: &[&Value]) -> String {
    let noticed = lines.iter().filter(|l| l["noticed"] == true).count();
    format!(
        "| {noticed} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        lines.len() - noticed,
        figures(&ms(lines, "detect_us", 1e3), 1),
        figures(&redirects(lines, 1e3), 3),
        figures(&ms(lines, "heard_us", 1e3), 3),
        figures(&ms(lines, "switch_us", 1e3), 2),
        figures(&ms(lines, "gap_ms", 1.0), 1),
        figures(&asked(lines), 1),
        figures(&ms(lines, "wait_ms", 1.0), 1),
        figures(&ms(lines, "worst_wait_ms", 1.0), 1),
        sum(lines, "lost"),
        sum(lines, "resets")
    )
}

/// Of each gap the part in which somebody waited.
fn asked(lines: &[&Value]) -> Vec<f64> {
    sorted(
        lines
            .iter()
            .filter_map(|l| Some(l["gap_ms"].as_f64()? - l["unasked_ms"].as_f64()?)),
    )
}

/// A column, divided, sorted.
pub fn ms(lines: &[&Value], name: &str, unit: f64) -> Vec<f64> {
    sorted(lines.iter().filter_map(|l| l[name].as_f64()).map(|v| v / unit))
}

/// From decision to redirection, of the takeovers that had flows to move: where each had moved by a vote before, 0 is no time.
pub fn redirects(lines: &[&Value], unit: f64) -> Vec<f64> {
    let moved: Vec<&Value> = lines
        .iter()
        .copied()
        .filter(|l| l["moved"].as_u64() > Some(0))
        .collect();
    ms(&moved, "redirect_us", unit)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn sum(lines: &[&Value], name: &str) -> u64 {
    lines.iter().filter_map(|l| l[name].as_u64()).sum()
}

/// Of sorted values; the nearest rank.
pub fn percentile(sorted: &[f64], of_hundred: usize) -> f64 {
    quantile(sorted, 10 * of_hundred).unwrap_or(f64::NAN)
}

/// What 99 of a hundred do not exceed.
fn most(sorted: &[f64], digits: usize) -> String {
    if sorted.is_empty() {
        return "none".into();
    }
    format!("{:.digits$}", percentile(sorted, 99))
}

fn figures(sorted: &[f64], digits: usize) -> String {
    if sorted.is_empty() {
        return "none".into();
    }
    let [half, most, all] = [50, 99, 100].map(|p| percentile(sorted, p));
    format!("{half:.digits$} / {most:.digits$} / {all:.digits$}")
}

/// A line of the record for a death.
pub fn death(kind: Kind, flows: usize, death: &Death, sight: Option<Sight>, client: &[Segment]) -> Value {
    let of_takeover = |name: &str| death.takeover.as_ref().map_or(Value::Null, |t| t[name].clone());
    // Where every flow had moved by a vote before, nothing was redirected; what a client has heard before the decision, it has by another's vote.
    let decided = of_takeover("decided_at_us").as_u64();
    let decided = decided
        .filter(|_| of_takeover("flows").as_u64() > Some(0))
        .map(Duration::from_micros);
    let us_since = |at: Duration| Some(at.checked_sub(decided?)?.as_secs_f64() * 1e6);
    let heard = sight.and_then(|s| us_since(s.first));
    let arrived = sight.filter(|_| flows == 1).zip(decided);
    let arrived = arrived.and_then(|(s, at)| us_since(sight::redirected(client, death.old, at, s.first)?));
    json!({
        "what": "death", "kind": kind.name(), "replicas": death.replicas, "flows": flows, "noticed": death.takeover.is_some(),
        "reason": of_takeover("reason"), "detect_us": of_takeover("detect_us"), "redirect_us": of_takeover("redirect_us"), "heard_us": heard,
        "arrived_us": arrived,
        "switch_us": of_takeover("switch_us"), "moved": of_takeover("flows"), "lost": of_takeover("lost").as_u64().unwrap_or(0),
        "gap_ms": sight.map(|s| s.gap.as_secs_f64() * 1e3), "wait_ms": sight.map(|s| s.longest_wait.as_secs_f64() * 1e3),
        "waited": sight.map(|s| s.waited), "unasked_ms": sight.map(|s| s.unasked.as_secs_f64() * 1e3),
        "worst_wait_ms": sight.map(|s| s.worst_wait.as_secs_f64() * 1e3), "resets": 0,
    })
}
