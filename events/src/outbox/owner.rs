//! Keeps a database to one service: a row names its owner, and every open checks it.
//!
//! Two services that share a database share its log, its cursors and its members' rows, and each takes the other's events
//! away (NServiceBus.NHibernate #117). A database of 0.1 has no such row; its tables show the owner.

use crate::store::{Database, Row, Sql, StoreError};

/// The tables that every service has, under the component of this module.
const LOG: &str = "event";

/// Whether a database may be `owner`'s, before anything in it is touched. What cannot be read yet is left to [`claim`].
///
/// # Errors
/// As those of [`claim`].
pub(super) async fn check_unopened(database: &Database, owner: &str) -> Result<(), StoreError> {
    let components = match database.read(select_components()).await {
        Ok(rows) => texts(&rows)?,
        // A new database.
        Err(StoreError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let recorded = match database.read(Sql::new("select owner from store")).await {
        Ok(rows) => texts(&rows)?.pop().unwrap_or_default(),
        // A database of 0.1.
        Err(StoreError::Refused(_)) => String::new(),
        Err(error) => return Err(error),
    };
    check(&recorded, &components, owner)
}

/// Makes the store's row if it is missing, and returns its id.
///
/// # Errors
/// [`StoreError::Owned`] and [`StoreError::Shared`] if another service has its data here.
pub(super) async fn claim(database: &Database, owner: &str) -> Result<String, StoreError> {
    let mut tx = database.begin().await?;
    // Instances that open a new database together agree on the first; another service waits here, and finds it.
    let insert = Sql::new("insert into store (\"only\", store_id, owner) ")
        .values([[1.into(), meshwork::id::new_id().to_string().into(), owner.into()]])
        .push(" on conflict (\"only\") do nothing");
    tx.execute(insert).await?;
    let select = Sql::new("select store_id, owner from store").push(tx.for_update());
    let rows = tx.fetch(select).await?;
    let row = rows.first().expect("there is one row, now or before");
    let (store_id, recorded) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
    check(&recorded, &texts(&tx.fetch(select_components()).await?)?, owner)?;
    if recorded.is_empty() {
        tracing::info!(owner, "recorded the owner of a database of Meshwork 0.1");
        tx.execute(Sql::new("update store set owner = ").arg(owner)).await?;
    }
    tx.commit().await?;
    Ok(store_id)
}

fn select_components() -> Sql {
    Sql::new("select component from schema_version where component <> ").arg(LOG).push(" order by component")
}

fn texts(rows: &[Row]) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
}

/// Whether a database with this owner (empty: of 0.1) and tables of these components is `owner`'s.
fn check(recorded: &str, components: &[String], owner: &str) -> Result<(), StoreError> {
    let is_own = |component: &&String| {
        component.strip_prefix(owner).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let foreign: Vec<&str> = components.iter().filter(|component| !is_own(component)).map(String::as_str).collect();
    let by = owner.to_owned();
    if !recorded.is_empty() && recorded != owner {
        return Err(StoreError::Owned { owner: recorded.to_owned(), by });
    }
    if foreign.is_empty() {
        return Ok(());
    }
    if recorded.is_empty() && foreign.len() == components.len() {
        return Err(StoreError::Owned { owner: foreign.join(", "), by });
    }
    Err(StoreError::Shared { services: components.join(", "), by })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Outbox, schema::MIGRATIONS},
        *,
    };
    use crate::store::{
        Migration,
        fixture::{Engine, Open as _, on_both_stores},
    };

    on_both_stores!(a_database_of_another_service_is_left_as_it_is);

    async fn a_database_of_another_service_is_left_as_it_is(engine: Engine) {
        let place = engine.place();
        let database = place.open().await;
        database.migrate("event", &MIGRATIONS[..3]).await.expect("as 0.1 makes it");
        let table = Migration { version: 1, suits: 1, statements: &["create table customer_order (order_id text)"] };
        database.migrate("order", &[table]).await.expect("its own table");
        Outbox::open(database.clone(), "query").await.map(drop).expect_err("it is another's");
        let select = Sql::new("select max(version) from schema_version where component = 'event'");
        let version = database.read(select).await.expect("readable")[0].int(0).expect("a version");
        assert_eq!(version, 3, "its owner may yet be a program of 0.1");
        Outbox::open(database, "order").await.expect("its own");
    }

    fn checked(recorded: &str, components: &[&str]) -> Result<(), StoreError> {
        check(recorded, &components.iter().map(ToString::to_string).collect::<Vec<_>>(), "query")
    }

    #[test]
    fn a_database_is_its_owners_and_one_without_an_owner_belongs_to_the_service_with_tables_in_it() {
        for (recorded, components) in
            [("", &[][..]), ("query", &[]), ("", &["query", "query_shared"]), ("query", &["query"])]
        {
            assert!(checked(recorded, components).is_ok(), "{recorded} {components:?}");
        }
        for (recorded, components, owner) in
            [("order", &[][..], "order"), ("", &["order"], "order"), ("", &["querying"], "querying")]
        {
            let refused = checked(recorded, components).expect_err("it is another's");
            assert!(matches!(&refused, StoreError::Owned { owner: is, .. } if is == owner), "{refused}");
        }
        for recorded in ["", "query"] {
            let refused = checked(recorded, &["order", "query"]).expect_err("two have used it");
            assert!(matches!(&refused, StoreError::Shared { .. }), "{refused}");
        }
    }
}
