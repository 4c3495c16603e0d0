//! Which service owns a database, and which group owns its cursors.

use super::*;
use crate::store::Database;

on_both_stores!(
    a_database_belongs_to_the_first_service_that_opens_it,
    a_database_of_0_1_belongs_to_the_service_whose_tables_are_in_it,
    each_group_of_a_database_reads_every_event,
    the_cursors_of_0_1_are_taken_over_by_the_group_that_reads_the_source,
    the_lag_of_a_group_is_one_figure_from_its_cursors_however_many_read,
);

async fn a_database_belongs_to_the_first_service_that_opens_it(engine: Engine) {
    let place = engine.place();
    let database = place.open().await;
    Outbox::open(database.clone(), "order").await.expect("it is new");
    Outbox::open(database.clone(), "order").await.expect("it is its own");
    let refused = Outbox::open(database, "customer").await.err().expect("it is another's");
    let cause = std::error::Error::source(&refused).expect("why").to_string();
    assert!(cause.contains("belongs to the service \"order\"") && cause.contains("\"customer\""), "{cause}");
}

async fn a_database_of_0_1_belongs_to_the_service_whose_tables_are_in_it(engine: Engine) {
    let create = |statements| [Migration { version: 1, suits: 1, statements }];
    let place = engine.place();
    let database = place.open().await;
    Outbox::open(database.clone(), "order").await.expect("it is new");
    database.migrate("order", &create(&["create table t (a bigint)"])).await.expect("its tables");
    let forget = |database: Database| async move {
        let mut tx = database.begin().await.expect("begun");
        tx.execute(Sql::new("update store set owner = ''")).await.expect("as 0.1 wrote it");
        tx.commit().await.expect("committed");
    };
    forget(database.clone()).await;
    assert!(Outbox::open(database.clone(), "customer").await.is_err(), "even if it comes first");
    Outbox::open(database.clone(), "order").await.expect("it is its own");

    database.migrate("customer", &create(&["create table u (a bigint)"])).await.expect("another's tables");
    for forgotten in [false, true] {
        if forgotten {
            forget(database.clone()).await;
        }
        for owner in ["order", "customer"] {
            let refused = Outbox::open(database.clone(), owner).await.err().expect("it is shared, or another's");
            let cause = std::error::Error::source(&refused).expect("why").to_string();
            assert!(owner == "customer" && !forgotten || cause.contains("customer, order"), "{owner}: {cause}");
        }
    }
}

/// A consumer of the same database with another group.
fn subscribe_as(fixture: &Fixture, group: &str) -> Subscription {
    let source = Source { group: group.to_owned(), ..source() };
    let client = client(&fixture.producer, &CancellationToken::new());
    Subscription::start(client, fixture.consumer.clone(), fixture.writer.clone(), source)
}

async fn each_group_of_a_database_reads_every_event(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    // Each event would have its effect twice, which this table refuses.
    fixture.operate("drop table seen").await;
    fixture.operate("create table seen (partition bigint not null, position bigint not null)").await;
    let groups = ["consumer", "consumer/audit", "another"];
    let subscriptions = groups.map(|group| subscribe_as(&fixture, group));
    produce(&fixture.producer, 0..200, "").await;
    for partition in 0..PARTITIONS {
        let position = fixture.producer.committed_head(partition).await.expect("readable");
        for subscription in &subscriptions {
            subscription.progress().wait_for(Position { partition, position }).await;
            assert_eq!(subscription.partitions().len(), PARTITIONS as usize, "no other group shares with it");
        }
    }
    let select = "select distinct source from cursor where position > 0 order by source";
    let cursors = fixture.consumer.database().read(Sql::new(select)).await.expect("readable");
    let names: Vec<_> = cursors.iter().map(|row| row.text(0).expect("a name")).collect();
    // The first group has the source's own name; which one that is here varies.
    let own = groups.map(|group| format!("producer/{group}"));
    assert_eq!((names.len(), names[0]), (groups.len(), "producer"), "{names:?}");
    assert!(names[1..].iter().all(|name| own.iter().any(|own| own == name)), "{names:?}");
}

async fn the_cursors_of_0_1_are_taken_over_by_the_group_that_reads_the_source(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    fixture.operate("delete from consumer_group").await;
    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    // Twice would be refused.
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn the_lag_of_a_group_is_one_figure_from_its_cursors_however_many_read(engine: Engine) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::new(&engine).await;
    let draining = CancellationToken::new();
    let subscriptions = [(); 2].map(|()| fixture.subscribe(&draining));
    while subscriptions.iter().any(|subscription| subscription.partitions().len() != 8) {
        tokio::task::yield_now().await;
    }
    produce(&fixture.producer, 0..200, "").await;
    fixture.expect_all_applied().await;
    for subscription in &subscriptions {
        let mut changes = subscription.progress().watch();
        changes.wait_for(|snapshot| snapshot.lag() == 0).await.expect("each knows what the others have read");
    }
    let all = |line: &str| {
        let told = recorder.handle().render();
        told.lines().filter(|told| told.starts_with(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let lag = "meshwork_subscription_lag_events{source=\"producer\",group=\"consumer\"}";
    let patience = Patience::begin();
    while all(lag) != [format!("{lag} 0")] {
        patience.check("the lag is reported").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let running = "meshwork_subscription_state{source=\"producer\",group=\"consumer\",state=\"running\"}";
    assert_eq!(all(running), [format!("{running} 2")]);

    // Also a lag that no task of this process has caused or can change.
    draining.cancel();
    fixture.operate("update cursor set position = 0, event_position = 0").await;
    while all(lag) != [format!("{lag} 200")] {
        patience.check("the lag is reported").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
