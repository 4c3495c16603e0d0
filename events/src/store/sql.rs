//! Statements and rows, independent of the engine.
//!
//! [`Sql`] builds text and arguments side by side, so that no value ever becomes part of the text. It also notes which
//! parameters are a list or rows: an engine with arrays passes those as one parameter for each column, so that the text,
//! and with it the prepared statement, stays the same however many there are.

use std::ops::Range;

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

/// A statement under construction: text with `?` parameters, and their arguments.
///
/// Plain `?`, because SQLite looks a numbered or named parameter up among all before it: a statement of 5,000 would take
/// quadratic time. A `?` in the text that is no parameter is not allowed.
///
/// ```
/// use meshwork_events::store::Sql;
///
/// let sql = Sql::new("select name from customer where customer_id in ").list([1, 2]).push(" and limit_minor > ").arg(5);
/// assert_eq!(sql.text(), "select name from customer where customer_id in (?, ?) and limit_minor > ?");
/// ```
#[derive(Clone, Debug)]
pub struct Sql {
    text: String,
    args: Vec<Value>,
    bulks: Vec<Bulk>,
}

/// A list, or the rows of an insert: where it stands in the text, and how many arguments it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bulk {
    pub(super) text: Range<usize>,
    pub(super) args: usize,
    pub(super) shape: Shape,
}

/// What a [`Bulk`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// What a column is compared with.
    List,
    /// Rows of so many columns.
    Rows(usize),
}

impl Sql {
    /// Starts with text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), args: Vec::new(), bulks: Vec::new() }
    }

    /// Appends text. Never a value that came from outside: that is what [`arg`](Self::arg) is for.
    #[must_use]
    pub fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends a parameter and its argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.push_arg(value.into());
        self
    }

    /// Appends `(?, ?, ...)`, one parameter for each value; the text before it ends in `in `. The values must not be empty,
    /// and are all of one type.
    #[must_use]
    pub fn list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        let start = (self.text.len(), self.args.len());
        self.push_list(values.into_iter().map(Into::into));
        self.note_bulk(start, Shape::List);
        self
    }

    /// Appends `(?, ?), (?, ?), ...`, the rows of a multi-row insert; the text before it ends in `values `. There must be a
    /// row, and each column is of one type.
    #[must_use]
    pub fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [Value; N]>) -> Self {
        let start = (self.text.len(), self.args.len());
        for (index, row) in rows.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.push_list(row);
        }
        self.note_bulk(start, Shape::Rows(N));
        self
    }

    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text with a `?` for each argument, the arguments, and which of them are bulks, in order.
    pub(super) fn into_parts(self) -> (String, Vec<Value>, Vec<Bulk>) {
        (self.text, self.args, self.bulks)
    }

    fn note_bulk(&mut self, (text, args): (usize, usize), shape: Shape) {
        self.bulks.push(Bulk { text: text..self.text.len(), args: self.args.len() - args, shape });
    }

    fn push_list(&mut self, values: impl IntoIterator<Item = Value>) {
        self.text.push('(');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.push_arg(value);
        }
        self.text.push(')');
    }

    fn push_arg(&mut self, value: Value) {
        self.args.push(value);
        self.text.push('?');
    }
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
