//! What the instances of a service have told of their methods. Most tell the same, so that each list is kept once.

use std::{collections::BTreeMap, sync::Arc};

/// How many instances have told each list.
#[derive(Debug, Default)]
pub(super) struct MethodLists(BTreeMap<Arc<[String]>, usize>);

impl MethodLists {
    /// Counts an instance that has told this list, and makes it the one that the others share.
    pub(super) fn add(&mut self, list: &mut Arc<[String]>) {
        if let Some((known, _)) = self.0.get_key_value(&**list) {
            *list = known.clone();
        }
        *self.0.entry(list.clone()).or_default() += 1;
    }

    /// Counts an instance less.
    pub(super) fn remove(&mut self, list: &[String]) {
        let count = self.0.get_mut(list).expect("it was added");
        *count -= 1;
        if *count == 0 {
            self.0.remove(list);
        }
    }

    /// Each list that an instance has told.
    pub(super) fn all(&self) -> Vec<Arc<[String]>> {
        self.0.keys().cloned().collect()
    }
}
