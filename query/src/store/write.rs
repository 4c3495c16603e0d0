//! The view's rows, loaded and saved a batch at a time.

use meshwork_events::store::{MAX_ROWS_PER_STATEMENT, Row as SqlRow, Sql, StoreError, Transaction, Value};
use meshwork_shop::{
    Amount, Currency,
    contract::shop::order::v1::{OrderState, RejectionReason},
};
use uuid::Uuid;

use crate::domain::{CustomerCreated, CustomerRow, Key, OrderCreated, OrderRow, Row};

/// The columns of an order, from `order_view o`; [`order_row`] reads them.
pub(super) const ORDER_COLUMNS: &str = "o.order_id, o.customer_id, o.currency, o.total_minor, o.create_time_ms, o.state, \
     o.reason, o.update_time_ms, o.partition, o.position";

/// The columns of a customer, from `customer_view c`; [`customer_row`] reads them.
pub(super) const CUSTOMER_COLUMNS: &str = "c.customer_id, c.name, c.create_time_ms, c.currency, c.limit_minor, \
     c.limit_position, c.available_minor, c.position";

/// Loads the rows of `keys`, which are sorted; one select for each table.
pub(crate) async fn load(tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
    let mut orders = Vec::with_capacity(keys.len());
    let mut customers = Vec::new();
    for key in keys {
        match key {
            Key::Order(id) => orders.push(*id),
            Key::Customer(id) => customers.push(*id),
        }
    }
    let mut rows = Vec::with_capacity(keys.len());
    for ids in orders.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(format!("select {ORDER_COLUMNS} from order_view o where o.order_id "))
            .in_list(ids.iter().copied())
            .push(" order by o.order_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            rows.push((Key::Order(row.uuid(0)?), Row::Order(order_row(&row)?)));
        }
    }
    for ids in customers.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(format!("select {CUSTOMER_COLUMNS} from customer_view c where c.customer_id "))
            .in_list(ids.iter().copied())
            .push(" order by c.customer_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            rows.push((Key::Customer(row.uuid(0)?), Row::Customer(customer_row(&row)?)));
        }
    }
    Ok(rows)
}

/// Writes rows, which are sorted by key; one upsert for each table.
pub(crate) async fn save(tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
    let mut orders = Vec::with_capacity(changed.len());
    let mut customers = Vec::new();
    for (key, row) in changed {
        match (key, row) {
            (Key::Order(id), Row::Order(row)) => orders.push((*id, row)),
            (Key::Customer(id), Row::Customer(row)) => customers.push((*id, row)),
            (Key::Order(_), Row::Customer(_)) | (Key::Customer(_), Row::Order(_)) => {
                unreachable!("a key and its row are of the same kind")
            }
        }
    }
    for rows in orders.chunks(MAX_ROWS_PER_STATEMENT) {
        tx.execute(upsert_orders(rows)).await?;
    }
    for rows in customers.chunks(MAX_ROWS_PER_STATEMENT) {
        tx.execute(upsert_customers(rows)).await?;
    }
    Ok(())
}

/// Deletes orders of the view.
pub(crate) async fn delete_orders(tx: &mut dyn Transaction, ids: &[Uuid]) -> Result<(), StoreError> {
    delete(tx, "delete from order_view where order_id ", ids).await
}

/// Deletes customers of the view.
pub(crate) async fn delete_customers(tx: &mut dyn Transaction, ids: &[Uuid]) -> Result<(), StoreError> {
    delete(tx, "delete from customer_view where customer_id ", ids).await
}

async fn delete(tx: &mut dyn Transaction, from: &'static str, ids: &[Uuid]) -> Result<(), StoreError> {
    for ids in ids.chunks(MAX_ROWS_PER_STATEMENT) {
        tx.execute(Sql::new(from).in_list(ids.iter().copied())).await?;
    }
    Ok(())
}

fn upsert_orders(rows: &[(Uuid, &OrderRow)]) -> Sql {
    Sql::new(
        "insert into order_view (order_id, customer_id, currency, total_minor, create_time_ms, state, reason, \
         update_time_ms, partition, position) ",
    )
    .values(rows.iter().map(|(id, row)| {
        let total = row.created.map(|created| created.total);
        [
            Value::from(*id),
            Value::from(row.customer_id),
            Value::Text(total.map(|total| total.currency().code().to_owned())),
            Value::from(total.map(Amount::minor)),
            Value::from(row.created.map(|created| created.create_time_ms)),
            Value::from(i64::from(i32::from(row.state))),
            Value::from(i64::from(i32::from(row.reason))),
            Value::from(row.update_time_ms),
            Value::from(i64::from(row.partition)),
            count(row.position),
        ]
    }))
    .push(
        " on conflict (order_id) do update set currency = excluded.currency, total_minor = excluded.total_minor, \
         create_time_ms = excluded.create_time_ms, state = excluded.state, reason = excluded.reason, \
         update_time_ms = excluded.update_time_ms, position = excluded.position",
    )
}

fn upsert_customers(rows: &[(Uuid, &CustomerRow)]) -> Sql {
    Sql::new(
        "insert into customer_view (customer_id, name, create_time_ms, currency, limit_minor, limit_position, \
         available_minor, position) ",
    )
    .values(rows.iter().map(|(id, row)| {
        let currency = row.available.or(row.limit).map(Amount::currency);
        [
            Value::from(*id),
            Value::Text(row.created.as_ref().map(|created| created.name.clone())),
            Value::from(row.created.as_ref().map(|created| created.create_time_ms)),
            Value::Text(currency.map(|currency| currency.code().to_owned())),
            Value::from(row.limit.map(Amount::minor)),
            count(row.limit_position),
            Value::from(row.available.map(Amount::minor)),
            count(row.position),
        ]
    }))
    .push(
        " on conflict (customer_id) do update set name = excluded.name, create_time_ms = excluded.create_time_ms, \
         currency = excluded.currency, limit_minor = excluded.limit_minor, limit_position = excluded.limit_position, \
         available_minor = excluded.available_minor, position = excluded.position",
    )
}

/// A version or position as a column.
pub(super) fn count(count: u64) -> Value {
    Value::from(i64::try_from(count).expect("versions and positions count from 1 and never reach 2^63"))
}

/// Reads [`ORDER_COLUMNS`].
pub(super) fn order_row(row: &SqlRow) -> Result<OrderRow, StoreError> {
    let created = match row.int_or_null(3)? {
        None => None,
        Some(minor) => {
            let total = amount(3, minor, currency(row, 2)?)?;
            Some(OrderCreated { total, create_time_ms: row.int(4)? })
        }
    };
    Ok(OrderRow {
        customer_id: row.uuid(1)?,
        created,
        state: number::<OrderState>(row, 5, "an order state")?,
        reason: number::<RejectionReason>(row, 6, "a rejection reason")?,
        update_time_ms: row.int(7)?,
        partition: number::<u32>(row, 8, "a partition")?,
        position: row.count(9)?,
    })
}

/// Reads [`CUSTOMER_COLUMNS`].
pub(super) fn customer_row(row: &SqlRow) -> Result<CustomerRow, StoreError> {
    let created = match row.int_or_null(2)? {
        None => None,
        Some(create_time_ms) => Some(CustomerCreated { name: row.text(1)?.to_owned(), create_time_ms }),
    };
    let minor_or_null = |column| match row.int_or_null(column)? {
        None => Ok(None),
        Some(minor) => amount(column, minor, currency(row, 3)?).map(Some),
    };
    Ok(CustomerRow {
        created,
        limit: minor_or_null(4)?,
        limit_position: row.count(5)?,
        available: minor_or_null(6)?,
        position: row.count(7)?,
    })
}

fn currency(row: &SqlRow, column: usize) -> Result<Currency, StoreError> {
    Currency::from_code(row.text(column)?).map_err(|_| StoreError::Decode { column, expected: "a currency" })
}

fn amount(column: usize, minor: i64, currency: Currency) -> Result<Amount, StoreError> {
    Amount::new(minor, currency).map_err(|_| StoreError::Decode { column, expected: "an amount" })
}

/// An enum or other number that is kept as a bigint.
fn number<T: TryFrom<i32>>(row: &SqlRow, column: usize, expected: &'static str) -> Result<T, StoreError> {
    let number = i32::try_from(row.int(column)?).ok().and_then(|number| T::try_from(number).ok());
    number.ok_or(StoreError::Decode { column, expected })
}
