//! A decider is what a service supplies to the write side: which rows an input touches, and one pure function that decides.
//!
//! `decide` has no I/O, clock or randomness: ids and times come with the input. The pattern is Jérémie Chassaing's
//! "functional event sourcing decider"; rows take the place of the folded state.

use std::{collections::HashMap, fmt::Debug, future::Future, hash::Hash};

use crate::{
    outbox::NewEvent,
    store::{StoreError, Transaction},
};

/// A service's rules and the tables they act on.
pub trait Decider: Send + Sync + 'static {
    /// Names a row that an input may touch. Its order is the order in which rows are locked.
    type Key: Clone + Ord + Hash + Debug + Send + Sync;
    /// A row as the rules see it.
    type Row: Clone + Send + Sync;
    /// A command or a consumed event.
    type Input: Send + Sync + 'static;
    /// What the caller gets when the input was accepted.
    type Reply: Send + 'static;
    /// Why an input was refused. A refused input changes nothing.
    type Refusal: std::error::Error + Send + Sync + 'static;

    /// Appends the keys of all rows that [`decide`](Self::decide) reads or changes for this input, beyond new ones.
    fn keys(&self, input: &Self::Input, keys: &mut Vec<Self::Key>);

    /// Decides one input. Must be pure: the same batch may be decided again after a conflict.
    fn decide(&self, rows: &Rows<Self::Key, Self::Row>, input: &Self::Input) -> Result<Outcome<Self>, Self::Refusal>;

    /// Loads the rows of `keys`, which are sorted and unique; one `select` for each table, ordered by key and ended by
    /// [`Transaction::for_update`]. Keys without a row are left out, and nothing is locked for them: where several
    /// processes share the database, two may both find none. So a new row needs a new id, a unique constraint (the second
    /// batch conflicts, and is repeated), or a row beside it that both lock first. Consumed events have one: their cursor.
    fn load(
        &self,
        tx: &mut dyn Transaction,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<Vec<(Self::Key, Self::Row)>, StoreError>> + Send;

    /// Writes the changed rows, which are sorted by key; one multi-row statement for each table.
    fn save(
        &self,
        tx: &mut dyn Transaction,
        changed: &[(Self::Key, Self::Row)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sees the changed rows of every batch after its commit, in commit order of this process.
    fn committed(&self, _changed: &[(Self::Key, Self::Row)]) {}
}

/// What an accepted input leads to.
#[derive(Debug)]
pub struct Outcome<D: Decider + ?Sized> {
    /// Rows that changed or came to be, each once.
    pub rows: Vec<(D::Key, D::Row)>,
    /// What happened, in order.
    pub events: Vec<NewEvent>,
    /// The answer to the caller.
    pub reply: D::Reply,
}

impl<D: Decider + ?Sized> Outcome<D> {
    /// Nothing changes: a repeat, or something that is settled already.
    pub fn unchanged(reply: D::Reply) -> Self {
        Self { rows: Vec::new(), events: Vec::new(), reply }
    }
}

/// The rows that a batch touches, as they are after the inputs decided so far.
#[derive(Clone, Debug)]
pub struct Rows<K, R> {
    rows: HashMap<K, R>,
}

impl<K, R> Default for Rows<K, R> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<K: Hash + Eq, R> Rows<K, R> {
    /// The row of `key`, if there is one.
    pub fn get(&self, key: &K) -> Option<&R> {
        self.rows.get(key)
    }

    /// Puts a row in its place; returns the row before it. Tests and models use it to apply an [`Outcome`].
    pub fn insert(&mut self, key: K, row: R) -> Option<R> {
        self.rows.insert(key, row)
    }

    /// Takes a row out: the undo of an insert that found nothing.
    pub fn remove(&mut self, key: &K) -> Option<R> {
        self.rows.remove(key)
    }
}

impl<K: Hash + Eq, R> FromIterator<(K, R)> for Rows<K, R> {
    fn from_iter<I: IntoIterator<Item = (K, R)>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect() }
    }
}
