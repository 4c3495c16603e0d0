//! The limit of rows in one statement.

/// The most rows, or ids, in one statement; callers cut longer lists into chunks. A row of at most 16 columns then stays below
/// SQLite's 32,766 parameters and PostgreSQL's 65,535.
pub const MAX_ROWS_PER_STATEMENT: usize = 2_000;
