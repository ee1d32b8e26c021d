//! Every takeover's gap and switch, by kind of failure, as an SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::record::{Lines, SIZES, ms};
use crate::stage::Kind;

const SIZE: (u32, u32) = (1_000, 640);
/// By number of flows.
const COLOURS: [RGBColor; 3] = [RGBColor(40, 110, 180), RGBColor(220, 130, 30), RGBColor(150, 40, 90)];

/// One figure: its column, the divisor to milliseconds, a bound to draw.
struct Panel {
    title: &'static str,
    column: &'static str,
    unit: f64,
    range: std::ops::Range<f64>,
    bound: f64,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "last byte of the old original to first byte of the new one, ms; 1, 100, 10,000 flows (line: 20 ms)",
        column: "gap_ms",
        unit: 1.0,
        range: 1.0..2_000.0,
        bound: 20.0,
    },
    Panel {
        title: "decision to first packet redirected, ms; 1, 100, 10,000 flows (line: thesis, 5.05 ms)",
        column: "redirect_us",
        unit: 1e3,
        range: 0.02..200.0,
        bound: 5.05,
    },
];

/// Draws it.
pub fn draw(path: &Path, lines: &Lines) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
    for (area, panel) in root.split_evenly((PANELS.len(), 1)).iter().zip(&PANELS) {
        one(area, panel, lines).map_err(|e| anyhow!("{}: {e}", panel.title))?;
    }
    root.present().map_err(|e| anyhow!("{e}"))
}

fn one(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    lines: &Lines,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let shown = Kind::ALL;
    let kinds = shown.len();
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..kinds as f64, panel.range.clone().log_scale())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_label_formatter(&|v| format!("{v}"))
        .draw()?;
    let line = [(0.0, panel.bound), (kinds as f64, panel.bound)];
    chart.draw_series(LineSeries::new(line, RGBColor(200, 60, 60)))?;
    for (i, kind) in shown.into_iter().enumerate() {
        for (j, (flows, colour)) in SIZES.into_iter().zip(COLOURS).enumerate() {
            let values = ms(&lines.picked(Some(kind), None, Some(flows)), panel.column, panel.unit);
            let count = values.len().max(1) as f64;
            // Sorted, so each cloud is the curve of its own distribution.
            let points = values.into_iter().enumerate().map(|(n, value)| {
                let x = i as f64 + 0.08 + 0.29 * j as f64 + 0.25 * n as f64 / count;
                let y = value.clamp(panel.range.start, panel.range.end);
                Circle::new((x, y), 2, colour.filled())
            });
            chart.draw_series(points)?;
        }
        let label = kind.name();
        let at = chart.backend_coord(&(i as f64 + 0.3, panel.range.start));
        area.draw(&Text::new(
            label,
            (at.0 - area_left(area), at.1 + 6 - area_top(area)),
            ("sans-serif", 10),
        ))?;
    }
    Ok(())
}

fn area_left(area: &DrawingArea<SVGBackend<'_>, Shift>) -> i32 {
    area.get_pixel_range().0.start
}

fn area_top(area: &DrawingArea<SVGBackend<'_>, Shift>) -> i32 {
    area.get_pixel_range().1.start
}
