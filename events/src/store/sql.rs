//! Statements and rows, independent of the engine.
//!
//! [`Sql`] keeps text and values apart, so that no value ever becomes part of the text. It also knows which values are a list
//! or rows: an engine with arrays passes those as one parameter for each column, so that the text, and with it the prepared
//! statement, stays the same whatever their number.

use uuid::Uuid;

use super::StoreError;

/// A value of a column or a parameter. Null keeps its type, because PostgreSQL wants to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `bigint`.
    Int(Option<i64>),
    /// `text`.
    Text(Option<String>),
    /// `bytea`; ids are 16 bytes.
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Bytes(Some(value.as_bytes().to_vec()))
    }
}

impl From<Option<Uuid>> for Value {
    fn from(value: Option<Uuid>) -> Self {
        Self::Bytes(value.map(|id| id.as_bytes().to_vec()))
    }
}

/// A statement under construction: text, and between it what engines write differently.
///
/// Text is passed on as it is; the engine writes the parameters. A `?` in the text, outside of quotes, is not allowed: to
/// SQLite it would be a parameter.
///
/// ```
/// use meshwork_events::store::Sql;
///
/// let sql = Sql::new("select name from customer where customer_id ").in_list([1, 2]).push(" and limit_minor > ").arg(5);
/// assert_eq!(sql.text(), "select name from customer where customer_id in (?, ?) and limit_minor > ?");
/// ```
#[derive(Clone, Debug)]
pub struct Sql {
    parts: Vec<Part>,
}

/// A part of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// One parameter.
    Arg(Value),
    /// What the column before it is compared with.
    InList(Vec<Value>),
    /// The rows of an insert, one after the other.
    Values {
        width: usize,
        values: Vec<Value>,
    },
}

impl Sql {
    /// Starts with text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Text(text.into())] }
    }

    /// Appends text. Never a value that came from outside: that is what [`arg`](Self::arg) is for.
    #[must_use]
    pub fn push(mut self, text: &str) -> Self {
        match self.parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            Some(Part::Arg(_) | Part::InList(_) | Part::Values { .. }) | None => {
                self.parts.push(Part::Text(text.to_owned()));
            }
        }
        self
    }

    /// Appends a parameter and its argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.parts.push(Part::Arg(value.into()));
        self
    }

    /// Appends that the column, with which the text before it ends, is one of `values`: `in (?, ?, ...)` in SQLite's words.
    /// The values must not be empty, and are all of one type.
    #[must_use]
    pub fn in_list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.parts.push(Part::InList(values.into_iter().map(Into::into).collect()));
        self
    }

    /// Appends the rows of a multi-row insert: `values (?, ?), (?, ?), ...` in SQLite's words. There must be a row, and each
    /// column is of one type.
    #[must_use]
    pub fn values<const N: usize>(mut self, rows: impl IntoIterator<Item = [Value; N]>) -> Self {
        self.parts.push(Part::Values { width: N, values: rows.into_iter().flatten().collect() });
        self
    }

    /// The statement's text, with a `?` for each value: the form that SQLite takes. Plain `?`, because SQLite looks a numbered
    /// or named parameter up among all before it: a statement of 5,000 would take quadratic time.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Arg(_) => text.push('?'),
                Part::InList(values) => {
                    text.push_str("in ");
                    push_marks(&mut text, values.len());
                }
                Part::Values { width, values } => {
                    text.push_str("values ");
                    for row in 0..values.len() / width {
                        if row > 0 {
                            text.push_str(", ");
                        }
                        push_marks(&mut text, *width);
                    }
                }
            }
        }
        text
    }

    /// The values, in the order of the `?` in [`text`](Self::text).
    #[cfg(feature = "sqlite")]
    pub(super) fn into_args(self) -> Vec<Value> {
        let mut args = Vec::new();
        for part in self.parts {
            match part {
                Part::Text(_) => {}
                Part::Arg(value) => args.push(value),
                Part::InList(values) | Part::Values { values, .. } => args.extend(values),
            }
        }
        args
    }

    /// The parts, for an engine that renders them in its own way.
    #[cfg(feature = "postgres")]
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.parts
    }
}

/// Appends `(?, ?, ...)`.
fn push_marks(text: &mut String, count: usize) {
    text.push('(');
    for index in 0..count {
        text.push_str(if index > 0 { ", ?" } else { "?" });
    }
    text.push(')');
}

/// A row of a result, by column index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<Value>);

impl Row {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values)
    }

    /// A `bigint` that is not null.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        self.int_or_null(column)?.ok_or(StoreError::Decode { column, expected: "a bigint" })
    }

    /// A `bigint` that is not null and not negative: a count, position or version.
    pub fn count(&self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| StoreError::Decode { column, expected: "a count" })
    }

    /// A `bigint` or null.
    pub fn int_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(*value),
            // SQLite gives a null no type.
            Some(Value::Text(None) | Value::Bytes(None)) => Ok(None),
            Some(Value::Text(Some(_)) | Value::Bytes(Some(_))) | None => {
                Err(StoreError::Decode { column, expected: "a bigint" })
            }
        }
    }

    /// A `text` that is not null.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(Some(value))) => Ok(value),
            Some(Value::Int(_) | Value::Bytes(_) | Value::Text(None)) | None => {
                Err(StoreError::Decode { column, expected: "a text" })
            }
        }
    }

    /// A `bytea` that is not null.
    pub fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        self.bytes_or_null(column)?.ok_or(StoreError::Decode { column, expected: "a bytea" })
    }

    /// A `bytea` or null.
    pub fn bytes_or_null(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.0.get(column) {
            Some(Value::Bytes(value)) => Ok(value.as_deref()),
            Some(Value::Int(None) | Value::Text(None)) => Ok(None),
            Some(Value::Int(Some(_)) | Value::Text(Some(_))) | None => {
                Err(StoreError::Decode { column, expected: "a bytea" })
            }
        }
    }

    /// A 16-byte id that is not null.
    pub fn uuid(&self, column: usize) -> Result<Uuid, StoreError> {
        Uuid::from_slice(self.bytes(column)?).map_err(|_| StoreError::Decode { column, expected: "a 16-byte id" })
    }

    /// A 16-byte id or null.
    pub fn uuid_or_null(&self, column: usize) -> Result<Option<Uuid>, StoreError> {
        match self.bytes_or_null(column)? {
            None => Ok(None),
            Some(_) => self.uuid(column).map(Some),
        }
    }
}

/// Positions, versions and limits stay far below `i64::MAX`: a log of a million events a second would need 292,000 years.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
