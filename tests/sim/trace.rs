//! The last packets of a run, kept so that a failure can show them.

use std::collections::VecDeque;
use std::fmt::Write as _;

use relevo::engine::Micros;

use crate::packet::Packet;

/// How many lines a failure shows; all of them with `SIM_TRACE=1`.
const KEPT: usize = 80;

/// One thing that happened.
#[derive(Clone, Debug)]
enum Line {
    /// A packet: where it was seen, its positions relative to the flow (u or v) as far as they are known, what became of it.
    Packet {
        place: String,
        packet: Packet,
        seq: Option<i64>,
        ack: Option<i64>,
        note: String,
    },
    Note(String),
}

/// A ring of lines.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<(Micros, Line)>,
    /// Keeps everything.
    pub whole: bool,
    /// Keeps anything at all: off in the first run of a seed, which is replayed with it when it fails.
    pub on: bool,
}

impl Trace {
    fn push(&mut self, now: Micros, line: Line) {
        if self.lines.len() == KEPT && !self.whole {
            self.lines.pop_front();
        }
        self.lines.push_back((now, line));
    }

    pub fn packet(
        &mut self,
        now: Micros,
        place: impl FnOnce() -> String,
        packet: &Packet,
        (seq, ack): (Option<i64>, Option<i64>),
        note: impl FnOnce() -> String,
    ) {
        if self.on {
            self.push(
                now,
                Line::Packet {
                    place: place(),
                    packet: *packet,
                    seq,
                    ack,
                    note: note(),
                },
            );
        }
    }

    pub fn note(&mut self, now: Micros, text: impl FnOnce() -> String) {
        if self.on {
            self.push(now, Line::Note(text()));
        }
    }

    /// The lines as text.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for (at, line) in &self.lines {
            let _ = match line {
                Line::Note(note) => writeln!(text, "{:>12.3} ms  ---- {note}", *at as f64 / 1e3),
                Line::Packet {
                    place,
                    packet: p,
                    seq,
                    ack,
                    note,
                } => {
                    let rel = |x: &Option<i64>| x.map_or("?".into(), |x| x.to_string());
                    let mut options = String::new();
                    if let Some((val, ecr)) = p.options.ts {
                        let _ = write!(options, " ts {val}/{ecr}");
                    }
                    for (l, r) in p.options.sack.iter().flatten() {
                        let _ = write!(options, " sack +{}..+{}", l.wrapping_sub(p.ack), r.wrapping_sub(p.ack));
                    }
                    if let Some(scale) = p.options.scale {
                        let _ = write!(options, " scale {scale}");
                    }
                    if let Some(mss) = p.options.mss {
                        let _ = write!(options, " mss {mss}");
                    }
                    writeln!(
                        text,
                        "{:>12.3} ms  {place:<22} {:<3} seq {:>6} ({:>10}) ack {:>6} ({:>10}) len {:>5} win {:>5}{options} {note}",
                        *at as f64 / 1e3,
                        p.flag_names(),
                        rel(seq),
                        p.seq,
                        rel(ack),
                        p.ack,
                        p.len,
                        p.win
                    )
                }
            };
        }
        text
    }
}
