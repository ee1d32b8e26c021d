//! The soak's figures over time, one above the other, as an SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::soak::Outcome;
use crate::soak::sample::Sample;

const WIDTH: u32 = 1_000;
/// Of each panel.
const HEIGHT: u32 = 180;
/// No more points than pixels: of each pixel's seconds the greatest is shown.
const POINTS: usize = 500;

/// One figure.
struct Panel {
    title: &'static str,
    colour: RGBColor,
    values: Vec<f64>,
}

/// Draws it. Each fault is a grey line.
pub fn draw(path: &Path, outcome: &Outcome) -> Result<()> {
    let samples = &outcome.samples;
    let of = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let panels = [
        Panel {
            title: "resident memory, KiB",
            colour: RED,
            values: of(|s| s.rss_kib as f64),
        },
        Panel {
            title: "bytes held for machines, KiB",
            colour: MAGENTA,
            values: of(|s| s.buffered as f64 / 1_024.0),
        },
        Panel {
            title: "processor time, % of a core",
            colour: BLUE,
            values: of(|s| s.cpu),
        },
        Panel {
            title: "flows",
            colour: BLACK,
            values: of(|s| s.flows as f64),
        },
        Panel {
            title: "packets in, a second",
            colour: GREEN,
            values: rates(samples, "packets_in"),
        },
    ];
    let times: Vec<f64> = samples.iter().map(|s| s.at.as_secs_f64()).collect();
    let faults: Vec<f64> = outcome.strikes.iter().map(|s| s.at.as_secs_f64()).collect();
    let height = HEIGHT * u32::try_from(panels.len())?;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(&panels) {
        one(area, panel, &times, &faults).map_err(|e| anyhow!("{}: {e}", panel.title))?;
    }
    root.present().map_err(|e| anyhow!("{e}"))
}

fn one(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    times: &[f64],
    faults: &[f64],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let end = times.last().copied().unwrap_or(1.0).max(1.0);
    let top = panel.values.iter().copied().fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(18)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(4)
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for at in faults {
        chart.draw_series(LineSeries::new([(*at, 0.0), (*at, top)], RGBColor(215, 215, 215)))?;
    }
    let step = times.len().div_ceil(POINTS).max(1);
    let points = times.chunks(step).zip(panel.values.chunks(step));
    let points = points.map(|(times, values)| (times[0], values.iter().copied().fold(0.0, f64::max)));
    chart.draw_series(LineSeries::new(points, panel.colour))?;
    Ok(())
}

/// A counter's growth by the second; the first second has none.
fn rates(samples: &[Sample], name: &str) -> Vec<f64> {
    let pairs = samples.windows(2).map(|pair| {
        let seconds = (pair[1].at - pair[0].at).as_secs_f64().max(0.001);
        pair[1].counter(name).saturating_sub(pair[0].counter(name)) as f64 / seconds
    });
    std::iter::once(0.0).chain(pairs).collect()
}
