//! One step of a schema's history.

/// One step of a schema's history. Never edited once released; add another.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i64,
    /// The oldest version whose programs still work after this step, on the same database and at the same time as newer
    /// ones. The step's own version, if none does.
    pub suits: i64,
    /// Statements, separated by `;`.
    pub sql: &'static str,
}

impl Migration {
    /// The statements of this step, one by one.
    pub(crate) fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split(';').map(str::trim).filter(|statement| !statement.is_empty())
    }
}
