//! Plots as inline SVG. Colours are CSS variables of the page, so that one drawing is right in light and dark.

use std::fmt::Write;

/// Size of a drawing in its own units; the page scales it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 264.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// How values become places.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    Linear,
    /// Base 10; both ends above 0.
    Log,
    /// For shares of answers: each nine takes the same room. Ends are below 1.
    Nines,
}

impl Scale {
    fn map(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(1e-9).log10(),
            Scale::Nines => -(1.0 - value).max(1e-12).log10(),
        }
    }
}

/// One axis: `from < to`.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    pub scale: Scale,
    pub from: f64,
    pub to: f64,
    /// Where lines stand and what is written at them.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number at or above `max`.
    pub fn linear(max: f64, label: impl Fn(f64) -> String) -> Axis {
        let max = if max > 0.0 && max.is_finite() { max } else { 1.0 };
        let step = round_step(max / 5.0);
        let steps = (max / step).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|n| (n as f64 * step, label(n as f64 * step))).collect();
        Axis { scale: Scale::Linear, from: 0.0, to: steps * step, ticks }
    }

    /// From 0 to exactly `max`, as for time.
    pub fn exact(max: f64, label: impl Fn(f64) -> String) -> Axis {
        let mut axis = Axis::linear(max, label);
        if max > 0.0 {
            axis.to = max;
            axis.ticks.retain(|(at, _)| *at <= max * 1.0001);
        }
        axis
    }

    /// Decades around `min..max`, cut at 1, 2 or 5 of them.
    pub fn log(min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let min = if min > 0.0 && min.is_finite() { min } else { 1.0 };
        let max = if max > min && max.is_finite() { max } else { min };
        let marks = || (-3..12).flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
        let from = marks().rfind(|mark| *mark <= min).unwrap_or(min);
        let to = marks().find(|mark| *mark >= max && *mark > from).unwrap_or(max.max(from * 2.0));
        // Beyond two decades only the decades themselves are told.
        let all = to / from <= 100.0;
        let is_told = |mark: &f64| *mark >= from && *mark <= to && (all || mark.log10().fract().abs() < 1e-9);
        let ticks = marks().filter(is_told).map(|mark| (mark, label(mark))).collect();
        Axis { scale: Scale::Log, from, to, ticks }
    }

    /// From 0 to the last nine that `count` answers can tell.
    pub fn nines(count: u64) -> Axis {
        const MARKS: [(f64, &str); 8] = [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
            (0.99999, "99.999 %"),
            (0.999999, "99.9999 %"),
        ];
        let to = 1.0 - 1.0 / (count.max(10) as f64);
        let ticks = MARKS.into_iter().filter(|(at, _)| *at <= to + 1e-12).map(|(at, text)| (at, text.to_owned()));
        Axis { scale: Scale::Nines, from: 0.0, to, ticks: ticks.collect() }
    }

    /// 0 to 1 along the axis, for values within it.
    fn place(&self, value: f64) -> f64 {
        let (from, to) = (self.scale.map(self.from), self.scale.map(self.to));
        if to > from { ((self.scale.map(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// 1, 2 or 5 times a power of ten, at or above `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|digit| digit * decade)
        .into_iter()
        .find(|round| *round >= step * 0.9999)
        .unwrap_or(10.0 * decade)
}

/// A line, or the area between it and the line before.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    pub name: String,
    /// Which of the page's colours, `--c0` and on.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    /// The lower edge of an area, one value per point.
    pub base: Option<Vec<f64>>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Plot {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub x_label: &'static str,
    pub series: Vec<Series>,
    /// Texts that show when the pointer rests over a stretch of x, as (from, to, text).
    pub hints: Vec<(f64, f64, String)>,
}

impl Plot {
    /// A `<figure>`.
    pub fn render(&self) -> String {
        let mut out = format!("<figure><figcaption>{}</figcaption>\n<div class=\"legend\">", escape(self.title));
        for series in &self.series {
            let (colour, name) = (series.colour, escape(&series.name));
            put(&mut out, format_args!("<span><i style=\"background:var(--c{colour})\"></i>{name}</span>"));
        }
        put(
            &mut out,
            format_args!(
                "</div>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
                escape(self.title)
            ),
        );
        self.grid(&mut out);
        self.series.iter().for_each(|series| self.draw(&mut out, series));
        for (from, to, text) in &self.hints {
            let (x, end) = (self.x_at(*from), self.x_at(*to));
            let (width, height) = ((end - x).max(0.5), HEIGHT - TOP - BOTTOM);
            put(
                &mut out,
                format_args!(
                    "<rect class=\"hint\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{}</title></rect>\n",
                    escape(text)
                ),
            );
        }
        out.push_str("</svg></figure>\n");
        out
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (at, text) in &self.y.ticks {
            let y = self.y_at(*at);
            put(out, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
            let (x, y) = (LEFT - 8.0, y + 4.0);
            put(out, format_args!("<text class=\"end\" x=\"{x}\" y=\"{y:.1}\">{}</text>\n", escape(text)));
        }
        for (at, text) in &self.x.ticks {
            let x = self.x_at(*at);
            put(
                out,
                format_args!(
                    "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
                    bottom + 5.0
                ),
            );
            let y = bottom + 18.0;
            put(out, format_args!("<text class=\"mid\" x=\"{x:.1}\" y=\"{y}\">{}</text>\n", escape(text)));
        }
        put(out, format_args!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"));
        let y = HEIGHT - 2.0;
        put(out, format_args!("<text class=\"end\" x=\"{right}\" y=\"{y}\">{}</text>\n", escape(self.x_label)));
    }

    fn draw(&self, out: &mut String, series: &Series) {
        let colour = series.colour;
        let line: Vec<String> =
            series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x_at(*x), self.y_at(*y))).collect();
        if let Some(base) = &series.base {
            let back = series.points.iter().zip(base).rev();
            let back: Vec<String> =
                back.map(|((x, _), y)| format!("{:.1},{:.1}", self.x_at(*x), self.y_at(*y))).collect();
            let edge = [line.as_slice(), back.as_slice()].concat().join(" ");
            put(out, format_args!("<polygon points=\"{edge}\" fill=\"var(--c{colour})\" fill-opacity=\"0.28\"/>\n"));
        }
        put(
            out,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--c{colour})\" stroke-width=\"1.8\"/>\n",
                line.join(" ")
            ),
        );
        // A single point is no line.
        if let [(x, y)] = series.points.as_slice() {
            let (x, y) = (self.x_at(*x), self.y_at(*y));
            put(out, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"var(--c{colour})\"/>\n"));
        }
    }
}

pub fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a string does not fail");
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn axes_end_on_round_numbers() {
        let label = |value: f64| format!("{value}");
        assert_eq!(ticks(&Axis::linear(930.0, label)), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(Axis::linear(0.0, label).to, 1.0);
        assert_eq!(ticks(&Axis::log(30.0, 700.0, label)), ["20", "50", "100", "200", "500", "1000"]);
        assert_eq!(ticks(&Axis::log(30.0, 70_000.0, label)), ["100", "1000", "10000", "100000"]);
        assert_eq!(ticks(&Axis::nines(10_000)), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn odd_values_still_have_a_place() {
        for axis in [Axis::log(0.0, 0.0, |_| String::new()), Axis::linear(f64::NAN, |_| String::new()), Axis::nines(0)]
        {
            for value in [0.0, -1.0, 1.0, 1e300, f64::NAN] {
                let place = axis.place(value);
                assert!(place.is_nan() && value.is_nan() || (0.0..=1.0).contains(&place), "{axis:?} {value}");
            }
        }
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
