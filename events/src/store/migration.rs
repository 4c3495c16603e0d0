//! A migration is one step of a schema's history.

/// The name of the type of bytes, in the statements of a [`Migration`].
const BYTES: &str = "{bytes}";

/// One step of a schema's history. Never edited once released; add another.
///
/// Statements are in the words that the engines share. Columns are `bigint`, `text` and `{bytes}`: engines do not agree on
/// that one's name, so each puts its own there.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i64,
    /// The oldest version whose programs still work after this step, on the same database and at the same time as newer
    /// ones. The step's own version, if none does.
    pub suits: i64,
    /// The statements, in order.
    pub statements: &'static [&'static str],
}

impl Migration {
    /// The statements of this step, for an engine whose type of bytes has this name.
    pub(super) fn statements(&self, bytes: &str) -> impl Iterator<Item = String> {
        self.statements.iter().map(move |statement| statement.trim().replace(BYTES, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_names_the_type_of_bytes_and_nothing_else_in_it_is_changed() {
        const NOTE: &str = "insert into note (text) values ('a bytea; a blob; two')";
        let step =
            Migration { version: 1, suits: 1, statements: &["create table note (text text, body {bytes})", NOTE] };
        assert_eq!(step.statements("blob").collect::<Vec<_>>(), ["create table note (text text, body blob)", NOTE]);
        assert_eq!(step.statements("bytea").collect::<Vec<_>>(), ["create table note (text text, body bytea)", NOTE]);
    }
}
