//! Whose database this is: one service's, said in a row that is checked whenever it is opened.
//!
//! Two services that share a database share its log, its cursors and its members' rows, and each takes the other's events
//! away (NServiceBus.NHibernate #117). A database of 0.1 does not say whose it is: its tables do.

use uuid::Uuid;

use crate::store::{Database, Sql, StoreError, Transaction};

/// The tables that every service has, under the component of this module.
const LOG: &str = "event";

/// Makes the store's row if it is missing, and returns its id.
///
/// # Errors
/// [`StoreError::Owned`] and [`StoreError::Shared`] if another service has its data here.
pub(super) async fn claim(database: &Database, owner: &str) -> Result<String, StoreError> {
    let mut tx = database.begin().await?;
    // Instances that open a new database together agree on the first; another service waits here, and finds it.
    let insert = Sql::new("insert into store (\"only\", store_id, owner) values ")
        .rows([[1.into(), Uuid::now_v7().to_string().into(), owner.into()]])
        .push(" on conflict (\"only\") do nothing");
    tx.execute(insert).await?;
    let select = Sql::new("select store_id, owner from store").push(tx.for_update());
    let rows = tx.fetch(select).await?;
    let row = rows.first().expect("there is one row, now or before");
    let (store_id, recorded) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
    check(&recorded, &components(&mut *tx).await?, owner)?;
    if recorded.is_empty() {
        tracing::info!(owner, "recorded the owner of a database of Meshwork 0.1");
        tx.execute(Sql::new("update store set owner = ").arg(owner)).await?;
    }
    tx.commit().await?;
    Ok(store_id)
}

async fn components(tx: &mut dyn Transaction) -> Result<Vec<String>, StoreError> {
    let select = Sql::new("select component from schema_version where component <> ").arg(LOG);
    let rows = tx.fetch(select.push(" order by component")).await?;
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
    use super::*;

    fn checked(recorded: &str, components: &[&str]) -> Result<(), StoreError> {
        check(recorded, &components.iter().map(ToString::to_string).collect::<Vec<_>>(), "query")
    }

    #[test]
    fn a_database_is_its_owners_and_one_without_an_owner_belongs_to_whoever_has_tables_in_it() {
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
