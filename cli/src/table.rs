//! Tables for people: aligned columns that never pass [`MAX_WIDTH`] on a terminal. In a pipe, where programs read, nothing is cut.
//!
//! Only the widest columns give way, and they lose their middle: the ends of an id or a path are what tells it from others.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

/// The width that every table keeps, in columns of the terminal: what fits a split screen and a code host's page.
pub(crate) const MAX_WIDTH: usize = 100;

/// No column is made narrower than this for the sake of others: statuses and addresses stay whole.
const MIN_SHRUNK_WIDTH: usize = 12;

/// Columns of an instance id, the same wherever instances are listed.
pub(crate) const ID_WIDTH: usize = 22;

/// Where a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// By a person, who has [`MAX_WIDTH`] columns.
    Terminal,
    /// By a program, or in a file.
    Pipe,
}

impl Output {
    /// Of stdout.
    pub(crate) fn stdout() -> Self {
        if io::stdout().is_terminal() { Self::Terminal } else { Self::Pipe }
    }

    /// The text, on a terminal in at most `room` columns.
    pub(crate) fn fit(self, text: &str, room: usize) -> String {
        match self {
            Self::Terminal => shorten(text, room),
            Self::Pipe => text.to_owned(),
        }
    }

    /// An instance's id.
    pub(crate) fn id(self, instance_id: &str) -> String {
        self.fit(&printable(instance_id), ID_WIDTH)
    }
}

/// Between two columns.
const GAP: &str = "  ";

/// On which side a column's cells stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
    output: Output,
}

impl<const N: usize> Table<N> {
    /// An empty table with these columns, for stdout.
    pub(crate) fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new(), output: Output::stdout() }
    }

    /// For another output.
    pub(crate) fn on(self, output: Output) -> Self {
        Self { output, ..self }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.columns.map(|(title, _)| width(title));
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = width(cell).max(*widest);
            }
        }
        while self.output == Output::Terminal && widths.iter().sum::<usize>() + GAP.len() * (N - 1) > MAX_WIDTH {
            match widths.iter_mut().filter(|width| **width > MIN_SHRUNK_WIDTH).max() {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        widths
    }

    fn write_row(&self, f: &mut fmt::Formatter<'_>, widths: &[usize; N], cells: [&str; N]) -> fmt::Result {
        let mut line = String::new();
        for ((cell, (_, align)), &room) in cells.into_iter().zip(&self.columns).zip(widths) {
            let cell = shorten(cell, room);
            let padding = " ".repeat(room.saturating_sub(width(&cell)));
            line += &match align {
                Align::Left => format!("{cell}{padding}{GAP}"),
                Align::Right => format!("{padding}{cell}{GAP}"),
            };
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        self.write_row(f, &widths, self.columns.map(|(title, _)| title))?;
        self.rows.iter().try_for_each(|row| self.write_row(f, &widths, row.each_ref().map(String::as_str)))
    }
}

/// How many columns of the terminal a text takes; colours take none.
fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// The text, or its two ends around "…" if it takes more than `room` columns.
pub(crate) fn shorten(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let kept = room.saturating_sub(1);
    let chars: Vec<char> = text.chars().collect();
    // A character may be two columns wide: then fewer of them are kept.
    (0..=kept.min(chars.len()))
        .rev()
        .map(|kept| {
            let (head, tail) = (kept.div_ceil(2), kept / 2);
            chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect::<String>()
        })
        .find(|short| width(short) <= room)
        .unwrap_or_default()
}

/// Text that came over the network, fit for a terminal: control characters could move its cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(table: &Table<3>) -> Vec<String> {
        table.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_in_blanks() {
        let mut table = Table::new([("NAME", Align::Left), ("COUNT", Align::Right), ("ZONE", Align::Left)]);
        table.row(["order".into(), "2".into(), String::new()]);
        table.row(["customer".into(), "10".into(), "a".into()]);
        assert_eq!(lines(&table), ["NAME      COUNT  ZONE", "order         2", "customer     10  a"]);
    }

    #[test]
    fn on_a_terminal_no_table_is_wider_than_100_columns_whatever_is_in_it() {
        for cell in ["x".repeat(400), "日".repeat(200), "x日".repeat(100)] {
            let columns = [("A", Align::Left), ("STATUS", Align::Left), ("C", Align::Right)];
            let mut table = Table::new(columns).on(Output::Terminal);
            table.row([cell.clone(), "NOT_SERVING".into(), cell]);
            for line in lines(&table) {
                assert!(width(&line) <= MAX_WIDTH, "{} columns: {line}", width(&line));
            }
            assert!(table.to_string().contains("NOT_SERVING"), "short columns stay whole: {table}");
        }
    }

    #[test]
    fn in_a_pipe_nothing_is_cut() {
        let mut table = Table::new([("A", Align::Left), ("B", Align::Left), ("C", Align::Left)]).on(Output::Pipe);
        let (id, path) = ("i".repeat(128), "p".repeat(255));
        table.row([Output::Pipe.id(&id), path.clone(), "c".into()]);
        assert!(lines(&table)[1].contains(&format!("{id}  {path}  c")));
        assert_eq!(width(&Output::Terminal.id(&id)), ID_WIDTH);
    }

    #[test]
    fn a_long_id_keeps_both_ends() {
        assert_eq!(shorten("0123456789", 10), "0123456789");
        assert_eq!(shorten("0123456789", 7), "012…789");
        assert_eq!(shorten("0123456789", 1), "…");
        assert_eq!(shorten("日本語日本語", 6), "日…語");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("v1\u{1b}[2J\n"), "v1\u{fffd}[2J\u{fffd}");
    }
}
