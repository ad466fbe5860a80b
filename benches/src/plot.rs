//! Curves over an axis: as a table, as JSON and as SVG.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;
use serde_json::{Value, json};

use crate::scale::Axis;
use crate::stats::Quartiles;

pub struct Point {
    pub x: usize,
    pub milliseconds: Quartiles,
}

pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
}

impl Series {
    /// How many times as much as at the beginning of the axis.
    fn growth(&self, point: &Point) -> f64 {
        self.points.first().map_or(1.0, |first| point.milliseconds.median / first.milliseconds.median)
    }
}

pub fn table(axes: &[Axis]) -> String {
    let mut out = String::new();
    for Axis { title, unit, series } in axes {
        writeln!(out, "{title}: ms [quartiles], and × the first").expect("writing to a String");
        for one in series {
            for point in &one.points {
                let Quartiles { low, median, high } = point.milliseconds;
                let (name, x, growth) = (&one.name, point.x, one.growth(point));
                writeln!(
                    out,
                    "  {name:<12} {x:>6} {unit:<10} {median:>8.2} [{low:.2} {high:.2}]  × {growth:.2}"
                )
                .expect("writing to a String");
            }
        }
    }
    out
}

pub fn as_json(axes: &[Axis]) -> Value {
    let point = |series: &Series, point: &Point| {
        let Quartiles { low, median, high } = point.milliseconds;
        json!({"x": point.x, "q1": low, "median": median, "q3": high, "growth": series.growth(point)})
    };
    let series = |one: &Series| {
        let points: Vec<Value> = one.points.iter().map(|at| point(one, at)).collect();
        json!({"name": one.name, "points": points})
    };
    let axis = |axis: &Axis| {
        let all: Vec<Value> = axis.series.iter().map(series).collect();
        json!({"title": axis.title, "unit": axis.unit, "series": all})
    };
    axes.iter().map(axis).collect()
}

/// A picture for each axis, one below the other. Times are drawn as multiples of the smallest: how long it takes says
/// more about the machine than about a runtime.
pub fn draw(axes: &[Axis], path: &Path) -> Result<(), String> {
    const HEIGHT: u32 = 260;
    let root = SVGBackend::new(path, (640, HEIGHT * axes.len() as u32)).into_drawing_area();
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut names: Vec<&str> = Vec::new();
    for series in axes.iter().flat_map(|axis| &axis.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    for (area, axis) in root.split_evenly((axes.len(), 1)).iter().zip(axes) {
        draw_one(area, axis, &names).map_err(|e| failed(&e))?;
    }
    root.present().map_err(|e| failed(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// `names` are those of all pictures, in each of which a name has the same colour.
fn draw_one<'a>(
    area: &Area<'a>,
    axis: &Axis,
    names: &[&str],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let all = || axis.series.iter().flat_map(|series| &series.points);
    let least = all().map(|point| point.milliseconds.median).fold(f64::INFINITY, f64::min);
    let most = all().map(|point| point.milliseconds.median / least).fold(1.0, f64::max);
    let last = all().map(|point| point.x).max().unwrap_or(1).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption(axis.title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(44)
        .build_cartesian_2d(0..last, 0.0..most * 1.4)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).x_desc(axis.unit).y_desc("× the least").draw()?;
    for series in &axis.series {
        let number = names.iter().position(|name| *name == series.name);
        let colour = Palette99::pick(number.unwrap_or(names.len())).to_rgba();
        let points = || series.points.iter().map(|point| (point.x, point.milliseconds.median / least));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> Axis {
        let point = |x, median| Point { x, milliseconds: Quartiles { low: median, median, high: median } };
        let series = Series { name: "onggi".to_owned(), points: vec![point(0, 4.0), point(5000, 6.0)] };
        Axis { title: "run, by mounts on the host", unit: "mounts", series: vec![series] }
    }

    #[test]
    fn growth_is_that_since_the_first_point() {
        assert!(
            table(&[axis()]).contains("5000 mounts         6.00 [6.00 6.00]  × 1.50"),
            "{}",
            table(&[axis()])
        );
        assert_eq!(as_json(&[axis()])[0]["series"][0]["points"][1]["growth"], 1.5);
    }

    #[test]
    fn a_curve_is_drawn() {
        let path = std::env::temp_dir().join(format!("bench-plot-{}.svg", std::process::id()));
        draw(&[axis()], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("<polyline") && text.contains("onggi") && text.contains("mounts on the host"));
    }
}
