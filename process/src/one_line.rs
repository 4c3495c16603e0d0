//! clap's errors, for logs and terminals.

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
