//! Renders statements for PostgreSQL, and reads its rows.
//!
//! Parameters are numbered, and a list or the rows of an insert become arrays, one for each column: one text, and so one
//! prepared statement, whatever their number. With a parameter for each value every batch size would be another statement, and
//! is parsed and planned anew: 891 us for an insert of 1 to 200 rows, against 419 us with arrays (where the number is
//! always the same there is no difference). A single row needs no arrays: 37 us against 70 us.

use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Row as _, TypeInfo as _, ValueRef as _,
    postgres::{PgArguments, PgRow},
};

use crate::store::{Row, Sql, StoreError, Value, sql::Part};

pub(super) type Query = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// The statement, ready to run.
pub(super) fn query(sql: Sql) -> Query {
    let mut statement = Statement::default();
    for part in sql.into_parts() {
        statement.push(part);
    }
    sqlx::query_with(AssertSqlSafe(statement.text), statement.arguments)
}

#[derive(Default)]
struct Statement {
    text: String,
    parameters: usize,
    arguments: PgArguments,
}

impl Statement {
    fn push(&mut self, part: Part) {
        match part {
            Part::Text(text) => self.text.push_str(&text),
            Part::Arg(value) => self.push_value(value),
            Part::InList(values) if values.len() == 1 => {
                self.text.push_str("in ");
                self.push_values(values);
            }
            Part::InList(values) => {
                self.text.push_str("= any");
                self.push_columns(values, 1);
            }
            Part::Values { width, values } if values.len() == width => {
                self.text.push_str("values ");
                self.push_values(values);
            }
            Part::Values { width, values } => {
                self.text.push_str("select * from unnest");
                self.push_columns(values, width);
            }
        }
    }

    /// `($1, $2, ...)`, one parameter for each value.
    fn push_values(&mut self, values: Vec<Value>) {
        self.text.push('(');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.push_value(value);
        }
        self.text.push(')');
    }

    /// `($1, $2, ...)`, an array for each column of rows of this width.
    fn push_columns(&mut self, values: Vec<Value>, width: usize) {
        let mut columns: Vec<Column> = (0..width).map(|_| Column::default()).collect();
        values.into_iter().enumerate().for_each(|(index, value)| columns[index % width].push(value));
        self.text.push('(');
        for (index, column) in columns.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.push_parameter();
            self.bind_column(column);
        }
        self.text.push(')');
    }

    fn push_value(&mut self, value: Value) {
        self.push_parameter();
        self.bind(value);
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
            let sql = Sql::new("select a from t where b = ").arg("x").push(" and c ").in_list(0..count).push(" limit ");
            query(sql.arg(5)).sql().as_str().to_owned()
        };
        assert_eq!(statement(2), "select a from t where b = $1 and c = any($2) limit $3");
        assert_eq!(statement(7), statement(2));
        assert_eq!(statement(1), "select a from t where b = $1 and c in ($2) limit $3");

        let insert = |count: i64| {
            let rows = (0..count).map(|n| [n.into(), "x".into(), Value::Bytes(None)]);
            let sql = Sql::new("insert into t (a, b, c) ").values(rows).push(" on conflict do nothing");
            query(sql).sql().as_str().to_owned()
        };
        assert_eq!(insert(2), "insert into t (a, b, c) select * from unnest($1, $2, $3) on conflict do nothing");
        assert_eq!(insert(7), insert(2));
        assert_eq!(insert(1), "insert into t (a, b, c) values ($1, $2, $3) on conflict do nothing");
    }

    /// Earlier code rendered by rewriting words of the text, and took every `?` for a parameter.
    #[test]
    fn only_typed_parts_are_rendered_and_text_stays_as_it_is() {
        let sql =
            Sql::new("select 'values in ?', a from (select a from t where a in (1) union values (2)) x where a in ")
                .push("(select b from u where b = ")
                .arg(1)
                .push(") and a ")
                .in_list([2, 3])
                .push(" and c <> 'values ' and d in ")
                .push("(4)");
        assert_eq!(
            query(sql.clone()).sql().as_str(),
            "select 'values in ?', a from (select a from t where a in (1) union values (2)) x where a in \
             (select b from u where b = $1) and a = any($2) and c <> 'values ' and d in (4)"
        );
        assert_eq!(
            sql.text(),
            "select 'values in ?', a from (select a from t where a in (1) union values (2)) x where a in \
             (select b from u where b = ?) and a in (?, ?) and c <> 'values ' and d in (4)"
        );
    }
}
