//! Brings a schema up to date in one transaction, and decides which programs may use the schema that they find.
//!
//! A program that is older than the schema works on if the schema still suits it, so that a release can be rolled back: each
//! step says which is the oldest version whose programs can do without knowing of it.

use super::{
    engine::Transaction,
    error::{PROGRAM, StoreError},
    migration::Migration,
    sql::Sql,
};

/// What the database records about a component: its version; and in a table that the first programs do not know, the oldest version
/// that suits that one, and the program that made it so.
const TABLES: [&str; 2] = [
    "create table if not exists schema_version (component text not null primary key, version bigint not null)",
    "create table if not exists schema_suits (component text not null primary key, version bigint not null, \
     oldest bigint not null, program text not null)",
];

/// Runs those of `migrations` that are not recorded for `component`, and records them. `bytes` is the engine's name of the type
/// of bytes. Only one may run at a time: the engine sees to that. `has_tables`: it is known that [`TABLES`] are there; a role that
/// may only use tables could not even ask for them.
pub(super) async fn run(
    mut tx: Box<dyn Transaction>,
    has_tables: bool,
    component: &'static str,
    migrations: &[Migration],
    bytes: &str,
) -> Result<(), StoreError> {
    for table in TABLES.iter().filter(|_| !has_tables) {
        tx.execute(Sql::new(*table)).await?;
    }
    let current = Sql::new("select version from schema_version where component = ").arg(component);
    let version = tx.fetch(current).await?.first().map_or(Ok(0), |row| row.int(0))?;
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    if version > known {
        return suits(&mut *tx, component, version, known).await;
    }
    for migration in migrations.iter().filter(|migration| migration.version > version) {
        for statement in migration.statements(bytes) {
            tx.execute(Sql::new(statement)).await?;
        }
    }
    if version < known {
        let done = Sql::new("insert into schema_version (component, version) ")
            .values([[component.into(), known.into()]])
            .push(" on conflict (component) do update set version = excluded.version");
        tx.execute(done).await?;
        let oldest = migrations.iter().map(|migration| migration.suits).max().unwrap_or(0);
        let suits = Sql::new("insert into schema_suits (component, version, oldest, program) ")
            .values([[component.into(), known.into(), oldest.into(), PROGRAM.into()]])
            .push(" on conflict (component) do update set version = excluded.version, oldest = excluded.oldest, ")
            .push("program = excluded.program");
        tx.execute(suits).await?;
    }
    tx.commit().await
}

/// Whether a program that knows version `known` may use tables of the newer `found`.
async fn suits(tx: &mut dyn Transaction, component: &str, found: i64, known: i64) -> Result<(), StoreError> {
    let recorded = Sql::new("select oldest, program from schema_suits where component = ").arg(component);
    let rows = tx.fetch(recorded.push(" and version = ").arg(found)).await?;
    // A version without a record suits itself alone.
    let (oldest, program) = match rows.first() {
        Some(row) => (row.int(0)?, row.text(1)?.to_owned()),
        None => (found, "an unknown program".to_owned()),
    };
    if known < oldest {
        return Err(StoreError::TooNew { component: component.to_owned(), found, program, known, oldest });
    }
    tracing::info!(
        component,
        found,
        known,
        program,
        "a newer program has changed these tables; this one can still use them"
    );
    Ok(())
}
