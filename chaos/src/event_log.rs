//! A service's whole log, read from position 0 on one stream as a new view would read it.

use std::collections::BTreeMap;

use futures_util::stream;
use meshwork::{
    channel::Channel,
    contract::meshwork::event::v1::{
        self as event, Credit, GroupLifetime, Open, Opened, Start, SubscribeRequest,
        event_service_client::EventServiceClient, subscribe_request::Action, subscribe_response::Event as Message,
    },
};
use meshwork_events::consumer::{MalformedEvent, decode_event};
use meshwork_shop::contract::shop::{
    customer::v1::{CreditRefused, CreditReleased, CreditReserved, CustomerCreated},
    order::v1::{OrderApproved, OrderCancelled, OrderCreated, OrderRejected, OrderState},
    r#type::v1::Money,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::{
    evidence::{Batch, Event, Fact, Log},
    reads::money,
};

/// Events that may be under way; allowed again as they arrive.
const CREDIT: u32 = 8_192;
/// Requests on their way: one Start for each of 16 partitions, Open, and a Credit for each batch that was read.
const REQUESTS: usize = 64;

/// Reads all that is in a log now.
pub(super) async fn read(source: &'static str, channel: Channel) -> Result<Log, Status> {
    let (requests, outbound) = mpsc::channel(REQUESTS);
    let send = async |action| {
        let sent = requests.send(SubscribeRequest { action: Some(action) }).await;
        sent.map_err(|_| Status::unavailable("the stream has ended"))
    };
    let group = format!("chaos/{}", Uuid::new_v4());
    send(Action::Open(Open { group, types: Vec::new(), lifetime: GroupLifetime::Ephemeral.into() })).await?;
    let outbound = stream::unfold(outbound, async |mut outbound| Some((outbound.recv().await?, outbound)));
    let mut stream = EventServiceClient::new(channel).subscribe(Box::pin(outbound)).await?.into_inner();

    let Opened { store_id, heads } = opened(&mut stream).await?;
    let heads: Vec<(u32, u64)> = heads.into_iter().map(|head| (head.partition, head.head)).collect();
    for (partition, _) in &heads {
        send(Action::Start(Start { partition: *partition, store_id: store_id.clone(), ..Start::default() })).await?;
    }
    send(Action::Credit(Credit { events: CREDIT })).await?;

    let mut log = Log { source, batches: Vec::new(), heads };
    let mut behind: BTreeMap<u32, u64> = log.heads.iter().copied().filter(|(_, head)| *head > 0).collect();
    while !behind.is_empty() {
        let Some(Message::Batch(batch)) = next(&mut stream).await? else { continue };
        if behind.get(&batch.partition).is_some_and(|head| batch.through >= *head) {
            behind.remove(&batch.partition);
        }
        // A batch without events costs one.
        let events = u32::try_from(batch.events.len().max(1)).unwrap_or(CREDIT);
        log.batches.push(batch.try_into()?);
        send(Action::Credit(Credit { events })).await?;
    }
    Ok(log)
}

async fn opened(stream: &mut Streaming<event::SubscribeResponse>) -> Result<Opened, Status> {
    match next(stream).await? {
        Some(Message::Opened(opened)) => Ok(opened),
        _ => Err(Status::internal("a stream that does not begin with Opened")),
    }
}

async fn next(stream: &mut Streaming<event::SubscribeResponse>) -> Result<Option<Message>, Status> {
    let message = stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
    Ok(message.event)
}

impl TryFrom<event::Batch> for Batch {
    type Error = Status;

    fn try_from(batch: event::Batch) -> Result<Self, Status> {
        let event::Batch { partition, after, through, events, .. } = batch;
        let events = events.into_iter().map(Event::try_from).collect::<Result<_, _>>()?;
        Ok(Self { partition, after, through, events })
    }
}

impl TryFrom<event::Event> for Event {
    type Error = Status;

    fn try_from(event: event::Event) -> Result<Self, Status> {
        Ok(Self {
            fact: fact(&event).map_err(|error| Status::internal(error.to_string()))?,
            event_id: event.event_id,
            position: event.position,
            aggregate: (event.aggregate_type, event.aggregate_id),
            version: event.aggregate_version,
        })
    }
}

fn fact(event: &event::Event) -> Result<Fact, MalformedEvent> {
    let ended = |order_id, state| Fact::OrderEnded { order_id, state };
    let cents = |amount: Option<Money>| match money(amount.as_ref()) {
        Ok((_, cents)) => Ok(cents),
        Err(status) => Err(MalformedEvent::new(status.message())),
    };
    Ok(match event.r#type.as_str() {
        "shop.order.v1.OrderCreated" => Fact::OrderCreated { order_id: decode_event::<OrderCreated>(event)?.order_id },
        "shop.order.v1.OrderApproved" => ended(decode_event::<OrderApproved>(event)?.order_id, OrderState::Approved),
        "shop.order.v1.OrderRejected" => ended(decode_event::<OrderRejected>(event)?.order_id, OrderState::Rejected),
        "shop.order.v1.OrderCancelled" => ended(decode_event::<OrderCancelled>(event)?.order_id, OrderState::Cancelled),
        "shop.customer.v1.CustomerCreated" => {
            let CustomerCreated { customer_id, credit_limit, .. } = decode_event(event)?;
            Fact::CustomerCreated { customer_id, limit: cents(credit_limit)? }
        }
        "shop.customer.v1.CreditReserved" => {
            let CreditReserved { customer_id, order_id, amount, .. } = decode_event(event)?;
            Fact::Reserved { customer_id, order_id, cents: cents(amount)? }
        }
        "shop.customer.v1.CreditRefused" => Fact::Refused { order_id: decode_event::<CreditRefused>(event)?.order_id },
        "shop.customer.v1.CreditReleased" => {
            let CreditReleased { customer_id, order_id, amount, .. } = decode_event(event)?;
            Fact::Released { customer_id, order_id, cents: cents(amount)? }
        }
        other => return Err(MalformedEvent::new(format!("an event of an unknown type: {other}"))),
    })
}
