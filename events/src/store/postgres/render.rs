//! Statements and rows, in PostgreSQL's terms.
//!
//! Parameters are numbered, and a list or the rows of an insert become arrays, one for each column: one text, and so one
//! prepared statement, however many there are. With a parameter for each value every batch size is a statement of its own,
//! to be parsed and planned anew: 891 us for an insert of 1 to 200 rows, against 419 us with arrays (where the number is
//! always the same there is no difference). A single row needs no arrays: 37 us against 70 us.

use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Row as _, TypeInfo as _, ValueRef as _,
    postgres::{PgArguments, PgRow},
};

use crate::store::{
    Row, Sql, StoreError, Value,
    sql::{Bulk, Shape},
};

pub(super) type Query = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// The statement, ready to run.
pub(super) fn query(sql: Sql) -> Query {
    let (text, args, bulks) = sql.into_parts();
    let mut statement =
        Statement { text: String::with_capacity(text.len()), parameters: 0, arguments: PgArguments::default() };
    let mut args = args.into_iter();
    let mut at = 0;
    for Bulk { text: place, args: count, shape } in bulks {
        statement.push(&text[at..place.start], &mut args);
        match shape {
            Shape::List if count == 1 => statement.push(&text[place.clone()], &mut args),
            Shape::Rows(width) if count == width => statement.push(&text[place.clone()], &mut args),
            Shape::List => statement.push_list(args.by_ref().take(count)),
            Shape::Rows(width) => statement.push_rows(args.by_ref().take(count), width),
        }
        at = place.end;
    }
    statement.push(&text[at..], &mut args);
    sqlx::query_with(AssertSqlSafe(statement.text), statement.arguments)
}

struct Statement {
    text: String,
    parameters: usize,
    arguments: PgArguments,
}

impl Statement {
    /// Text with single parameters.
    fn push(&mut self, text: &str, args: &mut impl Iterator<Item = Value>) {
        for (index, part) in text.split('?').enumerate() {
            if index > 0 {
                self.push_parameter();
                self.bind(args.next().expect("an argument for every parameter"));
            }
            self.text.push_str(part);
        }
    }

    fn push_list(&mut self, values: impl Iterator<Item = Value>) {
        let mut column = Column::default();
        values.for_each(|value| column.push(value));
        self.replace("in ", "= any(");
        self.push_parameter();
        self.text.push(')');
        self.bind_column(column);
    }

    fn push_rows(&mut self, values: impl Iterator<Item = Value>, width: usize) {
        let mut columns: Vec<Column> = (0..width).map(|_| Column::default()).collect();
        values.enumerate().for_each(|(index, value)| columns[index % width].push(value));
        self.replace("values ", "select * from unnest(");
        for (index, column) in columns.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.push_parameter();
            self.bind_column(column);
        }
        self.text.push(')');
    }

    fn replace(&mut self, keyword: &str, with: &str) {
        let before = self.text.strip_suffix(keyword).expect("a list follows `in `, and rows follow `values `").len();
        self.text.truncate(before);
        self.text.push_str(with);
    }

    fn push_parameter(&mut self) {
        self.parameters += 1;
        self.text.push('$');
        self.text.push_str(&self.parameters.to_string());
    }

    fn bind(&mut self, value: Value) {
        let bound = match value {
            Value::Int(value) => self.arguments.add(value),
            Value::Text(value) => self.arguments.add(value),
            Value::Bytes(value) => self.arguments.add(value),
        };
        bound.expect("numbers, texts and bytes can be encoded");
    }

    fn bind_column(&mut self, column: Column) {
        let bound = match column {
            Column::Empty => unreachable!("a list and rows are not empty"),
            Column::Int(values) => self.arguments.add(values),
            Column::Text(values) => self.arguments.add(values),
            Column::Bytes(values) => self.arguments.add(values),
        };
        bound.expect("numbers, texts and bytes can be encoded");
    }
}

/// The values of one column.
#[derive(Default)]
enum Column {
    #[default]
    Empty,
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn push(&mut self, value: Value) {
        match (&mut *self, value) {
            (Self::Int(values), Value::Int(value)) => values.push(value),
            (Self::Text(values), Value::Text(value)) => values.push(value),
            (Self::Bytes(values), Value::Bytes(value)) => values.push(value),
            (Self::Empty, Value::Int(value)) => *self = Self::Int(vec![value]),
            (Self::Empty, Value::Text(value)) => *self = Self::Text(vec![value]),
            (Self::Empty, Value::Bytes(value)) => *self = Self::Bytes(vec![value]),
            (Self::Int(_) | Self::Text(_) | Self::Bytes(_), value) => {
                panic!("a column is of one type, also where it is null: {value:?}")
            }
        }
    }
}

/// Rows as the rest of the program sees them.
pub(super) fn rows(rows: &[PgRow]) -> Result<Vec<Row>, StoreError> {
    rows.iter()
        .map(|row| Ok(Row::new((0..row.len()).map(|column| value(row, column)).collect::<Result<_, _>>()?)))
        .collect()
}

fn value(row: &PgRow, column: usize) -> Result<Value, StoreError> {
    if row.try_get_raw(column).map_err(|error| StoreError::Refused(error.into()))?.is_null() {
        return Ok(Value::Int(None));
    }
    let value = match row.column(column).type_info().name() {
        "INT8" => row.try_get(column).map(|value| Value::Int(Some(value))),
        "INT4" => row.try_get::<i32, _>(column).map(|value| Value::Int(Some(value.into()))),
        "BYTEA" => row.try_get(column).map(|value| Value::Bytes(Some(value))),
        _ => row.try_get(column).map(|value| Value::Text(Some(value))),
    };
    value.map_err(|error| StoreError::Refused(error.into()))
}

#[cfg(test)]
mod tests {
    use sqlx::Execute as _;

    use super::*;

    #[test]
    fn the_text_of_a_statement_does_not_depend_on_how_many_values_it_has() {
        let statement = |count: i64| {
            let sql = Sql::new("select a from t where b = ").arg("x").push(" and c in ").list(0..count).push(" limit ");
            query(sql.arg(5)).sql().as_str().to_owned()
        };
        assert_eq!(statement(2), "select a from t where b = $1 and c = any($2) limit $3");
        assert_eq!(statement(7), statement(2));
        assert_eq!(statement(1), "select a from t where b = $1 and c in ($2) limit $3");

        let insert = |count: i64| {
            let rows = (0..count).map(|n| [n.into(), "x".into(), Value::Bytes(None)]);
            let sql = Sql::new("insert into t (a, b, c) values ").rows(rows).push(" on conflict do nothing");
            query(sql).sql().as_str().to_owned()
        };
        assert_eq!(insert(2), "insert into t (a, b, c) select * from unnest($1, $2, $3) on conflict do nothing");
        assert_eq!(insert(7), insert(2));
        assert_eq!(insert(1), "insert into t (a, b, c) values ($1, $2, $3) on conflict do nothing");
    }
}
