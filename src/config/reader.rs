//! One TOML table, read key by key: a wrong value is a problem with its line and the reading goes on.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problems::{At, Collector};

/// A table under reading. [`Reader::finish`] complains of the keys that nobody asked for.
pub(super) struct Reader<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    /// The table's name for messages, `[engine]` or `[[service]]`.
    name: &'static str,
    known: Vec<&'static str>,
}

impl<'t, 'i> Reader<'t, 'i> {
    pub(super) fn new(name: &'static str, table: &'t DeTable<'i>, span: Range<usize>) -> Self {
        Self {
            table,
            span,
            name,
            known: Vec::new(),
        }
    }

    /// Where the table begins.
    pub(super) fn span(&self) -> &Range<usize> {
        &self.span
    }

    fn get(&mut self, key: &'static str) -> Option<(&'t DeValue<'i>, Range<usize>)> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some((value.get_ref(), value.span()))
    }

    /// An optional value. `parse` answers what it expected where it can't read one.
    pub(super) fn optional<T>(
        &mut self,
        problems: &mut Collector<'_>,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let (value, span) = self.get(key)?;
        match parse(value) {
            Ok(value) => Some(At { value, span }),
            Err(expected) => {
                problems.add(&span, format!("{key}: found {}, expected {expected}", found(value)));
                None
            }
        }
    }

    /// A value that must be there; `example` shows the line to write.
    pub(super) fn required<T>(
        &mut self,
        problems: &mut Collector<'_>,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        if self.table.get(key).is_none() {
            problems.missing(
                &self.span,
                format!("{}: found no {key}, expected a line like {example}", self.name),
            );
        }
        self.optional(problems, key, parse)
    }

    /// A value with a default.
    pub(super) fn or<T>(
        &mut self,
        problems: &mut Collector<'_>,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> At<T> {
        self.optional(problems, key, parse).unwrap_or_else(|| At {
            value: default,
            span: self.span.clone(),
        })
    }

    /// A table inside this one.
    pub(super) fn table(
        &mut self,
        problems: &mut Collector<'_>,
        key: &'static str,
        name: &'static str,
    ) -> Option<Reader<'t, 'i>> {
        let (value, span) = self.get(key)?;
        match value {
            DeValue::Table(table) => Some(Reader::new(name, table, span)),
            other => {
                problems.add(&span, format!("{key}: found {}, expected a table {name}", found(other)));
                None
            }
        }
    }

    /// An array of tables inside this one, of which there must be one at least.
    pub(super) fn tables(
        &mut self,
        problems: &mut Collector<'_>,
        key: &'static str,
        name: &'static str,
    ) -> Vec<Reader<'t, 'i>> {
        let none = format!("{}: found no {key}, expected at least one {name}", self.name);
        let Some((value, span)) = self.get(key) else {
            problems.missing(&self.span, none);
            return Vec::new();
        };
        let DeValue::Array(items) = value else {
            problems.add(&span, format!("{key}: found {}, expected tables {name}", found(value)));
            return Vec::new();
        };
        if items.is_empty() {
            problems.missing(&span, none);
        }
        let mut readers = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => readers.push(Reader::new(name, table, item.span())),
                other => problems.add(
                    &item.span(),
                    format!("{key}: found {}, expected a table {name}", found(other)),
                ),
            }
        }
        readers
    }

    /// Unknown keys are errors: a misspelt one would otherwise be a default in silence.
    pub(super) fn finish(self, problems: &mut Collector<'_>) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let known = self.known.join(", ");
                // Behind a broken header every key is in the wrong table, so this too is not said then.
                problems.missing(
                    &key.span(),
                    format!("unknown key \"{name}\" in {}, expected one of: {known}", self.name),
                );
            }
        }
    }
}

/// A value as the messages show it.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A whole number; `None` for another type and for what does not fit.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
