//! New ids.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{NoContext, Timestamp, Uuid};

/// A new UUID of version 7: those of a process come in its order. With a wall clock that was set to before 1970, of which a UUID
/// cannot tell, it is one of 1970.
pub fn new_id() -> Uuid {
    id_at(SystemTime::now())
}

fn id_at(now: SystemTime) -> Uuid {
    match now.duration_since(UNIX_EPOCH) {
        // Asks for the time again, because it counts what comes within a millisecond.
        Ok(_) => Uuid::now_v7(),
        Err(_) => Uuid::new_v7(Timestamp::from_unix(NoContext, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_are_ids_before_1970_and_no_two_are_the_same() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let ids = [id_at(before), id_at(before)];
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(new_id() > ids[0]);
    }
}
