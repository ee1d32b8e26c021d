//! Bars: for each figure that is compared, every way's ratio to the base, with the rounds' spread.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{Column, Row};
use crate::record::Record;

/// Pixels.
const WIDTH: u32 = 900;
const BAR: u32 = 20;
const HEAD: u32 = 34;
/// Where bars begin, and where the longest ends.
const LEFT: i32 = 130;
const RIGHT: i32 = 800;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws it.
pub fn draw(path: &Path, record: &Record<'_>) -> Result<()> {
    let compared: Vec<&Column> = record.columns.iter().filter(|column| column.compared).collect();
    let height = |column: &&Column| HEAD + record.rows.with(column).count() as u32 * BAR + BAR / 2;
    let heights: Vec<u32> = compared.iter().map(height).collect();
    let mut root = SVGBackend::new(path, (WIDTH, heights.iter().sum())).into_drawing_area();
    root.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
    for (column, height) in compared.into_iter().zip(heights) {
        let (area, rest) = root.split_vertically(height);
        panel(&area, column, record).map_err(|e| anyhow!("{}: {e}", column.title))?;
        root = rest;
    }
    root.present().map_err(|e| anyhow!("{e}"))
}

fn panel(area: &Area<'_>, column: &Column, record: &Record<'_>) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let spread = |row: &Row| record.rows.spread(column.key, row);
    let quotient = |row: &Row| record.rows.ratio(column.key, row);
    let ends = record
        .rows
        .0
        .iter()
        .filter_map(|row| Some(quotient(row)?.max(spread(row)?.1)));
    let most = ends.fold(1.0, f64::max);
    let x = |value: f64| LEFT + ((f64::from(RIGHT - LEFT)) * value / most) as i32;
    let title = format!(
        "{}: ratio to {}; lines: least and greatest of the rounds",
        column.title, record.against
    );
    area.draw(&Text::new(title, (10, 10), ("sans-serif", 18)))?;
    let right = Pos::new(HPos::Right, VPos::Center);
    let left = Pos::new(HPos::Left, VPos::Center);
    for (row, i) in record.rows.with(column).zip(0..) {
        let (top, bottom) = ((HEAD + i * BAR + 3) as i32, (HEAD + i * BAR + BAR - 2) as i32);
        let middle = i32::midpoint(top, bottom);
        let name = TextStyle::from(("sans-serif", 15)).pos(right);
        area.draw(&Text::new(row.name.clone(), (LEFT - 8, middle), name))?;
        let style = TextStyle::from(("sans-serif", 15)).pos(left);
        let (Some(quotient), Some((least, greatest))) = (quotient(row), spread(row)) else {
            let why = row
                .absent
                .as_deref()
                .unwrap_or("none")
                .lines()
                .next()
                .unwrap_or_default();
            area.draw(&Text::new(why.to_owned(), (LEFT + 4, middle), style))?;
            continue;
        };
        area.draw(&Rectangle::new(
            [(LEFT, top), (x(quotient), bottom)],
            colour(row).filled(),
        ))?;
        area.draw(&PathElement::new(
            vec![(x(least), middle), (x(greatest), middle)],
            BLACK,
        ))?;
        let at = x(quotient.max(greatest)) + 6;
        area.draw(&Text::new(format!("{quotient:.2}"), (at, middle), style))?;
    }
    let (top, bottom) = (
        HEAD as i32,
        (HEAD + record.rows.with(column).count() as u32 * BAR) as i32,
    );
    area.draw(&PathElement::new(
        vec![(x(1.0), top), (x(1.0), bottom)],
        RGBColor(200, 60, 60),
    ))?;
    Ok(())
}

/// Relevo's bars stand out.
fn colour(row: &Row) -> RGBColor {
    if row.way.is_relevo() {
        RGBColor(70, 130, 190)
    } else {
        RGBColor(185, 185, 185)
    }
}
