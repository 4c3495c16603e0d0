//! Whether instances of a service serve the same store: what the registry refuses, clients warn of, and `meshwork instances` shows.

use crate::contract::meshwork::registry::v1::{Instance, StoreScope};

/// A store's id, and where it is.
pub type Store<'a> = (&'a str, &'a str);

/// The store that an instance's siblings must serve as well. `None`: its store is private, it has none, or does not say.
pub fn shared_store(instance: &Instance) -> Option<Store<'_>> {
    let is_shared = instance.store_scope() != StoreScope::Instance && !instance.store_id.is_empty();
    is_shared.then_some((&instance.store_id, &instance.store_place))
}

/// Whether two stores differ: another id, or a copy at another place. An unknown place matches any.
pub fn are_other(one: Store<'_>, other: Store<'_>) -> bool {
    let ((one_id, one_place), (other_id, other_place)) = (one, other);
    let is_copy = !one_place.is_empty() && !other_place.is_empty() && one_place != other_place;
    one_id != other_id || is_copy
}

/// Whether some of these are not the same.
pub fn some_differ<'a>(mut stores: impl Iterator<Item = Store<'a>>) -> bool {
    let Some((id, mut place)) = stores.next() else { return false };
    stores.any(|(other_id, other_place)| {
        let differs = are_other((id, place), (other_id, other_place));
        // The first that is said is the one that the others must be at.
        if place.is_empty() {
            place = other_place;
        }
        differs
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_at_another_place_is_another_store_and_a_place_that_is_not_said_may_be_any() {
        let differ = |stores: &[Store<'_>]| some_differ(stores.iter().copied());
        assert!(!differ(&[]) && !differ(&[("a", "here")]));
        assert!(!differ(&[("a", "here"), ("a", ""), ("a", "here")]));
        assert!(differ(&[("a", ""), ("a", "here"), ("a", "there")]));
        assert!(differ(&[("a", ""), ("b", "")]));
        let view =
            |scope: StoreScope| Instance { store_id: "a".into(), store_scope: scope.into(), ..Instance::default() };
        assert_eq!(shared_store(&view(StoreScope::Instance)), None);
        assert_eq!(shared_store(&view(StoreScope::Service)), Some(("a", "")));
        assert_eq!(shared_store(&Instance::default()), None);
    }
}
