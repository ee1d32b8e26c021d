//! One takeover as a time line, drawn from what passed the hosts' interfaces: the picture in docs/failover.md.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::lab::capture::{SYN, Segment, sender};
use crate::sight::{gap, since_1970};
use crate::stage::{Kind, PORT, Stage};

const SIZE: (u32, u32) = (1_000, 400);
/// What is shown before the original's last byte, and after the first byte of the new original, in milliseconds.
const MARGIN: f64 = 3.0;
/// What the engine probes from (R14).
const PROBE_PORT: u16 = 9;

/// Who has a line in the picture, from the top.
const LANES: [&str; 4] = [
    "client: asks",
    "client: is answered",
    "m0, the original: hears",
    "m1, a replica: answers",
];

/// A mark: lane, milliseconds after the original's last byte, what it is.
struct Mark {
    lane: usize,
    at: f64,
    colour: RGBColor,
}

const FROM_CLIENT: RGBColor = RGBColor(60, 60, 60);
const OLD: RGBColor = RGBColor(40, 110, 180);
const NEW: RGBColor = RGBColor(30, 150, 70);
const ENGINE: RGBColor = RGBColor(220, 130, 30);
const PROBE: RGBColor = RGBColor(200, 30, 30);

/// Freezes an original under one connection, and draws what followed.
pub fn take(file: &Path) -> Result<()> {
    let mut stage = Stage::set();
    let engine = stage.engine("");
    let round = stage.round(&engine, Kind::Muted, 1, true)?;
    let death = round.deaths.first().context("no death")?;
    let struck = since_1970(death.struck);
    let (last, first) = gap(&round.client, death.old, struck).context("the client was not answered by anybody else")?;
    // The tool that silences a machine takes its time; the last that the client heard of it is a moment that nobody has to guess.
    let ms = |time: Duration| (time.as_secs_f64() - last.as_secs_f64()) * 1e3;
    let takeover = death.takeover.as_ref().context("no takeover")?;
    let us = |name: &str| takeover[name].as_f64().unwrap_or(0.0) / 1e3;
    let over = ms(since_1970(death.logged.context("no line in the log")?));
    // The log's line is written when the last packet is out.
    let decided = over - us("switch_us");
    let suspected = decided - us("detect_us");
    let moments = [
        (0.0, "last byte of m0".to_owned()),
        (suspected, format!("m0 suspected, {suspected:.1} ms")),
        (decided, format!("proved dead, {decided:.1} ms")),
        (ms(first), format!("first byte of m1, {:.1} ms", ms(first))),
    ];
    let marks = marks(&round.client, &round.machines, ms);
    let title = format!(
        "A frozen original: {:.1} ms from its last byte to the first of its successor, reason {}",
        ms(first),
        takeover["reason"].as_str().unwrap_or_default()
    );
    draw(file, &title, &marks, &moments, ms(first) + MARGIN).map_err(|e| anyhow!("{e}"))?;
    println!("{title}\nwritten: {}", file.display());
    Ok(())
}

fn marks(client: &[Segment], machines: &[Vec<Segment>], ms: impl Fn(Duration) -> f64) -> Vec<Mark> {
    let of_client = client.iter().filter(|s| s.len > 0).map(|s| {
        let (lane, colour) = match (s.dport == PORT, sender(s.ttl)) {
            (true, _) => (0, FROM_CLIENT),
            (false, Some(0)) => (1, OLD),
            (false, Some(_)) => (1, NEW),
            (false, None) => (1, ENGINE),
        };
        (lane, s, colour)
    });
    let heard = machines.first().into_iter().flatten().filter(|s| s.dport == PORT);
    let heard = heard.filter_map(|s| match (s.sport == PROBE_PORT && s.flags & SYN != 0, s.len) {
        (true, _) => Some((2, s, PROBE)),
        (false, 0) => None,
        (false, _) => Some((2, s, FROM_CLIENT)),
    });
    let said = machines.get(1).into_iter().flatten();
    let said = said.filter(|s| s.sport == PORT && s.len > 0).map(|s| (3, s, NEW));
    of_client
        .chain(heard)
        .chain(said)
        .map(|(lane, segment, colour)| Mark {
            lane,
            at: ms(segment.time),
            colour,
        })
        .collect()
}

fn draw(
    file: &Path,
    title: &str,
    marks: &[Mark],
    moments: &[(f64, String)],
    end: f64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let lanes = LANES.len() as f64;
    // The names of the lanes stand left of what is shown.
    let names = -MARGIN - 0.25 * (end + MARGIN);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(28)
        .build_cartesian_2d(names..end, -0.9..lanes + 0.9)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .disable_y_axis()
        .x_label_formatter(&|v| {
            if *v < -MARGIN {
                String::new()
            } else {
                format!("{v:.0} ms")
            }
        })
        .draw()?;
    let height = |lane: usize| lanes - lane as f64 - 0.5;
    for (lane, name) in LANES.iter().enumerate() {
        let y = height(lane);
        chart.draw_series(LineSeries::new([(-MARGIN, y), (end, y)], RGBColor(200, 200, 200)))?;
        chart.draw_series([Text::new(*name, (names, y + 0.08), ("sans-serif", 12))])?;
    }
    for (i, (at, what)) in moments.iter().enumerate() {
        chart.draw_series(LineSeries::new([(*at, -0.5), (*at, lanes)], RGBColor(120, 120, 120)))?;
        let y = lanes + 0.8 - 0.22 * i as f64;
        // The later ones are read leftwards, so that they stay within the picture.
        let (x, side) = if *at > end / 2.0 {
            (at - 0.1, HPos::Right)
        } else {
            (at + 0.1, HPos::Left)
        };
        let style = ("sans-serif", 12)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(side, VPos::Top));
        chart.draw_series([Text::new(what.clone(), (x, y), style)])?;
    }
    for mark in marks.iter().filter(|m| m.at > -MARGIN && m.at < end) {
        chart.draw_series([Circle::new((mark.at, height(mark.lane)), 4, mark.colour.filled())])?;
    }
    let legend = [
        (FROM_CLIENT, "the client's request"),
        (OLD, "of m0"),
        (NEW, "of m1"),
        (ENGINE, "m1's, kept by the engine"),
        (PROBE, "probe"),
    ];
    let step = (end - names) / legend.len() as f64;
    for (i, (colour, what)) in legend.into_iter().enumerate() {
        let x = names + step * (i as f64 + 0.05);
        chart.draw_series([Circle::new((x, -0.7), 4, colour.filled())])?;
        chart.draw_series([Text::new(what, (x + step * 0.05, -0.62), ("sans-serif", 11))])?;
    }
    root.present()?;
    Ok(())
}
