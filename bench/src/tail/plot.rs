//! Success over time as a picture: one small chart for each run, all to one scale.

use std::{fmt::Write as _, fs, io, path::Path};

use crate::open_loop::Ended;

/// A chart, pixels.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 90.0;
/// Around a chart, for its title and scale.
const MARGIN: f64 = 40.0;
/// Charts side by side.
const COLUMNS: usize = 2;
/// The scale's lower end: round robin over eleven endpoints, one of them bad, loses a ninth.
const LOWEST: f64 = 0.85;

/// The share of calls that succeeded, by the second in which they were due.
pub(super) fn per_second(ended: &[Ended]) -> Vec<f64> {
    let seconds = ended.iter().map(|ended| ended.due.as_secs() as usize + 1).max().unwrap_or(0);
    let mut counts = vec![(0_u32, 0_u32); seconds];
    for ended in ended {
        let (succeeded, all) = &mut counts[ended.due.as_secs() as usize];
        *all += 1;
        *succeeded += u32::from(ended.failure.is_none());
    }
    counts.into_iter().map(|(succeeded, all)| f64::from(succeeded) / f64::from(all.max(1))).collect()
}

/// Draws the runs into a file; its folder is made.
pub(super) fn write(path: &Path, runs: &[(&str, Vec<f64>)]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, svg(runs))
}

fn svg(runs: &[(&str, Vec<f64>)]) -> String {
    let rows = runs.len().div_ceil(COLUMNS);
    let (width, height) = ((WIDTH + MARGIN) * COLUMNS as f64 + MARGIN, (HEIGHT + MARGIN) * rows as f64 + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"18\" font-size=\"13\">Calls that succeed, by second; one of 11 endpoints is bad while the ground is grey</text>\n"
    );
    for (index, (name, shares)) in runs.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let (x, y) = (MARGIN + column as f64 * (WIDTH + MARGIN), MARGIN + 14.0 + row as f64 * (HEIGHT + MARGIN));
        chart(&mut svg, (x, y), name, shares);
    }
    svg + "</svg>\n"
}

fn chart(svg: &mut String, (x, y): (f64, f64), name: &str, shares: &[f64]) {
    let total = 100.0 * shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let step = WIDTH / shares.len().max(1) as f64;
    let height = |share: f64| y + HEIGHT * (1.0 - (share.max(LOWEST) - LOWEST) / (1.0 - LOWEST));
    let points = shares
        .iter()
        .enumerate()
        .map(|(second, share)| format!("{:.1},{:.1}", x + (second as f64 + 0.5) * step, height(*share)));
    let (quarter, half) = (WIDTH / 4.0, WIDTH / 2.0);
    let (bottom, title, lowest) = (y + HEIGHT + 3.0, y - 4.0, LOWEST * 100.0);
    // Writing to a text cannot fail.
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#f8f8f8\" stroke=\"#ccc\"/>\n\
         <rect x=\"{}\" y=\"{y}\" width=\"{half}\" height=\"{HEIGHT}\" fill=\"#e4e4e4\"/>\n\
         <text x=\"{x}\" y=\"{title}\">{} · {total:.3} %</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#666\">100 %</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\" fill=\"#666\">{lowest:.0} %</text>\n\
         <polyline fill=\"none\" stroke=\"#0a5\" stroke-width=\"1.5\" points=\"{}\"/>",
        x + quarter,
        name.replace('_', " "),
        x - 3.0,
        y + 8.0,
        x - 3.0,
        points.collect::<Vec<_>>().join(" "),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ended(ms: u64, failure: Option<&str>) -> Ended {
        let (due, took) = (Duration::from_millis(ms), Duration::ZERO);
        Ended { due, took, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn a_call_counts_in_the_second_in_which_it_was_due() {
        let calls = [ended(0, None), ended(999, Some("late")), ended(1000, None)];
        assert_eq!(per_second(&calls), [0.5, 1.0]);
        assert!(per_second(&[]).is_empty());
    }

    #[test]
    fn every_run_has_its_chart() {
        let svg = svg(&[("round_robin", vec![1.0, 0.9]), ("meshwork", vec![1.0, 1.0])]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("round robin · 95.000 %") && svg.contains("meshwork · 100.000 %"), "{svg}");
    }
}
