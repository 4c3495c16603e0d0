//! Consumer groups: which group reads which log, and the name under which its cursors and members are kept.
//!
//! Cursors are rows by name and partition. Programs of 0.1 know one name for each source, the source's own; so the first
//! group that reads a source keeps its cursors under that name, and takes over what 0.1 has left there. Every other group of
//! the same database has its own name and cursors: it reads every event, whatever other groups read.

use crate::{
    store::{Database, Sql, StoreError, Transaction},
    writer::cursor::CursorName,
};

/// The name of the cursors of `group` on the log of `source`; given once, and kept.
pub(crate) async fn cursor_name(database: &Database, source: &str, group: &str) -> Result<CursorName, StoreError> {
    let mut tx = database.begin().await?;
    // A service's name has no slash, so no source is called as the second.
    for name in [source.to_owned(), format!("{source}/{group}")] {
        if let Some(given) = given(&mut *tx, source, group).await? {
            tx.commit().await?;
            return Ok(given);
        }
        let insert = Sql::new("insert into consumer_group (source, consumer_group, cursor_name) ")
            .values([[source.into(), group.into(), name.into()]])
            .push(" on conflict do nothing");
        tx.execute(insert).await?;
    }
    let name = given(&mut *tx, source, group).await?.expect("the second name is no other group's");
    tx.commit().await?;
    Ok(name)
}

async fn given(tx: &mut dyn Transaction, source: &str, group: &str) -> Result<Option<CursorName>, StoreError> {
    let select = Sql::new("select cursor_name from consumer_group where source = ").arg(source);
    let rows = tx.fetch(select.push(" and consumer_group = ").arg(group)).await?;
    rows.first().map(|row| row.text(0).map(CursorName::from)).transpose()
}
