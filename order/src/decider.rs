//! The rules and the tables, joined for the writer.

use meshwork_events::{
    store::{StoreError, Transaction},
    writer::{Decider, Outcome, Rows},
};

use crate::{
    domain::{self, Input, Key, Refusal, Reply, Row},
    store,
    watchers::Watchers,
};

/// What the order service decides.
pub struct Orders {
    watchers: Watchers,
}

impl Orders {
    /// The rules, with a way to those who wait for orders to change.
    pub(crate) fn new(watchers: Watchers) -> Self {
        Self { watchers }
    }

    /// Who waits for which order to change.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }
}

impl Decider for Orders {
    type Key = Key;
    type Row = Row;
    type Input = Input;
    type Reply = Reply;
    type Refusal = Refusal;

    fn keys(&self, input: &Input, keys: &mut Vec<Key>) {
        domain::keys(input, keys);
    }

    fn decide(&self, rows: &Rows<Key, Row>, input: &Input) -> Result<Outcome<Self>, Refusal> {
        let (rows, events, reply) = domain::decide(rows, input)?;
        Ok(Outcome { rows, events, reply })
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
        store::load(tx, keys).await
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
        store::save(tx, changed).await
    }
}
