//! One trace from the call that places an order to the last event of its saga.

use std::collections::BTreeSet;

use futures_util::stream;
use meshwork::contract::meshwork::event::v1::{
    Credit, Event, GroupLifetime, Open, Start, SubscribeRequest, event_service_client::EventServiceClient,
    subscribe_request::Action, subscribe_response,
};
use meshwork_events::outbox::PARTITIONS;
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::order::v1::CreateOrderRequest;
use tokio::time::timeout;
use tonic::Request;

use crate::shop::{STUCK, Shop, usd};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

on_both_stores!(
    flavor = "multi_thread";
    every_event_of_a_saga_belongs_to_the_trace_of_the_call_that_began_it,
);

async fn every_event_of_a_saga_belongs_to_the_trace_of_the_call_that_began_it(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let customer_id = shop.customer(usd(1500)).await.customer_id;
    let request = CreateOrderRequest { customer_id, total: Some(usd(1234)), request_id: String::new() };
    let mut request = Request::new(request);
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
    let order = shop.orders.clone().create_order(request).await.expect("created").into_inner();
    shop.settled(&order.order_id).await;

    for (service, types) in [
        ("order", ["order.v1.OrderCreated", "order.v1.OrderApproved"].as_slice()),
        ("customer", &["customer.v1.CreditReserved"]),
    ] {
        let wanted = types.iter().map(|name| format!("shop.{name}")).collect::<BTreeSet<_>>();
        let events = timeout(STUCK, events(&shop, service, wanted)).await.expect("the log is read in time");
        for event in events {
            let trace_id = event.trace_parent.split('-').nth(1);
            assert_eq!(trace_id, Some(TRACE_ID), "{}: {:?}", event.r#type, event.trace_parent);
        }
    }
    shop.fleet.stop().await;
}

/// Reads a service's log from its beginning until an event of each type has come.
async fn events(shop: &Shop, service: &str, mut wanted: BTreeSet<String>) -> Vec<Event> {
    let mut source = EventServiceClient::new(shop.fleet.mesh().channel(service));
    let open = Open {
        group: "test".into(),
        types: wanted.iter().cloned().collect(),
        lifetime: GroupLifetime::Ephemeral.into(),
    };
    let start = |partition| Action::Start(Start { partition, ..Start::default() });
    let actions =
        [Action::Open(open), Action::Credit(Credit { events: 1000 })].into_iter().chain((0..PARTITIONS).map(start));
    let requests = actions.map(|action| SubscribeRequest { action: Some(action) }).collect::<Vec<_>>();
    // The request stays open: its end would be the end of the subscription.
    let requests = futures_util::StreamExt::chain(stream::iter(requests), stream::pending());
    let mut responses = source.subscribe(requests).await.expect("opened").into_inner();
    let mut events = Vec::new();
    while !wanted.is_empty() {
        let response = responses.message().await.expect("no error").expect("not ended");
        if let Some(subscribe_response::Event::Batch(batch)) = response.event {
            wanted.retain(|name| batch.events.iter().all(|event| event.r#type != *name));
            events.extend(batch.events);
        }
    }
    events
}
