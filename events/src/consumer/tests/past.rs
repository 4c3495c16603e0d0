//! A source whose past is not what its readers have read: a store that was set back to a backup, and has gone on.

use meshwork::contract::meshwork::event::v1::GetPositionRequest;

use super::*;

on_both_stores!(
    a_source_that_was_set_back_is_noticed_however_far_it_has_come_since,
    a_reader_that_was_set_back_reads_again_from_where_it_was,
    cursors_of_0_1_get_their_events_at_the_first_start,
    a_cursor_that_programs_of_0_1_have_moved_is_not_mistaken_for_another_past,
    what_was_pruned_is_checked_against_the_base_and_what_cannot_be_checked_has_expired,
    what_was_pruned_under_a_stream_ends_it_and_what_is_missing_holds_up_its_partition,
    a_position_is_told_with_its_event,
    a_store_that_goes_back_while_it_is_open_takes_no_more_and_says_so,
    a_store_that_went_back_is_not_well_again_however_far_others_have_come_since,
    a_writer_notices_that_its_store_went_back_when_others_have_come_as_far_again,
    a_stream_does_not_go_on_in_a_log_that_went_back_under_it,
    an_idle_stream_ends_once_its_store_is_known_to_have_gone_back,
    the_streams_of_an_instance_that_is_not_serving_end_so_that_its_readers_look_elsewhere,
    a_token_is_of_what_was_read_or_of_what_was_lost_or_of_what_is_yet_to_be_noticed,
);

/// Copies of a log's tables, to be put back later.
pub(super) const BACKUP: [&str; 2] =
    ["create table outbox_backup as select * from outbox", "create table head_backup as select * from outbox_head"];
pub(super) const RESTORE: [&str; 4] = [
    "delete from outbox",
    "insert into outbox select * from outbox_backup",
    "delete from outbox_head",
    "insert into outbox_head select * from head_backup",
];

pub(super) async fn run(outbox: &Outbox, statements: &[&'static str]) {
    let mut tx = outbox.database().begin().await.expect("begun");
    for sql in statements {
        tx.execute(Sql::new(*sql)).await.expect(sql);
    }
    tx.commit().await.expect("committed");
}

/// The same store after its process has started again.
pub(super) async fn reopened(outbox: &Outbox) -> Outbox {
    Outbox::open(outbox.database().clone(), SOURCE).await.expect("a log")
}

/// 100 events are read, the source is set back to the first 50, and has written `since` others.
pub(super) async fn set_back(engine: &Engine, since: u128) -> (Fixture, Outbox) {
    let fixture = Fixture::new(engine).await;
    produce(&fixture.producer, 0..50, "").await;
    run(&fixture.producer, &BACKUP).await;
    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;

    run(&fixture.producer, &RESTORE).await;
    let restored = reopened(&fixture.producer).await;
    produce(&restored, (0..since).map(|n| n % 50), "").await;
    (fixture, restored)
}

async fn a_source_that_was_set_back_is_noticed_however_far_it_has_come_since(engine: Engine) {
    for (since, says) in
        [(0, "events were lost"), (10, "events were lost"), (50, "others have come"), (500, "others have come")]
    {
        let (fixture, restored) = set_back(&engine, since).await;
        let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
        let problem = wait_for_stop(&subscription).await;
        assert!(problem.contains(says), "{since}: {problem}");
        assert!(subscription.progress().snapshot().diverged);
        assert_eq!(subscription.progress().snapshot().applied, [0; PARTITIONS as usize], "no position means anything");
        let mut condition = subscription.condition();
        while condition.problem().is_none() {
            condition.changed().await;
        }
        let seen = fixture.consumer.database().read(Sql::new("select count(*) from seen")).await.expect("readable");
        assert_eq!(seen[0].count(0).expect("a count"), 100, "nothing of another past has effects");
    }
}

async fn a_reader_that_was_set_back_reads_again_from_where_it_was(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    let backup =
        ["create table seen_backup as select * from seen", "create table cursor_backup as select * from cursor"];
    run(&fixture.consumer, &backup).await;

    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;

    let restore = ["delete from seen", "insert into seen select * from seen_backup", "delete from cursor"];
    run(&fixture.consumer, &restore).await;
    run(&fixture.consumer, &["insert into cursor select * from cursor_backup"]).await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn cursors_of_0_1_get_their_events_at_the_first_start(engine: Engine) {
    let (fixture, restored) = {
        let fixture = Fixture::new(&engine).await;
        produce(&fixture.producer, 0..50, "").await;
        run(&fixture.producer, &BACKUP).await;
        produce(&fixture.producer, 0..50, "").await;
        let subscription = fixture.subscribe(&CancellationToken::new());
        fixture.expect_all_applied().await;
        subscription.stop().await;
        run(&fixture.consumer, &["update cursor set event_id = '', event_position = 0"]).await;

        // No event comes: the Start alone is enough.
        let subscription = fixture.subscribe(&CancellationToken::new());
        loop {
            let cursors = cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
            if cursors.values().all(|cursor| cursor.position == 0 || !cursor.event_id.is_empty()) {
                break;
            }
            tokio::task::yield_now().await;
        }
        subscription.stop().await;
        run(&fixture.producer, &RESTORE).await;
        let restored = reopened(&fixture.producer).await;
        produce(&restored, 0..50, "").await;
        (fixture, restored)
    };
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    assert!(wait_for_stop(&subscription).await.contains("others have come"));
}

async fn a_cursor_that_programs_of_0_1_have_moved_is_not_mistaken_for_another_past(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 4], "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    produce(&fixture.producer, [7; 4], "").await;
    // As they write it, with the effects of three more events.
    run(
        &fixture.consumer,
        &[
            "insert into cursor (source, partition, store_id, position) \
             select source, partition, store_id, position + 3 from cursor where position > 0 \
             on conflict (source, partition) do update set store_id = excluded.store_id, position = excluded.position",
            "insert into seen (partition, position) select partition, position + 4 from seen where position <= 3",
        ],
    )
    .await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn what_was_pruned_under_a_stream_ends_it_and_what_is_missing_holds_up_its_partition(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 10], "").await;
    let partition = partition_of(Uuid::from_u128(7));
    let sent = async || {
        let damaged = reopened(&fixture.producer).await;
        let start = Action::Start(Start { partition, ..Start::default() });
        let responses = session(&damaged, vec![open(), start, Action::Credit(Credit { events: 100 })]).await?;
        let through = responses.iter().filter_map(|response| match &response.event {
            Some(subscribe_response::Event::Batch(batch)) => Some(batch.through),
            _ => None,
        });
        Ok::<_, Status>(through.max())
    };
    assert_eq!(sent().await.expect("whole"), Some(10));
    for (gone, through) in [("delete from outbox where position = 6", Some(5)), ("delete from outbox", None)] {
        run(&fixture.producer, &[gone]).await;
        assert_eq!(sent().await.expect("no reader has to begin anew"), through, "{gone}");
    }
    let base = "insert into outbox_base (partition, position, event_id) select partition, 3, 'third' from outbox_head";
    run(&fixture.producer, &[base]).await;
    assert_eq!(sent().await.expect_err("it was pruned").code(), Code::OutOfRange);
}

async fn what_was_pruned_is_checked_against_the_base_and_what_cannot_be_checked_has_expired(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 10], "").await;
    let partition = partition_of(Uuid::from_u128(7));
    let fourth =
        fixture.producer.read(Position { partition, position: 3 }, 1).await.expect("readable")[0].event_id.clone();
    let mut tx = fixture.producer.database().begin().await.expect("begun");
    tx.execute(Sql::new("delete from outbox where position <= 4")).await.expect("pruned");
    let base = [[i64::from(partition).into(), 4.into(), fourth.as_str().into()]];
    let note = Sql::new("insert into outbox_base (partition, position, event_id) ").values(base);
    tx.execute(note).await.expect("noted");
    tx.commit().await.expect("committed");
    let pruned = reopened(&fixture.producer).await;
    let start = |after, id: &str| {
        let store_id = pruned.store_id().to_owned();
        Action::Start(Start { partition, store_id, after, after_event_id: id.to_owned() })
    };
    let credit = || Action::Credit(Credit { events: 100 });

    let responses =
        session(&pruned, vec![open(), start(4, &fourth), credit()]).await.expect("it reads on from the base");
    let Some(subscribe_response::Event::Opened(opened)) = &responses[0].event else { panic!("not opened") };
    let head = &opened.heads[partition as usize];
    assert_eq!((head.head, head.base, head.base_event_id.as_str()), (10, 4, fourth.as_str()));
    let Some(subscribe_response::Event::Batch(batch)) = &responses[2].event else { panic!("no batch") };
    assert_eq!((batch.after, batch.through, batch.events.len()), (4, 10, 6));

    for (after, id, code) in [(4, "other", Code::DataLoss), (3, "", Code::OutOfRange), (0, "", Code::OutOfRange)] {
        let refused = session(&pruned, vec![open(), start(after, id), credit()]).await.expect_err("refused");
        assert_eq!(refused.code(), code, "{after} {id}: {refused}");
    }

    let at_the_beginning = GetPositionRequest { partition, position: 0 };
    let told = client(&pruned, &CancellationToken::new()).get_position(at_the_beginning).await.expect("everywhere");
    assert_eq!(told.into_inner().store_id, pruned.store_id());

    // Taken away without a note: nothing says whose past that was.
    let mut tx = fixture.producer.database().begin().await.expect("begun");
    tx.execute(Sql::new("delete from outbox where position <= 6")).await.expect("deleted");
    tx.commit().await.expect("committed");
    let damaged = reopened(&fixture.producer).await;
    for after in [4, 5] {
        let start =
            Action::Start(Start { partition, store_id: damaged.store_id().to_owned(), after, ..Start::default() });
        let answer = session(&damaged, vec![open(), start, credit()]).await;
        let batches = |responses: &[SubscribeResponse]| {
            responses.iter().any(|response| matches!(response.event, Some(subscribe_response::Event::Batch(_))))
        };
        match answer {
            // It goes on behind the base, where an event is missing.
            Ok(responses) => assert!(after == 4 && !batches(&responses), "{after}: {responses:?}"),
            Err(refused) => assert_eq!((after, refused.code()), (5, Code::OutOfRange), "{refused}"),
        }
    }
}

async fn a_position_is_told_with_its_event(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 3], "").await;
    let partition = partition_of(Uuid::from_u128(7));
    for outbox in [&fixture.producer, &reopened(&fixture.producer).await] {
        let mut client = client(outbox, &CancellationToken::new());
        let mut position = async |partition, position| {
            client.get_position(GetPositionRequest { partition, position }).await.map(|at| at.into_inner().event_id)
        };
        let second = outbox.read(Position { partition, position: 1 }, 1).await.expect("readable")[0].event_id.clone();
        assert_eq!(position(partition, 2).await.expect("there"), second);
        assert_eq!(position(partition, 0).await.expect("everywhere"), "");
        assert_eq!(position(partition, 4).await.expect_err("beyond").code(), Code::OutOfRange);
        assert_eq!(position(16, 0).await.expect_err("no partition").code(), Code::InvalidArgument);
    }
}

async fn a_store_that_goes_back_while_it_is_open_takes_no_more_and_says_so(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    run(&fixture.producer, &BACKUP).await;
    produce(&fixture.producer, 0..50, "").await;
    fixture.producer.check().await.expect("well");
    run(&fixture.producer, &RESTORE).await;

    assert!(went_back(&fixture.producer.check().await));
    assert!(went_back(&append_one(&fixture.producer).await));
    let mut condition = fixture.producer.condition();
    while condition.problem().is_none() {
        condition.changed().await;
    }

    run(&fixture.producer, &["update store set store_id = 'another'"]).await;
    assert!(matches!(fixture.producer.check().await, Err(StoreError::Replaced { .. })));
}

fn went_back<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::WentBack { .. }))
}

async fn append_one(outbox: &Outbox) -> Result<Vec<Event>, StoreError> {
    let key = Uuid::from_u128(7);
    let mut tx = outbox.database().begin().await.expect("begun");
    outbox.append(&mut *tx, vec![NewEvent::new(key, ("thing", key), 1, 0, &Service::default())]).await
}

async fn a_store_that_went_back_is_not_well_again_however_far_others_have_come_since(engine: Engine) {
    for since in [0, 50, 500] {
        // The first process lives on, beside another that has started after the restore.
        let (fixture, _other) = set_back(&engine, since).await;
        let cursors = async || cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
        let (heads, read) = (fixture.producer.heads(), cursors().await);
        let subscription = fixture.subscribe(&CancellationToken::new());
        assert!(went_back(&fixture.producer.check().await), "{since}");
        assert!(went_back(&append_one(&fixture.producer).await), "{since}");
        produce(&reopened(&fixture.producer).await, 0..500, "").await;
        assert!(went_back(&fixture.producer.check().await), "it stays so");
        assert_eq!(fixture.producer.heads(), heads, "nothing is published on top of what was lost");

        let ended = session(&fixture.producer, vec![open()]).await.expect_err("no log to read");
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        subscription.stop().await;
        assert_eq!(cursors().await, read, "no reader was given what would not stay");
    }
}

async fn a_writer_notices_that_its_store_went_back_when_others_have_come_as_far_again(engine: Engine) {
    let (fixture, other) = set_back(&engine, 50).await;
    assert_eq!(fixture.producer.heads(), other.heads());
    assert!(went_back(&append_one(&fixture.producer).await));
    append_one(&other).await.expect("it knows this past");
}

async fn a_stream_does_not_go_on_in_a_log_that_went_back_under_it(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 100], "").await;
    let partition = partition_of(Uuid::from_u128(7));
    // Nothing is in its memory.
    let outbox = reopened(&fixture.producer).await;
    let (requests, queue) = tokio::sync::mpsc::channel(10);
    let send = async |action| requests.send(SubscribeRequest { action: Some(action) }).await.expect("read");
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    send(open()).await;
    let store_id = outbox.store_id().to_owned();
    send(Action::Start(Start { partition, store_id, after: 60, ..Start::default() })).await;
    send(Action::Credit(Credit { events: 10 })).await;
    let mut responses = client(&outbox, &CancellationToken::new()).subscribe(stream).await.expect("open").into_inner();
    let batch = loop {
        let response = responses.message().await.expect("well").expect("open");
        if let Some(subscribe_response::Event::Batch(batch)) = response.event {
            break batch;
        }
    };
    assert_eq!((batch.after, batch.through), (60, 70));

    run(&fixture.producer, &["update outbox set event_id = 'another' where position = 70"]).await;
    send(Action::Credit(Credit { events: 10 })).await;
    let ended = responses.message().await.expect_err("another past");
    assert_eq!(ended.code(), Code::DataLoss, "{ended}");
    assert!(ended.message().contains("where another stands now"), "{ended}");
}

async fn an_idle_stream_ends_once_its_store_is_known_to_have_gone_back(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    run(&fixture.producer, &BACKUP).await;
    produce(&fixture.producer, 0..50, "").await;
    let open = SubscribeRequest { action: Some(open()) };
    let requests = tokio_stream::once(open).chain(tokio_stream::pending());
    let mut responses =
        client(&fixture.producer, &CancellationToken::new()).subscribe(requests).await.expect("open").into_inner();
    responses.message().await.expect("opened").expect("opened");
    run(&fixture.producer, &RESTORE).await;
    fixture.producer.check().await.expect_err("set back");
    let ended = responses.message().await.expect_err("it ends, and before the next heartbeat");
    assert_eq!(ended.code(), Code::Unavailable);
}

async fn the_streams_of_an_instance_that_is_not_serving_end_so_that_its_readers_look_elsewhere(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let serving = Conditioner::default();
    let feed = Feed::service(fixture.producer.clone(), CancellationToken::new(), serving.condition());
    let mut client = EventServiceClient::new(feed);
    let requests = || {
        let open = SubscribeRequest { action: Some(open()) };
        tokio_stream::once(open).chain(tokio_stream::pending())
    };
    let mut responses = client.subscribe(requests()).await.expect("open").into_inner();
    responses.message().await.expect("opened").expect("opened");
    serving.set(Err("refused by the registry".to_owned()));
    let ended = responses.message().await.expect_err("it ends, and before the next heartbeat");
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("refused by the registry"), "{ended}");

    let mut responses = client.subscribe(requests()).await.expect("open").into_inner();
    assert_eq!(responses.message().await.expect_err("nor does another begin").code(), Code::Unavailable);
    serving.set(Ok(()));
    let mut responses = client.subscribe(requests()).await.expect("open").into_inner();
    responses.message().await.expect("opened").expect("opened");
}

async fn a_token_is_of_what_was_read_or_of_what_was_lost_or_of_what_is_yet_to_be_noticed(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let partition = partition_of(Uuid::from_u128(7));
    let token_at = async |outbox: &Outbox, position: u64| {
        let event = outbox.read(Position { partition, position: position - 1 }, 1).await.expect("readable")[0].clone();
        PositionToken {
            event_id: event.event_id.clone(),
            source: SOURCE.into(),
            partition,
            position,
            ..PositionToken::default()
        }
    };
    produce(&fixture.producer, [7; 5], "").await;
    run(&fixture.producer, &BACKUP).await;
    produce(&fixture.producer, [7; 5], "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    while subscription.progress().snapshot().state != SubscriptionState::Running {
        tokio::task::yield_now().await;
    }
    let (kept, lost) = (token_at(&fixture.producer, 3).await, token_at(&fixture.producer, 8).await);
    for token in [&kept, &lost] {
        assert_eq!(subscription.past().check(token).await, Ok(()));
    }

    // The stream to what was there before is still open.
    run(&fixture.producer, &RESTORE).await;
    let restored = reopened(&fixture.producer).await;
    produce(&restored, [7; 5], "").await;
    let new = token_at(&restored, 8).await;
    let past = Past::new(subscription.progress().clone(), &client(&restored, &CancellationToken::new()));
    assert_eq!(past.check(&kept).await, Ok(()));
    assert_eq!(past.check(&new).await, Err(NotThePast::Diverged));
    assert_eq!(past.check(&lost).await, Ok(()), "it was read, and its loss was not noticed yet");

    // A reader that has just started remembers nothing, and does not vouch for what it has yet to compare.
    let unconfirmed = Past::new(Progress::default(), &client(&restored, &CancellationToken::new()));
    assert!(matches!(unconfirmed.check(&new).await, Err(NotThePast::Unknown(_))));
    assert_eq!(unconfirmed.check(&lost).await, Err(NotThePast::Lost));
    subscription.stop().await;
}
