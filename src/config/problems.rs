//! What is wrong with a file: all of it, each with its line.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the user named it.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// What was found and what was expected.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value and the bytes of the file that it came from.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// Collects problems while a file is read.
pub(super) struct Collector<'a> {
    file: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
    /// Lines that are not even TOML: what they mean is not judged any more.
    broken: Vec<usize>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            problems: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// The line, from 1, of a byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn push(&mut self, line: usize, text: String) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            text,
        });
    }

    /// The file is not TOML here.
    pub(super) fn syntax(&mut self, offset: usize, message: &str) {
        let line = self.line(offset);
        if !self.broken.contains(&line) {
            self.broken.push(line);
            self.push(line, format!("not valid TOML: {}", message.replace('\n', ", ")));
        }
    }

    /// A value is not what it should be.
    pub(super) fn add(&mut self, span: &Range<usize>, text: String) {
        let line = self.line(span.start);
        if !self.broken.contains(&line) {
            self.push(line, text);
        }
    }

    /// Something is not there. Not said of a file with syntax errors, where it may stand in what could not be read.
    pub(super) fn missing(&mut self, span: &Range<usize>, text: String) {
        if self.broken.is_empty() {
            self.add(span, text);
        }
    }

    /// Everything found, or `Ok` if that is nothing.
    pub(super) fn finish(mut self) -> Result<(), Problems> {
        self.problems.sort_by_key(|problem| problem.line);
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(self.problems))
        }
    }
}
