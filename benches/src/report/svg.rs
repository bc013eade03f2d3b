//! The picture: steps per second against workflows in flight between the limits, and where the time of a step goes.

use std::fmt::Write;

use super::{Report, number};
use crate::catalog::Limit;
use crate::figure::Figure;
use crate::workloads::profile::{PICTURED, Profile};

const WIDTH: f64 = 1_080.0;
/// The plot, inside its labels.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 470.0;
/// The bar.
const BAR_TOP: f64 = 588.0;
const BAR_HEIGHT: f64 = 40.0;
const HEIGHT: f64 = 684.0;

const OURS: &str = "#1f6feb";
const LIMIT: &str = "#6e7781";
const INK: &str = "#1f2328";
const GRID: &str = "#e5e8eb";

const STYLE: &str = "
    text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }
    .title { font-size: 19px; font-weight: 600 }
    .quiet { fill: #59636e; font-size: 12px }
    .value { font-weight: 600; font-size: 12px }
    .right { text-anchor: end }
    .middle { text-anchor: middle }
    .on { fill: #ffffff; font-weight: 600; text-anchor: middle }";

/// A horizontal line.
struct Line {
    label: String,
    at: f64,
}

pub(crate) fn picture(report: &Report) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">
<style>{STYLE}</style>
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
"#
    );
    text(&mut svg, 28.0, 38.0, "title", "Ten-step workflows: steps per second between the limits of PostgreSQL");
    text(&mut svg, 28.0, 60.0, "quiet", &about(report));
    let points = points(report);
    if points.is_empty() {
        text(&mut svg, LEFT, TOP + 40.0, "quiet", "W1 was not measured in this run");
    } else {
        chart(&mut svg, &points, &lines(report));
    }
    match report.profiles.iter().find(|profile| profile.id == PICTURED) {
        Some(profile) => bar(&mut svg, profile),
        None => text(&mut svg, 28.0, BAR_TOP, "quiet", "the profile was not measured in this run"),
    }
    svg + "</svg>\n"
}

fn about(report: &Report) -> String {
    let find = |wanted: &str| report.about.iter().find(|(name, _)| name == wanted).map_or("?", |(_, value)| value);
    format!(
        "{} cores, PostgreSQL {} beside on the same ones, fsync {}, synchronous_commit {}, {}",
        find("cores"),
        find("server_version").split_whitespace().next().unwrap_or("?"),
        find("fsync"),
        find("synchronous_commit"),
        find("date"),
    )
}

/// Workflows in flight and steps per second: the curve, or else the rows of W1.
fn points(report: &Report) -> Vec<(f64, f64)> {
    if let Some(curve) = report.curves.iter().find(|curve| curve.id == "curve-in-flight") {
        return curve.points.iter().map(|point| (point.at, point.steps_per_s)).collect();
    }
    let mut points: Vec<(f64, f64)> = Vec::new();
    for measured in &report.rows {
        if let Figure::Steps(in_flight) = measured.row.ours
            && points.last().is_none_or(|(last, _)| *last < in_flight as f64)
        {
            points.push((in_flight as f64, measured.ours));
        }
    }
    points
}

/// The limits beside W1, each once, highest first.
fn lines(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for measured in report.rows.iter().filter(|measured| matches!(measured.row.ours, Figure::Steps(_))) {
        let label = match measured.row.limit {
            Limit::Measured(Figure::Bare(in_flight), what) => format!("{what}, {} in flight", number(in_flight as f64)),
            Limit::Measured(_, what) | Limit::Fixed(_, what) => what.to_owned(),
        };
        if lines.iter().all(|line| line.label != label) {
            lines.push(Line { label, at: measured.limit });
        }
    }
    lines.sort_by(|one, other| other.at.total_cmp(&one.at));
    lines
}

/// Both axes are logarithmic: what is required are factors.
struct Axes {
    x_max: f64,
    y_min: f64,
    y_max: f64,
}

impl Axes {
    fn around(points: &[(f64, f64)], lines: &[Line]) -> Self {
        let rates = || points.iter().map(|(_, rate)| *rate).chain(lines.iter().map(|line| line.at));
        let (least, most) = (rates().fold(f64::MAX, f64::min), rates().fold(1.0, f64::max));
        let x_max = points.iter().map(|(at, _)| *at).fold(10.0, f64::max);
        Self {
            x_max: x_max * 1.25,
            y_min: decade_part(least * 0.8, f64::floor),
            y_max: decade_part(most * 1.1, f64::ceil),
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + 14.0 + (at.max(1.0).ln() / self.x_max.ln()) * (RIGHT - LEFT - 14.0)
    }

    fn y(&self, rate: f64) -> f64 {
        let (low, high) = (self.y_min.ln(), self.y_max.ln());
        BOTTOM - (rate.max(self.y_min).ln() - low) / (high - low) * (BOTTOM - TOP)
    }
}

/// A round number of its decade at or beyond `value`.
fn decade_part(value: f64, round: fn(f64) -> f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    round(value / decade) * decade
}

fn chart(svg: &mut String, points: &[(f64, f64)], lines: &[Line]) {
    let axes = Axes::around(points, lines);
    for decade in 0..7 {
        for part in [1.0, 2.0, 5.0] {
            let rate = part * 10_f64.powi(decade);
            if rate >= axes.y_min && rate <= axes.y_max {
                let y = axes.y(rate);
                line(svg, (LEFT, y), (RIGHT, y), GRID, "");
                text(svg, LEFT - 8.0, y + 4.0, "quiet right", &number(rate));
            }
        }
    }
    for (at, _) in points {
        let x = axes.x(*at);
        line(svg, (x, TOP), (x, BOTTOM), GRID, "");
        text(svg, x, BOTTOM + 20.0, "quiet middle", &number(*at));
    }
    line(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), LIMIT, "");
    text(svg, f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0, "quiet middle", "workflows in flight");
    text(svg, LEFT - 8.0, TOP - 12.0, "quiet right", "steps/s");
    limits(svg, &axes, lines);
    let path: Vec<String> =
        points.iter().map(|(at, rate)| format!("{:.1},{:.1}", axes.x(*at), axes.y(*rate))).collect();
    let _ = writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{OURS}" stroke-width="3"/>"#, path.join(" "));
    for (at, rate) in points {
        let (x, y) = (axes.x(*at), axes.y(*rate));
        let _ = writeln!(
            svg,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{OURS}" stroke="white" stroke-width="1.5"/>"#
        );
        halo(svg, x, y - 12.0, &number(*rate));
    }
}

/// Each limit with its label beside the plot; labels keep their distance.
fn limits(svg: &mut String, axes: &Axes, lines: &[Line]) {
    let mut free_from = TOP - 14.0;
    for limit in lines {
        let y = axes.y(limit.at);
        let label_y = y.max(free_from);
        free_from = label_y + 36.0;
        line(svg, (LEFT, y), (RIGHT, y), LIMIT, r#"stroke-dasharray="7 5""#);
        line(svg, (RIGHT, y), (RIGHT + 16.0, label_y), LIMIT, "");
        text(svg, RIGHT + 22.0, label_y + 2.0, "", &limit.label);
        text(svg, RIGHT + 22.0, label_y + 18.0, "quiet", &format!("{} rows/s", number(limit.at)));
    }
}

/// Where the processors' time of a step goes, to scale.
fn bar(svg: &mut String, profile: &Profile) {
    let all = profile.client_us + profile.server_us + profile.other_us + profile.idle_us;
    text(svg, 28.0, BAR_TOP - 32.0, "title", "Where the time of a step goes, 256 in flight");
    let wal = profile.wal_us.map_or(String::new(), |us| {
        format!("; meanwhile sessions waited {} \u{b5}s per step for WAL to be written and flushed", number(us))
    });
    let all_of_it = format!("{} \u{b5}s of all processors per step{wal}", number(all));
    text(svg, 28.0, BAR_TOP - 11.0, "quiet", &all_of_it);
    let parts = [
        ("client: durable, the bodies, sqlx", profile.client_us, OURS),
        ("PostgreSQL", profile.server_us, "#1a7f64"),
        ("other processes", profile.other_us, "#bf8700"),
        ("idle", profile.idle_us, "#afb8c1"),
    ];
    let (mut x, mut legend_x) = (28.0, 28.0);
    for (name, us, colour) in parts {
        let width = us / all * (WIDTH - 56.0);
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.1}" y="{BAR_TOP}" width="{width:.1}" height="{BAR_HEIGHT}" fill="{colour}"/>"#
        );
        if width > 46.0 {
            text(svg, x + width / 2.0, BAR_TOP + 25.0, "on", &number(us));
        }
        x += width;
        let legend = format!("{name}, {} \u{b5}s", number(us));
        let y = BAR_TOP + BAR_HEIGHT + 18.0;
        let _ = writeln!(svg, r#"<rect x="{legend_x:.1}" y="{y}" width="12" height="12" rx="2" fill="{colour}"/>"#);
        text(svg, legend_x + 18.0, y + 11.0, "", &legend);
        legend_x += 46.0 + legend.chars().count() as f64 * 7.2;
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(svg, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" {more}/>"#);
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{text}</text>"#);
}

/// Text that can be read on a line.
fn halo(svg: &mut String, x: f64, y: f64, value: &str) {
    let outline = r#"stroke="white" stroke-width="4" paint-order="stroke" stroke-linejoin="round""#;
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" class="value middle" fill="{INK}" {outline}>{value}</text>"#);
}
