//! What the view does about events that it has folded, and that their source has lost: rows that such an event has changed are
//! thrown away, and their partitions are folded again from the beginning. All other rows take that as a repeat.

use meshwork_events::{
    consumer::{Lost, Undo, Undone},
    outbox::Position,
    store::{Database, MAX_ROWS_PER_STATEMENT},
    store_status,
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    message::DOMAIN,
    store::{Found, delete_customers, delete_orders, later_customers, later_orders},
};

/// Rows of one transaction: what a call that is cut off has thrown away stays so, and the next goes on with the others.
const PAGE: usize = MAX_ROWS_PER_STATEMENT;

/// Throws away the rows of the view in `database` that lost events have changed.
pub(crate) struct ThrowAway {
    pub(crate) database: Database,
    pub(crate) rows: Rows,
}

/// Which rows; each kind is folded from the events of one service.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    Orders,
    Customers,
}

#[tonic::async_trait]
impl Undo for ThrowAway {
    async fn undo(&self, lost: &Lost) -> Result<Undone, Status> {
        let failed = |error| store_status(DOMAIN, &error);
        let kept: Vec<Position> = lost.forks().iter().map(|fork| fork.common.at).collect();
        let (mut after, mut count) = (Uuid::nil(), 0);
        loop {
            let found = match self.rows {
                Rows::Orders => later_orders(&*self.database, &kept, after, PAGE).await,
                Rows::Customers => later_customers(&*self.database, &kept, after, PAGE).await,
            };
            let Found { ids, last: Some(last) } = found.map_err(failed)? else { break };
            (after, count) = (last, count + ids.len() as u64);
            if !lost.validate_only() && !ids.is_empty() {
                let mut tx = self.database.begin().await.map_err(failed)?;
                lost.lock(&mut *tx).await?;
                let deleted = match self.rows {
                    Rows::Orders => delete_orders(&mut *tx, &ids).await,
                    Rows::Customers => delete_customers(&mut *tx, &ids).await,
                };
                deleted.map_err(failed)?;
                tx.commit().await.map_err(failed)?;
            }
        }
        let what = match self.rows {
            Rows::Orders => "orders of the view with changes from lost events",
            Rows::Customers => "customers of the view with changes from lost events",
        };
        Ok(Undone { effects: vec![(what, count)], from_the_beginning: true })
    }
}
