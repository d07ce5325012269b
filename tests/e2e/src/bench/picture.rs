//! One repetition as an SVG: acknowledged writes over time, who led, the label of each member as bands.
//!
//! Written by hand, without scripts or fonts of its own. Colours are of a middling lightness, so that it can be read on a
//! light page as well as on a dark one; what they mean is written beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::line::Line;
use super::table::{self, grouped};
use super::timeline::{NOBODY, Timeline, UNKNOWN};
use crate::faults::Fault;

/// Size of the whole, and of what is drawn in.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 62.0;
/// Height of one kind of connection.
const PANEL: f64 = 110.0;
const BETWEEN: f64 = 26.0;
/// Height of one member.
const BAND: f64 = 22.0;

const TEXT: &str = "#7d8590";
const FAULT: &str = "#d9534f";
const WRITES: &str = "#3b8ed0";
const MASTER: &str = "#2e9e5b";
const REPLICA: &str = "#8fa8c9";
const LEADING: &str = "#b58900";

/// Writes one file for each fault and setting that has a timeline.
pub(crate) fn write(lines: &[Line], directory: &Path) -> Result<usize> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let chosen = chosen(lines);
    for (name, line) in &chosen {
        let file = directory.join(name);
        fs::write(&file, svg(line)).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(chosen.len())
}

/// Of each fault and setting the repetition in the middle, by its longest gap, with the name of its file; a failed one only
/// where all failed. A setting is told by its place among those there are.
pub(crate) fn chosen(lines: &[Line]) -> Vec<(String, &Line)> {
    let mut settings: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let next = settings.len();
        settings.entry(line.settings.to_string()).or_insert(next);
    }
    let mut chosen = Vec::new();
    for ((series, fault), lines) in grouped(lines) {
        let mut good: Vec<&Line> = lines.into_iter().filter(|line| line.timeline.is_some()).collect();
        if good.iter().any(|line| line.failure.is_none()) {
            good.retain(|line| line.failure.is_none());
        }
        good.sort_by_key(|line| line.longest_gap());
        let Some(line) = good.get((good.len().max(1) - 1) / 2) else { continue };
        let setting = match settings.get(&series.settings) {
            _ if series.settings == "{}" => String::new(),
            Some(place) => format!("-settings{place}"),
            None => continue,
        };
        let slices = if series.slice_changes { "-slice-changes" } else { "" };
        chosen.push((format!("{}-{fault}{setting}{slices}.svg", series.peer), *line));
    }
    chosen
}

/// Horizontal place of a time.
struct Axis {
    start: i64,
    end: i64,
}

impl Axis {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a picture")]
    fn at(&self, ms: i64) -> f64 {
        let width = (self.end - self.start).max(1) as f64;
        LEFT + (RIGHT - LEFT) * ((ms.clamp(self.start, self.end) - self.start) as f64) / width
    }

    /// Milliseconds between two marks: about ten of them.
    fn step(&self) -> i64 {
        let steps = [500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000];
        steps.into_iter().find(|step| (self.end - self.start) / step <= 12).unwrap_or(120_000)
    }
}

/// The picture; empty but for its title when the line has no timeline.
pub(crate) fn svg(line: &Line) -> String {
    let timeline = line.timeline.clone().unwrap_or_default();
    let axis = Axis { start: timeline.start_ms, end: timeline.end_ms };
    let mut body = String::new();
    let mut y = TOP;
    for (kind, counts) in &timeline.acks {
        panel(&mut body, &axis, &timeline, (kind, counts, line.gap_ms.get(kind).copied()), y);
        y += PANEL + BETWEEN;
    }
    y += 2.0;
    band(&mut body, &axis, ("record", &timeline.leader), y);
    y += BAND + 4.0;
    for (name, role) in &timeline.roles {
        band(&mut body, &axis, (name, role), y);
        y += BAND + 4.0;
    }
    scale(&mut body, &axis, y);
    let fault = axis.at(0);
    let _ = writeln!(
        body,
        "<line x1=\"{fault:.1}\" y1=\"{:.1}\" x2=\"{fault:.1}\" y2=\"{y:.1}\" stroke=\"{FAULT}\" stroke-width=\"1.5\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{FAULT}\">fault</text>",
        TOP - 14.0,
        fault + 4.0,
        TOP - 5.0
    );
    if let Some(at) = line.epoch_ms.and_then(|ms| i64::try_from(ms).ok()) {
        let epoch = axis.at(at);
        let _ = writeln!(
            body,
            "<line x1=\"{epoch:.1}\" y1=\"{:.1}\" x2=\"{epoch:.1}\" y2=\"{y:.1}\" stroke=\"{LEADING}\" stroke-width=\"1.5\" stroke-dasharray=\"4 3\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{LEADING}\">next epoch {at} ms</text>",
            TOP - 14.0,
            epoch + 4.0,
            TOP - 17.0
        );
    }
    let series = line.series();
    let about = Fault::ALL.into_iter().find(|fault| fault.name() == line.fault).map_or("", Fault::about);
    let title = escaped(&format!(
        "{}, {}: {} ({})",
        series.peer,
        table::settings(&series).replace('`', ""),
        about.replace('`', ""),
        line.fault
    ));
    let height = y + 46.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\">\n<title>{title}</title>\n\
         <text x=\"{LEFT}\" y=\"20\" fill=\"{TEXT}\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n{body}</svg>\n"
    )
}

/// Acknowledged writes of one kind of connection.
fn panel(
    out: &mut String,
    axis: &Axis,
    timeline: &Timeline,
    (kind, counts, gap): (&str, &[u32], Option<u64>),
    top: f64,
) {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bottom = top + PANEL;
    let bucket = i64::try_from(timeline.bucket_ms).unwrap_or(1);
    let mut path = String::new();
    for (number, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let from = timeline.start_ms + i64::try_from(number).unwrap_or(0) * bucket;
        let (left, right) = (axis.at(from), axis.at(from + bucket));
        let height = PANEL * f64::from(*count) / f64::from(most);
        let _ = write!(path, "M{left:.1} {bottom:.1}V{:.1}H{right:.1}V{bottom:.1}Z", bottom - height);
    }
    let gap = gap.map(|ms| format!(", longest gap {ms} ms")).unwrap_or_default();
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"{WRITES}\"/>\n\
         <path d=\"M{LEFT} {top:.1}V{bottom:.1}H{RIGHT}\" fill=\"none\" stroke=\"{TEXT}\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{TEXT}\" text-anchor=\"end\">{most}</text>\n\
         <text x=\"{:.1}\" y=\"{bottom:.1}\" fill=\"{TEXT}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{TEXT}\">acknowledged in {bucket} ms, {} connection{gap}</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{TEXT}\" text-anchor=\"end\">{}</text>",
        LEFT - 6.0,
        top + 10.0,
        LEFT - 6.0,
        LEFT,
        bottom + 16.0,
        escaped(kind),
        LEFT - 6.0,
        f64::midpoint(top, bottom),
        escaped(kind),
    );
}

/// Who led, or what one member was labelled.
fn band(out: &mut String, axis: &Axis, (name, turns): (&str, &[(i64, String)]), top: f64) {
    let middle = top + BAND / 2.0 + 4.0;
    let name = escaped(name);
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{middle:.1}\" fill=\"{TEXT}\" text-anchor=\"end\">{name}</text>",
        LEFT - 6.0
    );
    let ends = turns.iter().skip(1).map(|(at, _)| *at).chain([axis.end]);
    for ((at, what), end) in turns.iter().zip(ends) {
        let (left, right) = (axis.at(*at), axis.at(end));
        let colour = match what.as_str() {
            NOBODY | UNKNOWN => continue,
            "master" | "primary" => MASTER,
            "replica" => REPLICA,
            _ => LEADING,
        };
        let faint = if what.ends_with('…') { " fill-opacity=\"0.45\"" } else { "" };
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAND}\" fill=\"{colour}\"{faint}/>",
            (right - left).max(0.5)
        );
        // Only where there is room for it.
        if right - left > 60.0 {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{middle:.1}\" fill=\"#ffffff\">{}</text>",
                left + 6.0,
                escaped(what)
            );
        }
    }
}

fn scale(out: &mut String, axis: &Axis, y: f64) {
    let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{TEXT}\"/>");
    let step = axis.step();
    let mut at = axis.start.div_euclid(step) * step;
    while at <= axis.end {
        if at >= axis.start {
            let x = axis.at(at);
            let seconds = if step % 1000 == 0 {
                (at / 1000).to_string()
            } else {
                format!("{}{}.{}", if at < 0 { "-" } else { "" }, at.abs() / 1000, at.abs() % 1000 / 100)
            };
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {y:.1}v5\" stroke=\"{TEXT}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{TEXT}\" text-anchor=\"middle\">{seconds}</text>",
                y + 18.0
            );
        }
        at += step;
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{TEXT}\" text-anchor=\"middle\">seconds after the fault</text>",
        f64::midpoint(LEFT, RIGHT),
        y + 36.0
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(gap: u64) -> Line {
        let turns =
            |turns: &[(i64, &str)]| turns.iter().map(|(at, what)| (*at, (*what).to_owned())).collect();
        Line {
            fault: "delete".to_owned(),
            peer: "matriarch".to_owned(),
            settings: serde_json::json!({"a": "<&>"}),
            epoch_ms: Some(400),
            gap_ms: [("kept".to_owned(), gap)].into(),
            timeline: Some(Timeline {
                start_ms: -1000,
                end_ms: 1000,
                bucket_ms: 50,
                acks: [("kept".to_owned(), [vec![10; 20], vec![0; 10], vec![5; 10]].concat())].into(),
                leader: turns(&[(-1000, "pg-0 1"), (300, "pg-1 2 …"), (400, "pg-1 2")]),
                roles: [("pg-0".to_owned(), turns(&[(-1000, "master"), (100, "-")]))].into(),
            }),
            ..Line::default()
        }
    }

    #[test]
    fn a_picture_has_a_bar_for_each_bucket_with_writes_and_a_band_for_each_turn() {
        let svg = svg(&line(500));
        assert_eq!(svg.matches("V172.0Z").count(), 30, "{svg}");
        assert_eq!(svg.matches("<rect ").count(), 4, "{svg}");
        for text in
            ["seconds after the fault", "next epoch 400 ms", "longest gap 500 ms", "&lt;&amp;&gt;", ">-0.5<"]
        {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        // Every tag is closed, or this is no XML.
        let opened = svg.matches('<').count() - svg.matches("</").count() - svg.matches("/>").count();
        assert_eq!(opened, svg.matches("</").count(), "{svg}");
    }

    #[test]
    fn the_repetition_in_the_middle_is_shown() {
        let failed = Line { failure: Some("lost".to_owned()), ..line(600) };
        let lines = [line(900), line(100), failed, line(500)];
        let chosen = chosen(&lines);
        let shown: Vec<_> = chosen.iter().map(|(name, line)| (name.as_str(), line.longest_gap())).collect();
        assert_eq!(shown, [("matriarch-delete-settings0.svg", Some(500))]);
        let failed = [Line { failure: Some("lost".to_owned()), ..line(600) }];
        assert_eq!(super::chosen(&failed).len(), 1);
    }

    #[test]
    fn nothing_to_draw_is_no_panic() {
        assert!(svg(&Line::default()).contains("</svg>"));
    }
}
