//! Errors in one line, for logs and terminals.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Says a line on stderr. Where it is closed, as in `meshwork up 2>&1 | head`, the line is lost, and nothing else.
pub fn to_stderr(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The text with control characters escaped, so that a value stays within its line and does nothing to a terminal.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// clap's error in one line, without its usage.
pub(crate) fn one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text = String::new();
    for line in lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")) {
        match text.is_empty() {
            true => {}
            false if line.starts_with("tip:") => text.push_str("; "),
            false => text.push(' '),
        }
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_an_error_shows_stays_within_its_line() {
        assert_eq!(printable("--data-dir x\ny\u{1b}[31mé: is taken"), "--data-dir x\\ny\\u{1b}[31mé: is taken");
    }
}
