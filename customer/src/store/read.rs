//! The reads of the rpcs, beside the writer. Each customer comes with the head of its partition: a reader that has seen all up
//! to there has seen the customer as it is here.

use meshwork_events::{
    outbox::{HEAD_COLUMNS, LogPoint},
    store::{Database, Sql, StoreError},
};
use uuid::Uuid;

use super::{CUSTOMER_COLUMNS, CUSTOMER_WIDTH, RESERVATION_COLUMNS, customer, reservation, state_number};
use crate::domain::{Customer, Reservation, ReservationState};

/// A customer, if there is one.
pub(crate) async fn get(database: &Database, id: Uuid) -> Result<Option<(Customer, LogPoint)>, StoreError> {
    let rows = select(database, |sql| sql.push(" where customer_id = ").arg(id)).await?;
    Ok(rows.into_iter().next())
}

/// At most `limit` customers, by id and so by age, after `after`.
pub(crate) async fn list(
    database: &Database,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<(Customer, LogPoint)>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    select(database, |sql| {
        let sql = match after {
            Some(after) => sql.push(" where customer_id > ").arg(after),
            None => sql,
        };
        sql.push(" order by customer_id limit ").arg(limit)
    })
    .await
}

/// At most `limit` reservations that hold credit, by order and so by age, after the order `after`.
pub(crate) async fn reserved_after(
    database: &Database,
    after: Uuid,
    limit: usize,
) -> Result<Vec<Reservation>, StoreError> {
    let select = Sql::new(format!("select {RESERVATION_COLUMNS} from reservation where order_id > "))
        .arg(after)
        .push(" and state = ")
        .arg(state_number(ReservationState::Reserved))
        .push(" order by order_id limit ")
        .arg(i64::try_from(limit).unwrap_or(i64::MAX));
    database.read(select).await?.iter().map(reservation).collect()
}

async fn select(
    database: &Database,
    which: impl FnOnce(Sql) -> Sql + Send,
) -> Result<Vec<(Customer, LogPoint)>, StoreError> {
    let sql = Sql::new(format!(
        "select {CUSTOMER_COLUMNS}, {HEAD_COLUMNS} from customer \
         join outbox_head on outbox_head.partition = customer.partition"
    ));
    let rows = database.read(which(sql)).await?;
    rows.iter().map(|row| Ok((customer(row)?, meshwork_events::outbox::point(row, CUSTOMER_WIDTH)?))).collect()
}
