//! The closing line, and the files in bench-results: JSON with each round, tables, plot.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

pub use crate::figures::{Column, Row, Rows, Sample, Target, percent};

use crate::lab::arguments::beside;
use crate::lab::surroundings::Surroundings;
use crate::ways::By;
use crate::{peers, plot};

/// What no bench of the ladder shows.
const NOT_SHOWN: &str = "Namespaces on one machine with veth links, everything that matters on one core: the figures compare what the ways cost in \
processor time and wake-ups. Absolute values drift with the machine's speed; only the ratios count. Both cores poll when idle (/dev/cpu_dma_latency), since this virtual machine takes \
some 50 µs to wake a halted one. Routing, proxies, translation and Relevo each have a host of their own with nothing else on it; all hosts are namespaces of one kernel. Proxies run with their packages' defaults, one thread, and \
give what a proxy gives (a second TCP), not a takeover. The machines drop the blind copies unread: nobody acknowledges or retransmits them. The engine's CPU time is that of its process: the kernel's work on a \
packet that the engine gives back is in it as far as the veth pair and the receiving stack, which run in the same context, and so is what the machine's own stack does on that core. A packet is \
what the queue delivers, acknowledgements and super-packets alike.";

/// One bench's outcome.
pub struct Record<'a> {
    /// Begins the files' names.
    pub bench: &'static str,
    /// Title.
    pub title: &'static str,
    /// How it was measured.
    pub how: String,
    /// What was measured.
    pub columns: &'static [Column],
    /// What ratios are against, for people.
    pub against: &'static str,
    /// The figures.
    pub rows: Rows<'a>,
    /// What was to be reached.
    pub targets: Vec<Target>,
    /// More text.
    pub beside: String,
    /// More for the JSON.
    pub more: Value,
    /// What it does not show, beyond [`NOT_SHOWN`].
    pub not_shown: &'static str,
    /// The last line.
    pub closing: String,
}

impl Record<'_> {
    /// Writes `bench-results/<bench>-<date>-<commit>.{json,svg,md}`, and says the closing line.
    pub fn write(&self) -> anyhow::Result<()> {
        let surroundings = Surroundings::read();
        let [json, svg, md] = ["json", "svg", "md"].map(|extension| surroundings.file(self.bench, extension));
        let (json, svg, md) = (json?, svg?, md?);
        let text = serde_json::to_string_pretty(&self.json(&surroundings))? + "\n";
        std::fs::write(&json, text).with_context(|| format!("write {}", json.display()))?;
        plot::draw(&svg, self).with_context(|| format!("draw {}", svg.display()))?;
        let picture = svg.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = self.markdown(&surroundings, &picture.unwrap_or_default());
        std::fs::write(&md, text).with_context(|| format!("write {}", md.display()))?;
        println!("written: {} and .json, .svg\n{}", md.display(), self.closing);
        Ok(())
    }

    fn markdown(&self, surroundings: &Surroundings, picture: &str) -> String {
        let mut text = format!(
            "{}\n\n{}\n\n{surroundings} {} Beside it: {}\n\n![{}]({picture})\n\n{}",
            surroundings.title(self.title),
            self.how,
            self.peers(),
            beside(),
            self.title,
            figures(self.columns, &self.rows, self.against),
        );
        if !self.targets.is_empty() {
            text += "\n## Against the targets\n\n| | reached | target | |\n|---|---|---|---|\n";
        }
        for target in &self.targets {
            let number = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.2}"));
            let bound = match (target.informs, target.at_most) {
                (true, _) => "no target".to_owned(),
                (false, true) => format!("≤ {}", number(target.bound)),
                (false, false) => format!("≥ {}", number(target.bound)),
            };
            let (what, reached) = (&target.what, number(target.value));
            let _ = writeln!(text, "| {what} | {reached} | {bound} | {} |", target.verdict());
        }
        if !self.beside.is_empty() {
            let _ = write!(text, "\n{}", self.beside);
        }
        text + &format!(
            "\nWhat it does not show: {} {NOT_SHOWN}\n\n    {}\n",
            self.not_shown, self.closing
        )
    }

    /// The proxies' versions.
    fn peers(&self) -> String {
        let is_there = |row: &&Row| matches!(row.way.by, By::Proxy(_)) && row.absent.is_none();
        let mut names: Vec<_> = self.rows.0.iter().filter(is_there).map(|row| row.way.name).collect();
        names.dedup();
        let versions: Vec<String> = names.into_iter().map(peers::version).collect();
        if versions.is_empty() {
            return "No proxy.".to_owned();
        }
        format!("{}.", versions.join(", "))
    }

    fn json(&self, surroundings: &Surroundings) -> Value {
        let rows = self.rows.0.iter().map(|row| {
            let figures: serde_json::Map<String, Value> = row
                .rounds
                .iter()
                .map(|(key, rounds)| {
                    let spread = self.rows.spread(key, row);
                    let figure = json!({
                        "median": row.median(key), "ratio": self.rows.ratio(key, row),
                        "least_ratio": spread.map(|s| s.0), "greatest_ratio": spread.map(|s| s.1), "rounds": rounds,
                    });
                    ((*key).to_owned(), figure)
                })
                .collect();
            json!({ "way": row.name, "what": row.way.what, "absent": row.absent, "figures": figures })
        });
        let targets = self.targets.iter().map(|target| {
            json!({
                "what": target.what, "reached": target.value, "bound": target.bound, "at_most": target.at_most,
                "verdict": target.verdict(),
            })
        });
        json!({
            "bench": self.bench, "date": surroundings.date, "commit": surroundings.commit, "kernel": surroundings.kernel,
            "processor": surroundings.processor, "peers": self.peers(), "beside": beside(), "how": self.how, "ratios_against": self.against,
            "rows": rows.collect::<Vec<_>>(), "targets": targets.collect::<Vec<_>>(), "more": self.more,
            "not_shown": format!("{} {NOT_SHOWN}", self.not_shown), "closing": self.closing,
        })
    }
}

/// `rtt: routed=1.00 nat=... relevo3=...`: a column's quotients to the base; `none` where there is no figure.
pub fn closing_line(bench: &str, rows: &Rows<'_>, column: &str, shown: &[&str]) -> String {
    let one = |name: &&str| match rows.row(name).and_then(|row| rows.ratio(column, row)) {
        Some(quotient) => format!("{name}={quotient:.2}"),
        None => format!("{name}=none"),
    };
    let all: Vec<String> = shown.iter().map(one).collect();
    format!("{bench}: {}", all.join(" "))
}

/// A table for each column that is compared, one for all others.
pub fn figures(columns: &[Column], rows: &Rows<'_>, against: &str) -> String {
    let mut text = String::new();
    for column in columns.iter().filter(|column| column.compared) {
        compared(column, rows, against, &mut text);
    }
    let plain: Vec<&Column> = columns.iter().filter(|column| !column.compared).collect();
    if !plain.is_empty() {
        others(&plain, rows, &mut text);
    }
    text
}

fn compared(column: &Column, rows: &Rows<'_>, against: &str, text: &mut String) {
    let _ = writeln!(
        text,
        "| way | {} | ratio of medians to {against} | rounds' ratios, least to greatest |\n|---|---|---|---|",
        column.title
    );
    for row in rows.with(column) {
        let _ = write!(text, "| {}: {} | ", row.name, row.way.what);
        let _ = match (&row.absent, row.median(column.key)) {
            (Some(why), _) => writeln!(text, "{} | | |", one_line(why)),
            (None, None) => writeln!(text, "none | | |"),
            (None, Some(value)) => {
                let (ratio, spread) = (rows.ratio(column.key, row), rows.spread(column.key, row));
                let ratio = ratio.map_or("none".to_owned(), |ratio| format!("{ratio:.2}"));
                let spread = spread.map_or("none".to_owned(), |(least, most)| format!("{least:.2} to {most:.2}"));
                writeln!(text, "{value:.digits$} | {ratio} | {spread} |", digits = column.digits)
            }
        };
    }
    text.push('\n');
}

/// Medians, and greatest values, for what happens now and then.
fn others(columns: &[&Column], rows: &Rows<'_>, text: &mut String) {
    let mut lines = String::new();
    for row in rows.0.iter().filter(|row| row.absent.is_none()) {
        let cell = |column: &&Column| {
            let greatest = |rounds: &Vec<f64>| rounds.iter().copied().fold(0.0, f64::max);
            let both = row.median(column.key).zip(row.rounds.get(column.key).map(greatest));
            both.map_or(String::new(), |(median, greatest)| {
                format!("{median:.digits$} / {greatest:.digits$}", digits = column.digits)
            })
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(lines, "| {} | {} |", row.name, cells.join(" | "));
        }
    }
    if !lines.is_empty() {
        let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
        let _ = writeln!(
            text,
            "Medians of the rounds, and behind a slash the greatest.\n\n| way | {} |\n|---|{}\n{lines}",
            titles.join(" | "),
            "---|".repeat(columns.len())
        );
    }
}

/// For a cell.
fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('|', "/")
}
