//! The view as the write side's [`Decider`]: rules from [`domain`], tables from [`store`], changes to the watches.

use std::{convert::Infallible, sync::Arc};

use meshwork_events::{
    store::{StoreError, Transaction},
    writer::{Decider, Outcome, Rows},
};

use crate::{
    domain::{self, Input, Key, Row},
    store,
    watch::Hub,
};

/// Folds consumed events; it takes no commands, emits no events and never refuses one.
#[derive(Debug, Default)]
pub struct View {
    hub: Arc<Hub>,
}

impl View {
    /// Where changes of orders are published.
    pub(crate) fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }
}

impl Decider for View {
    type Key = Key;
    type Row = Row;
    type Input = Input;
    type Reply = ();
    type Refusal = Infallible;

    fn keys(&self, input: &Input, keys: &mut Vec<Key>) {
        keys.push(input.key());
    }

    fn decide(&self, rows: &Rows<Key, Row>, input: &Input) -> Result<Outcome<Self>, Infallible> {
        let mut outcome = Outcome::unchanged(());
        outcome.rows.extend(domain::fold(rows, input).map(|row| (input.key(), row)));
        Ok(outcome)
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
        store::load(tx, keys).await
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
        store::save(tx, changed).await
    }

    fn committed(&self, changed: &[(Key, Row)]) {
        self.hub.publish(changed);
    }
}
