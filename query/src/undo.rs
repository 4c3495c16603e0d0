//! What the view does about events that it has folded, and that their source has lost: rows that such an event has changed are
//! thrown away, and their partitions are folded again from the beginning. All other rows take that as a repeat.

use meshwork::{
    event::{Lost, Position, Undo, Undone},
    store::Database,
};
use meshwork_shop::store_status;
use tonic::Status;

use crate::{
    message::DOMAIN,
    store::{delete_later_customers, delete_later_orders},
};

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
        let mut tx = self.database.begin().await.map_err(failed)?;
        lost.lock(&mut *tx).await?;
        let deleted = match self.rows {
            Rows::Orders => delete_later_orders(&mut *tx, &kept).await,
            Rows::Customers => delete_later_customers(&mut *tx, &kept).await,
        };
        let count = deleted.map_err(failed)?;
        if !lost.validate_only() {
            tx.commit().await.map_err(failed)?;
        }
        let what = match self.rows {
            Rows::Orders => "orders of the view that lost events had changed",
            Rows::Customers => "customers of the view that lost events had changed",
        };
        Ok(Undone { effects: vec![(what, count)], from_the_beginning: true })
    }
}
