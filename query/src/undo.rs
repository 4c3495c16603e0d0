//! What the view does about events that it has folded, and that their source has lost: rows that such an event has changed are
//! thrown away, and their partitions are folded again from the beginning. All other rows take that as a repeat.

use meshwork::{
    event::{Fork, Position, Undo, Undone},
    store::{Database, StoreError},
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
    async fn undo(&self, forks: &[Fork], validate_only: bool) -> Result<Undone, Status> {
        let kept: Vec<Position> = forks.iter().map(|fork| fork.common.at).collect();
        let count = self.delete(&kept, validate_only).await.map_err(|error| store_status(DOMAIN, &error))?;
        let what = match self.rows {
            Rows::Orders => "orders of the view that lost events had changed",
            Rows::Customers => "customers of the view that lost events had changed",
        };
        Ok(Undone { effects: vec![(what, count)], from_the_beginning: true })
    }
}

impl ThrowAway {
    async fn delete(&self, kept: &[Position], validate_only: bool) -> Result<u64, StoreError> {
        let mut tx = self.database.begin().await?;
        let deleted = match self.rows {
            Rows::Orders => delete_later_orders(&mut *tx, kept).await?,
            Rows::Customers => delete_later_customers(&mut *tx, kept).await?,
        };
        if !validate_only {
            tx.commit().await?;
        }
        Ok(deleted)
    }
}
