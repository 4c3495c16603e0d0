//! How much fits in one statement.

/// Rows, or ids, in one statement; callers cut what is more into chunks. A row of at most 16 columns then stays below
/// SQLite's 32,766 parameters and PostgreSQL's 65,535.
pub const MAX_ROWS_PER_STATEMENT: usize = 2_000;
