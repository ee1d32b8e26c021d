//! Rows of figures, and what is made of them: medians, ratios, spreads.

use std::collections::BTreeMap;

use crate::ways::Way;

/// What one measurement gives: figures by the name of their column.
pub type Sample = BTreeMap<&'static str, f64>;

/// A figure that a bench has of each way.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// In JSON.
    pub key: &'static str,
    /// For people, with its unit.
    pub title: &'static str,
    /// Behind the point.
    pub digits: usize,
    /// Whether it is compared with the base: a table and a panel of its own.
    pub compared: bool,
    /// Whether only Relevo has it.
    pub of_engine: bool,
}

impl Column {
    /// Compared with the base.
    pub const fn compared(key: &'static str, title: &'static str, digits: usize) -> Self {
        Self {
            key,
            title,
            digits,
            compared: true,
            of_engine: false,
        }
    }

    /// Only of Relevo's ways.
    pub const fn of_engine(self) -> Self {
        Self {
            of_engine: true,
            ..self
        }
    }

    /// Noted only.
    pub const fn plain(key: &'static str, title: &'static str, digits: usize) -> Self {
        Self {
            key,
            title,
            digits,
            compared: false,
            of_engine: false,
        }
    }
}

/// A way's figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// The way.
    pub way: &'static Way,
    /// In tables; the way's name, and what else tells it from other rows.
    pub name: String,
    /// The name of the row that it is compared with.
    pub base: String,
    /// Why there are no figures, or no more.
    pub absent: Option<String>,
    /// Each round's figure, by column.
    pub rounds: BTreeMap<&'static str, Vec<f64>>,
}

impl Row {
    /// Without figures yet.
    pub fn new(way: &'static Way, base: &str) -> Self {
        Self {
            way,
            name: way.name.to_owned(),
            base: base.to_owned(),
            absent: None,
            rounds: BTreeMap::new(),
        }
    }

    /// Notes a round's figures.
    pub fn add(&mut self, sample: Sample) {
        for (name, value) in sample {
            self.rounds.entry(name).or_default().push(value);
        }
    }

    /// The figures of a column, if there are any and the way has not failed.
    fn of(&self, column: &str) -> Option<&[f64]> {
        let values = self.rounds.get(column).filter(|values| !values.is_empty())?;
        self.absent.is_none().then_some(values)
    }

    /// The median of the rounds.
    pub fn median(&self, column: &str) -> Option<f64> {
        self.of(column).map(median)
    }
}

/// All rows of a bench.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a>(pub &'a [Row]);

impl Rows<'_> {
    /// Those that have a column's figures, and those that would if they were there.
    pub fn with(&self, column: &Column) -> impl Iterator<Item = &Row> {
        let &Column { key, of_engine, .. } = column;
        let would = move |row: &Row| row.absent.is_some() && (!of_engine || row.way.is_relevo());
        self.0
            .iter()
            .filter(move |row| row.rounds.contains_key(key) || would(row))
    }

    /// By name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.name == name)
    }

    /// The median of the rounds.
    pub fn median(&self, column: &str, name: &str) -> Option<f64> {
        self.row(name)?.median(column)
    }

    /// The mean of the rounds, where most are 0.
    pub fn mean(&self, column: &str, name: &str) -> Option<f64> {
        let values = self.row(name)?.of(column)?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Quotient of two rows' medians.
    pub fn quotient(&self, column: &str, name: &str, to: &str) -> Option<f64> {
        Some(self.median(column, name)? / self.median(column, to)?)
    }

    /// Quotient of a row's median and its base's.
    pub fn ratio(&self, column: &str, row: &Row) -> Option<f64> {
        self.quotient(column, &row.name, &row.base)
    }

    /// Least and greatest quotient of one round of a row and its base.
    pub fn spread(&self, column: &str, row: &Row) -> Option<(f64, f64)> {
        let (values, base) = (row.of(column)?, self.row(&row.base)?.of(column)?);
        let quotients = || values.iter().zip(base).map(|(value, base)| value / base);
        Some((
            quotients().fold(f64::INFINITY, f64::min),
            quotients().fold(0.0, f64::max),
        ))
    }
}

/// NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// What a quotient adds, as the thesis writes it: `+81.16 %`.
pub fn percent(quotient: f64) -> String {
    format!("{:+.0} %", (quotient - 1.0) * 100.0)
}

/// What was to be reached, and what was.
#[derive(Clone, Debug)]
pub struct Target {
    /// Of what.
    pub what: String,
    /// Reached; `None` if it could not be measured.
    pub value: Option<f64>,
    /// The bound; `None` likewise.
    pub bound: Option<f64>,
    /// Whether that is the most, not the least.
    pub at_most: bool,
    /// Whether it is none, but something to read the others by.
    pub informs: bool,
}

impl Target {
    /// No more than so much.
    pub fn at_most(what: &str, value: Option<f64>, bound: f64) -> Self {
        Self::no_more(what.to_owned(), value, Some(bound))
    }

    /// No less than so much.
    pub fn at_least(what: &str, value: Option<f64>, bound: f64) -> Self {
        Self {
            at_most: false,
            ..Self::at_most(what, value, bound)
        }
    }

    /// No more than something that was measured, too.
    pub fn no_more(what: String, value: Option<f64>, bound: Option<f64>) -> Self {
        Self {
            what,
            value,
            bound,
            at_most: true,
            informs: false,
        }
    }

    /// No target.
    pub fn to_know(what: &str, value: Option<f64>) -> Self {
        Self {
            informs: true,
            ..Self::no_more(what.to_owned(), value, None)
        }
    }

    /// As a word.
    pub fn verdict(&self) -> &'static str {
        if self.informs {
            return "to read it by";
        }
        match (self.value, self.bound) {
            (Some(value), Some(bound)) if (value <= bound) == self.at_most || value == bound => "reached",
            (Some(_), Some(_)) => "missed",
            _ => "not measured",
        }
    }
}
