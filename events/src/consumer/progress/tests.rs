//! Progress as readers and operators see it.

use super::*;

fn stuck(poison: bool) -> Stuck {
    Stuck { event: None, position: 7, reason: "why".into(), poison }
}

#[test]
fn the_state_of_a_group_is_that_of_its_worst_reader_and_partition() {
    use SubscriptionState::{Connecting, Retrying, Running, Stopped};
    let progress = Progress::default();
    let (one, other) = (progress.reader(), progress.reader());
    one.set_state(Running);
    assert_eq!(progress.snapshot().state, Connecting(None));
    other.set_state(Running);
    assert_eq!(progress.snapshot().state, Running);
    assert!(one.stuck(3, &stuck(false)) && !one.stuck(3, &stuck(false)), "told once");
    assert!(matches!(progress.snapshot().state, Retrying(why) if why == "partition 3, position 7: the cursor: why"));
    other.stuck(4, &stuck(true));
    assert!(matches!(progress.snapshot().state, Stopped(_)));
    assert_eq!(other.unstuck(4), Some(stuck(true)));
    assert_eq!((one.unstuck(3), one.unstuck(3)), (Some(stuck(false)), None));
    other.set_state(Connecting(Some("away".into())));
    other.stuck(5, &stuck(true));
    drop(other);
    assert_eq!(progress.snapshot().state, Running, "a reader that has left reports nothing");
    assert!(progress.snapshot().stuck.is_empty(), "and holds nothing up");
}

#[test]
fn a_cursor_that_others_have_set_back_takes_back_what_was_applied() {
    let at = |position| Position { partition: 3, position };
    let progress = Progress::default();
    let applied = || progress.snapshot().applied;
    progress.confirmed(at(0), false);
    progress.applied([at(10)].into_iter());
    let event = Event { position: 10, event_id: Uuid::from_u128(1).to_string(), ..Event::default() };
    progress.received(&Batch { partition: 3, events: vec![event], after: 9, through: 10, ..Batch::default() });
    let before = vec![0; PARTITIONS as usize];
    assert!(!progress.followed(&before, [at(8)].into_iter()));
    assert_eq!(applied()[3], 10, "read before the last commit");
    assert!(progress.recent(at(10)).is_some());

    assert!(progress.followed(&applied(), [at(8)].into_iter()));
    assert_eq!(applied()[3], 8);
    assert!(progress.recent(at(10)).is_none(), "another event may come to stand there");
    assert!(!progress.followed(&applied(), [at(12)].into_iter()));
    assert_eq!(applied()[3], 12);
    progress.confirmed(at(4), true);
    assert_eq!(applied()[3], 4);
}

#[test]
fn recent_events_are_known_by_their_positions_and_forgotten_when_they_were_another_past() {
    let ids = [1, 2, 3, 4].map(Uuid::from_u128);
    let event =
        |position: u64| Event { position, event_id: ids[position as usize - 1].to_string(), ..Event::default() };
    let progress = Progress::default();
    let through_event_id = ids[3].to_string();
    progress.received(&Batch { events: vec![event(1), event(3)], through: 4, through_event_id, ..Batch::default() });
    let known = |position| progress.recent(Position { partition: 0, position }).and_then(|point| point.event_id);
    assert_eq!([1, 2, 3, 4, 5].map(known), [Some(ids[0]), None, Some(ids[2]), Some(ids[3]), None]);
    progress.received(&Batch { events: vec![event(3)], after: 2, through: 3, ..Batch::default() });
    assert_eq!([1, 3, 4].map(known), [Some(ids[0]), Some(ids[2]), None], "read again from there");
    progress.set_diverged(true);
    assert_eq!([1, 3].map(known), [None, None]);
}
