//! A fixed number of places: whoever finds none is turned away, nobody waits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A fixed number of places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { taken: Arc::new(AtomicUsize::new(0)), limit }
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        // Relaxed: the count guards no other memory. Taken first and given back if too many, which under contention may
        // turn away one that would just have fitted, and never lets in one too many.
        let place = Place(self.taken.clone());
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit { Some(place) } else { None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let places = Places::new(2);
        let (first, _second) = (places.take(), places.take());
        assert!(first.is_some());
        assert!(places.take().is_none());
        drop(first);
        let _third = places.take().expect("one was given back");
        assert!(places.take().is_none());
    }
}
