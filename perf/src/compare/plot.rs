//! Lines in a frame, as SVG: all that the comparison needs of a plot.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#d68910", "#566573"];

/// A named line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How the vertical axis is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// A plot of `lines`.
pub(super) fn svg(title: &str, x: &str, y: &str, scale: Scale, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let (y_low, y_high) = match scale {
        Scale::Linear => (0.0, points().map(|point| point.1).fold(1.0, f64::max)),
        Scale::Logarithmic => {
            let lowest = points().map(|point| point.1.max(1.0)).fold(f64::MAX, f64::min);
            let highest = points().map(|point| point.1.max(1.0)).fold(10.0, f64::max);
            (lowest.min(highest).log10().floor(), highest.log10().ceil())
        }
    };
    let across = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / x_max;
    let down = |value: f64| {
        let value = if scale == Scale::Logarithmic { value.max(1.0).log10() } else { value };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y_low) / (y_high - y_low).max(1e-9)
    };
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="22" font-size="15">{title}</text>
<text x="{LEFT}" y="{}">{x}</text>
<text x="14" y="{TOP}" transform="rotate(-90 14 {TOP})" text-anchor="end">{y}</text>
"##,
        HEIGHT - 10.0
    );
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let (at_x, at_y) = (x_max * part, y_low + (y_high - y_low) * part);
        let shown_y = if scale == Scale::Logarithmic { 10_f64.powf(at_y) } else { at_y };
        let (px, py) = (across(at_x), HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part);
        let _ = write!(
            out,
            r##"<line x1="{LEFT}" x2="{}" y1="{py:.1}" y2="{py:.1}" stroke="#ddd"/>
<text x="{}" y="{:.1}" text-anchor="end">{shown_y:.0}</text>
<text x="{px:.1}" y="{}" text-anchor="middle">{at_x:.0}</text>
"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            py + 4.0,
            HEIGHT - BOTTOM + 18.0
        );
    }
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), down(*y))).collect();
        let _ = writeln!(
            out,
            r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"##,
            path.join(" ")
        );
        for point in &path {
            let (x, y) = point.split_once(',').unwrap_or(("0", "0"));
            let _ = writeln!(out, r##"<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>"##);
        }
        let row = TOP + 18.0 * f64::from(u32::try_from(place).unwrap_or(0));
        let _ = writeln!(
            out,
            r##"<text x="{}" y="{row}" fill="{colour}">{}</text>"##,
            WIDTH - RIGHT + 12.0,
            line.name
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_within_the_frame_on_both_scales() {
        let line = || Line { name: "a".to_owned(), points: vec![(0.0, 0.0), (10.0, 50.0), (20.0, 5000.0)] };
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let text = svg("t", "x", "y", scale, &[line()]);
            let path =
                text.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
            for point in path.split(' ') {
                let (x, y) = point.split_once(',').expect("a pair");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!(
                    (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                    "{point}"
                );
            }
        }
        assert!(svg("t", "x", "y", Scale::Linear, &[]).ends_with("</svg>\n"));
    }
}
