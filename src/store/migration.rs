//! A schema's history, brought up to date in one transaction.

use super::{Sql, StoreError, Transaction};

/// One step of a schema's history. Never edited once released; add another.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i64,
    /// Statements, separated by `;`.
    pub sql: &'static str,
}

impl Migration {
    /// The statements of this step, one by one.
    pub(crate) fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split(';').map(str::trim).filter(|statement| !statement.is_empty())
    }
}

/// Runs those of `migrations` that are not recorded for `component`, and records them. `dialect` turns a statement into
/// the engine's. Only one may run at a time: the engine sees to that.
pub(super) async fn run(
    mut tx: Box<dyn Transaction>,
    component: &'static str,
    migrations: &[Migration],
    dialect: fn(&str) -> String,
) -> Result<(), StoreError> {
    let table =
        "create table if not exists schema_version (component text not null primary key, version bigint not null)";
    tx.execute(Sql::new(table)).await?;
    let current = Sql::new("select version from schema_version where component = ").arg(component);
    let version = tx.fetch(current).await?.first().map_or(Ok(0), |row| row.int(0))?;
    for migration in migrations.iter().filter(|migration| migration.version > version) {
        for statement in migration.statements() {
            tx.execute(Sql::new(dialect(statement))).await?;
        }
        let done = Sql::new("insert into schema_version (component, version) values ")
            .rows([[component.into(), migration.version.into()]])
            .push(" on conflict (component) do update set version = excluded.version");
        tx.execute(done).await?;
    }
    tx.commit().await
}
