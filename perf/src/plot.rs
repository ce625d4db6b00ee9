//! Line plots with logarithmic axes, as SVG.

use std::fmt::Write as _;

/// A line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot; both axes are logarithmic.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) series: Vec<Series>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 9] =
    ["#0b6e4f", "#c1292e", "#235789", "#e08e00", "#7b2d8b", "#555555", "#00a5a5", "#a05a2c", "#d45087"];

impl Plot {
    /// The plot as an SVG document; nothing when no point can be drawn.
    pub(crate) fn svg(&self) -> Option<String> {
        let points =
            || self.series.iter().flat_map(|series| &series.points).filter(|point| is_drawable(**point));
        let (x_low, x_high) = decades(points().map(|point| point.0))?;
        let (y_low, y_high) = decades(points().map(|point| point.1))?;
        let place_x = |x: f64| LEFT + (x.log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
        let place_y =
            |y: f64| HEIGHT - BOTTOM - (y.log10() - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
        let mut out = String::new();
        let _ = writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="24" font-size="16">{}</text>"#,
            escaped(&self.title)
        );
        for (low, high, is_x) in [(x_low, x_high, true), (y_low, y_high, false)] {
            for value in ticks(low, high) {
                let (x, y) = (place_x(value), place_y(value));
                let text = short(value);
                let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
                let _ = if is_x {
                    writeln!(
                        out,
                        r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{}" text-anchor="middle">{text}</text>"##,
                        bottom + 18.0
                    )
                } else {
                    writeln!(
                        out,
                        r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##,
                        LEFT - 8.0,
                        y + 4.0
                    )
                };
            }
        }
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{}" text-anchor="middle">{}</text>
<text transform="translate(20 {}) rotate(-90)" text-anchor="middle">{}</text>"#,
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 16.0,
            escaped(self.x),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escaped(self.y)
        );
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let dash = if number < COLOURS.len() { "" } else { r#" stroke-dasharray="6 4""# };
            let drawn: Vec<(f64, f64)> =
                series.points.iter().copied().filter(|point| is_drawable(*point)).collect();
            let mut path = String::new();
            for (step, (x, y)) in drawn.iter().enumerate() {
                let _ = write!(
                    path,
                    "{}{:.1} {:.1}",
                    if step == 0 { "M" } else { "L" },
                    place_x(*x),
                    place_y(*y)
                );
                let _ = writeln!(
                    out,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                    place_x(*x),
                    place_y(*y)
                );
            }
            let (legend_x, legend_y) = (
                WIDTH - RIGHT + 16.0,
                TOP + 16.0 + 20.0 * f64::from(u8::try_from(number).unwrap_or(u8::MAX)),
            );
            let _ = writeln!(
                out,
                r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>
<path d="M{legend_x} {:.0}h20" stroke="{colour}" stroke-width="3"{dash}/><text x="{}" y="{legend_y:.0}">{}</text>"#,
                legend_y - 4.0,
                legend_x + 26.0,
                escaped(&series.name)
            );
        }
        out.push_str("</svg>\n");
        Some(out)
    }
}

fn is_drawable((x, y): (f64, f64)) -> bool {
    x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite()
}

/// The logarithms of an axis's ends, with a little room.
fn decades(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then(|| (low.log10() - 0.05, high.log10() + 0.05))
}

/// 1, 2 and 5 of each decade between two logarithms.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let mut found = Vec::new();
    let mut decade = 10_f64.powf(low.floor());
    while decade.log10() <= high {
        found.extend(
            [1.0, 2.0, 5.0]
                .map(|step| step * decade)
                .into_iter()
                .filter(|value| (low..=high).contains(&value.log10())),
        );
        decade *= 10.0;
    }
    found
}

fn short(value: f64) -> String {
    if value >= 999_999.0 {
        format!("{}M", value / 1e6)
    } else if value >= 999.9 {
        format!("{}k", (value / 1e3).round())
    } else if value >= 0.99 {
        format!("{}", value.round())
    } else {
        format!("{value:.2}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        let series = vec![Series { name: "a < b".to_owned(), points }];
        Plot { title: "t".to_owned(), x: "x", y: "y", series }
    }

    #[test]
    fn points_lie_within_the_axes_and_names_are_escaped() {
        let svg = plot(vec![(10.0, 1.0), (100_000.0, 2_000.0)]).svg().expect("two points");
        assert!(svg.contains("a &lt; b"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        for part in svg.split("<circle cx=\"").skip(1) {
            let x: f64 = part.split('"').next().and_then(|text| text.parse().ok()).expect("a number");
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        assert_eq!(plot(vec![(0.0, 1.0), (1.0, f64::NAN)]).svg(), None);
    }
}
