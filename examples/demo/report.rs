//! What an act has shown, and the table at the end.

use std::time::Duration;

use crate::lab::Lab;
use crate::lab::capture::Recovery;
use crate::lab::counters;

/// The findings of one act.
#[derive(Debug, Default)]
pub struct Report {
    /// The table's column title.
    pub title: String,
    /// One cell for each machine, the frozen original first.
    pub machines: Vec<String>,
    /// The client programs' exit codes.
    pub exits: String,
    /// What the client's own check says.
    pub check: String,
    /// How long its connections stood still.
    pub recovery: Recovery,
    /// TCP segments that the client retransmitted.
    pub retransmissions: u64,
    /// RSTs that reached the client.
    pub resets: u64,
    /// What was wrong; empty if nothing.
    pub problems: Vec<String>,
}

impl Report {
    /// An empty column.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            ..Self::default()
        }
    }

    /// Notes a problem unless `right`.
    pub fn demand(&mut self, right: bool, problem: impl FnOnce() -> String) {
        if !right {
            let problem = problem();
            println!("  WRONG: {problem}");
            self.problems.push(problem);
        }
    }

    /// Reads the client's counters, which were 0 when the act began.
    pub fn count_at_the_client(&mut self, lab: &Lab, recovery: Recovery) {
        self.retransmissions = counters::retransmissions(lab.client());
        self.resets = counters::resets_seen(lab.client());
        self.recovery = recovery;
        let (resets, resumed, stuck) = (self.resets, self.recovery.worst(), self.recovery.stuck);
        self.demand(resets == 0, || format!("{resets} resets reached the client"));
        self.demand(stuck == 0, || {
            format!("{stuck} connections never went on after the freeze")
        });
        self.demand(resumed.is_some(), || {
            "no connection went on after the freeze".to_owned()
        });
        if let Some(resumed) = resumed {
            println!(
                "  the client's next byte came {} after the freeze",
                milliseconds(resumed)
            );
        }
    }

    fn next_byte(&self) -> String {
        if self.recovery.stuck > 0 {
            return "never".to_owned();
        }
        match (
            self.recovery.resumed.len(),
            self.recovery.median(),
            self.recovery.worst(),
        ) {
            (1, _, Some(worst)) => milliseconds(worst),
            (n, Some(median), Some(worst)) => {
                format!(
                    "{} (worst of {n}; median {})",
                    milliseconds(worst),
                    milliseconds(median)
                )
            }
            _ => "never".to_owned(),
        }
    }
}

/// A time for people.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Prints the acts side by side.
pub fn print_table(reports: &[Report]) {
    let machine = |i: usize| match i {
        0 => "m0, frozen".to_owned(),
        1 => "m1, took over".to_owned(),
        _ => format!("m{i}, replica"),
    };
    let mut rows = vec![(
        String::new(),
        reports.iter().map(|r| r.title.clone()).collect::<Vec<_>>(),
    )];
    for i in 0..4 {
        rows.push((
            machine(i),
            reports
                .iter()
                .map(|r| r.machines.get(i).cloned().unwrap_or_default())
                .collect(),
        ));
    }
    type Cell = fn(&Report) -> String;
    let last: [(&str, Cell); 5] = [
        ("client's exit codes", |r| r.exits.clone()),
        ("client's own check", |r| r.check.clone()),
        ("freeze to next byte", Report::next_byte),
        ("retransmissions", |r| r.retransmissions.to_string()),
        ("resets", |r| r.resets.to_string()),
    ];
    rows.extend(last.map(|(name, cell)| (name.to_owned(), reports.iter().map(cell).collect())));

    let width = |column: usize| {
        rows.iter()
            .map(|(_, cells)| cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..reports.len()).map(width).collect();
    let name_width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (i, (name, cells)) in rows.iter().enumerate() {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", format!("{name:name_width$} | {}", cells.join(" | ")).trim_end());
        if i == 0 || i == 4 {
            let lines: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
            println!("{}+{}", "-".repeat(name_width + 1), lines.join("+"));
        }
    }
}
