//! `meshwork instances`: what the registry knows of a service's instances, and what each says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use console::{StyledObject, style};
use futures_util::{StreamExt as _, stream};
use meshwork::{
    contract::{
        grpc::health::v1::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
        meshwork::{
            event::v1::{
                ListSubscriptionsResponse, SubscriptionState, SubscriptionStatus,
                operations_service_client::OperationsServiceClient,
            },
            registry::v1::{
                Instance, InstanceStatus, ListInstancesResponse, ListRefusedInstancesRequest, RefusedInstance,
                store_service_client::StoreServiceClient,
            },
        },
    },
    discovery::stores::{Store, shared_store, some_differ},
    identity::Security,
};
use meshwork_registry::ProtobufJson;
use tokio::time::timeout;

use crate::{
    args::InstancesArgs,
    direct::{Direct, MAX_ASKED, said, subscriptions},
    directory::{Directory, Registry, or_dash, status_name},
    error::Error,
    table::{Align, Output, Table, printable},
};

/// How long an instance may take to answer: it does so from memory, and one that hangs must not hold up the table.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// `meshwork instances SERVICE`.
pub(crate) async fn run(args: InstancesArgs) -> Result<(), Error> {
    let directory = Directory::open(&args.source)?;
    let instances = directory.instances(&args.service).await?;
    if args.source.json {
        let all = ListInstancesResponse { instances, next_page_token: String::new() };
        return Ok(writeln!(io::stdout(), "{}", ProtobufJson::new().line(&all))?);
    }
    let asked: Vec<_> = instances.iter().map(|instance| Told::by(instance, directory.security())).collect();
    let told: Vec<_> = stream::iter(asked).buffered(MAX_ASKED).collect().await;
    let refused = directory.all(|registry| refused_by(registry, args.service.clone())).await?.concat();
    let mut out = io::stdout().lock();
    write!(out, "{}", table(&instances, &told, SystemTime::now(), Output::stdout()))?;
    for problem in problems(&args.service, &instances, &told, &refused) {
        writeln!(out, "{}", printable(&problem))?;
    }
    Ok(())
}

/// The instances that a registry has refused lately because of their store; one of Meshwork 0.1 refuses none.
async fn refused_by(registry: Registry, service: String) -> Result<Vec<RefusedInstance>, Error> {
    let mut client = StoreServiceClient::new(registry.channel.clone());
    let request = ListRefusedInstancesRequest { service };
    match registry.answer("list refused instances", client.list_refused_instances(request)).await {
        Ok(listed) => Ok(listed.instances),
        Err(Error::NotARegistry { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What an instance says of itself.
#[derive(Debug)]
struct Told {
    /// Its overall health, or why it does not answer.
    health: Result<ServingStatus, String>,
    /// What it reads from others; nothing, if it reads nothing.
    operations: ListSubscriptionsResponse,
}

impl Told {
    async fn by(instance: &Instance, security: &Security) -> Self {
        let asked = timeout(ANSWER_LIMIT, Self::ask(instance, security)).await;
        let silent = |problem| Self { health: Err(problem), operations: ListSubscriptionsResponse::default() };
        match asked {
            Ok(Ok(told)) => told,
            Ok(Err(problem)) => silent(problem),
            Err(_) => silent(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
        }
    }

    async fn ask(instance: &Instance, security: &Security) -> Result<Self, String> {
        let Direct { transport, origin } = Direct::to_instance(instance, security).await?;
        let mut health = HealthClient::with_origin(transport.clone(), origin.clone());
        let health =
            health.check(HealthCheckRequest::default()).await.map_err(|status| said(&status))?.into_inner().status();
        let mut operations = OperationsServiceClient::with_origin(transport, origin);
        let operations = subscriptions(&mut operations).await?.unwrap_or_default();
        Ok(Self { health: Ok(health), operations })
    }

    fn health(&self) -> StyledObject<&'static str> {
        match &self.health {
            Ok(ServingStatus::Serving) => style("SERVING").green(),
            Ok(status) => style(status.as_str_name()).red(),
            Err(_) => style("silent").red(),
        }
    }

    /// The worst of its subscriptions.
    fn events(&self) -> StyledObject<&'static str> {
        let worst = self.operations.subscriptions.iter().map(standing).max();
        match worst {
            None => style("-"),
            Some(Standing::Running) => style("running").green(),
            Some(Standing::Connecting) => style("connecting").yellow(),
            Some(Standing::Retrying) => style("retrying").yellow(),
            Some(Standing::Late) => style("late").red(),
            Some(Standing::Stopped) => style("stopped").red(),
        }
    }
}

/// How a subscription stands, in a word. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Running,
    Connecting,
    Retrying,
    Late,
    Stopped,
}

fn standing(subscription: &SubscriptionStatus) -> Standing {
    match subscription.state() {
        SubscriptionState::Stopped => Standing::Stopped,
        _ if subscription.unhealthy => Standing::Late,
        SubscriptionState::Retrying => Standing::Retrying,
        SubscriptionState::Connecting => Standing::Connecting,
        SubscriptionState::Running | SubscriptionState::Unspecified => Standing::Running,
    }
}

/// What is wrong, a line for each.
fn problems(service: &str, instances: &[Instance], told: &[Told], refused: &[RefusedInstance]) -> Vec<String> {
    let mut problems = Vec::new();
    for (Instance { instance_id, .. }, told) in instances.iter().zip(told) {
        if let Err(problem) = &told.health {
            problems.push(format!("{instance_id} does not answer: {problem}"));
        }
        let ListSubscriptionsResponse { store_problem, subscriptions, .. } = &told.operations;
        if !store_problem.is_empty() {
            problems.push(format!("{instance_id} is NOT_SERVING: {store_problem}"));
        }
        for subscription in subscriptions {
            let SubscriptionStatus { source, problem, stuck, .. } = subscription;
            let stands = standing(subscription);
            if stands == Standing::Running || (stuck.is_empty() && problem.is_empty()) {
                continue;
            }
            let stands = format!("{stands:?}").to_lowercase();
            let of_partition = |stuck: &meshwork::contract::meshwork::event::v1::StuckPartition| {
                let event = format!(
                    "event {} ({} of {} {})",
                    stuck.event_id, stuck.event_type, stuck.aggregate_type, stuck.aggregate_id
                );
                let what = if stuck.event_id.is_empty() { "the cursor".to_owned() } else { event };
                format!("partition {}, position {}: {what}: {}", stuck.partition, stuck.position, stuck.reason)
            };
            let all: Vec<String> =
                if stuck.is_empty() { vec![problem.clone()] } else { stuck.iter().map(of_partition).collect() };
            let remedy =
                if subscription.diverged { format!("; run `meshwork reconcile {source}`") } else { String::new() };
            let told = |what| format!("{instance_id} events/{source} {stands}: {what}{remedy}");
            problems.extend(all.into_iter().map(told));
        }
    }
    let mut stores: BTreeMap<Store<'_>, Vec<&str>> = BTreeMap::new();
    for instance in instances.iter().filter(|instance| instance.status() == InstanceStatus::Serving) {
        if let Some(store) = shared_store(instance) {
            stores.entry(store).or_default().push(&instance.instance_id);
        }
    }
    // Each registry of a list has refused it.
    let refused: BTreeMap<&str, &RefusedInstance> = refused.iter().map(|r| (r.instance_id.as_str(), r)).collect();
    for RefusedInstance { instance_id, address, store_id, served_store_id } in refused.into_values() {
        let what = match served_store_id.as_str() {
            "" => format!("store {store_id}, but {service} is served from another"),
            served if served == store_id => format!("a copy of store {store_id}, from which {service} is served"),
            served => format!("store {store_id}, but {service} is served from store {served}"),
        };
        problems
            .push(format!("{instance_id} at {address} is refused: it has {what}; see `meshwork store adopt --help`"));
    }
    if some_differ(stores.keys().copied()) {
        let count = stores.len();
        let are_copies = stores.keys().map(|(id, _)| id).collect::<BTreeSet<_>>().len() == 1;
        problems.push(if are_copies {
            format!("{service} is served from {count} copies of a store instead of one: stop the others")
        } else {
            format!("{service} is served from {count} stores instead of one: see `meshwork store adopt --help`")
        });
        let store = |((id, place), instances): (&Store<'_>, &Vec<&str>)| {
            let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
            format!("store {id}{place}: {}", instances.join(" "))
        };
        problems.extend(stores.iter().map(store));
    }
    problems
}

fn table(instances: &[Instance], told: &[Told], now: SystemTime, output: Output) -> Table<9> {
    let left = |title| (title, Align::Left);
    let right = |title| (title, Align::Right);
    let mut table = Table::new([
        left("INSTANCE"),
        left("ADDRESS"),
        left("STATUS"),
        left("HEALTH"),
        left("EVENTS"),
        left("ZONE"),
        left("VERSION"),
        right("WEIGHT"),
        right("AGE"),
    ])
    .on(output);
    for (instance, told) in instances.iter().zip(told) {
        let created = instance.create_time.and_then(|time| SystemTime::try_from(time).ok());
        table.row([
            output.id(&instance.instance_id),
            printable(&instance.address),
            status_name(instance.status()).to_string(),
            told.health().to_string(),
            told.events().to_string(),
            or_dash(&instance.zone),
            or_dash(&instance.version),
            instance.weight.to_string(),
            // A clock that is behind the registry's shows as an age of 0.
            created.map_or_else(|| "-".into(), |created| age(now.duration_since(created).unwrap_or_default())),
        ]);
    }
    table
}

/// A duration in its one largest unit, as in `3h`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::event::v1::StuckPartition;

    use super::*;

    fn told(subscriptions: Vec<SubscriptionStatus>) -> Told {
        let operations = ListSubscriptionsResponse { subscriptions, ..ListSubscriptionsResponse::default() };
        Told { health: Ok(ServingStatus::Serving), operations }
    }

    fn subscription(state: SubscriptionState, unhealthy: bool) -> SubscriptionStatus {
        let problem = if state == SubscriptionState::Running && !unhealthy { "" } else { "why" };
        let (source, problem) = ("order".to_owned(), problem.to_owned());
        SubscriptionStatus { source, state: state.into(), unhealthy, problem, ..SubscriptionStatus::default() }
    }

    #[test]
    fn ages_are_in_their_largest_unit() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (86400, "1d"), (864_000, "10d")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn instances_with_the_longest_values_fit_their_table() {
        let instance = Instance {
            instance_id: "i".repeat(128),
            address: format!("{}:65535", "h".repeat(249)),
            version: "v".repeat(128),
            zone: "\u{1b}[31mz".into(),
            weight: 1000,
            status: InstanceStatus::NotServing.into(),
            ..Instance::default()
        };
        let told = Told {
            health: Ok(ServingStatus::NotServing),
            ..told(vec![subscription(SubscriptionState::Connecting, false)])
        };
        let text = table(&[instance], &[told], SystemTime::now(), Output::Terminal).to_string();
        let text = console::strip_ansi_codes(&text).into_owned();
        for line in text.lines() {
            assert!(line.chars().count() <= crate::table::MAX_WIDTH, "{line}");
        }
        assert!(text.contains("NOT_SERVING") && text.contains("connecting") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_worst_of_an_instances_subscriptions_is_shown() {
        use SubscriptionState::{Connecting, Retrying, Running, Stopped};
        for (subscriptions, shown) in [
            (vec![], "-"),
            (vec![subscription(Running, false), subscription(Running, false)], "running"),
            (vec![subscription(Running, true), subscription(Retrying, false)], "late"),
            (vec![subscription(Connecting, false), subscription(Running, false)], "connecting"),
            (vec![subscription(Stopped, true), subscription(Connecting, false)], "stopped"),
        ] {
            assert_eq!(console::strip_ansi_codes(&told(subscriptions).events().to_string()), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_named_below_the_table() {
        let instance = |id: &str, store_id: &str| Instance {
            instance_id: id.into(),
            store_id: store_id.into(),
            status: InstanceStatus::Serving.into(),
            ..Instance::default()
        };
        let instances = [instance("a", "one"), instance("b", "one"), instance("c", "two"), instance("d", "one")];
        let stuck = StuckPartition {
            partition: 3,
            position: 7,
            event_id: "e".into(),
            event_type: "shop.order.v1.OrderCreated".into(),
            aggregate_type: "order".into(),
            aggregate_id: "o".into(),
            reason: "total is missing".into(),
            poison: true,
        };
        let stopped = SubscriptionStatus { stuck: vec![stuck], ..subscription(SubscriptionState::Stopped, true) };
        let diverged = SubscriptionStatus { diverged: true, ..subscription(SubscriptionState::Stopped, true) };
        let unhealthy = Told {
            operations: ListSubscriptionsResponse { store_problem: "it was removed".into(), ..Default::default() },
            ..told(vec![])
        };
        let silent = Told { health: Err("refused".into()), ..told(vec![]) };
        let well = told(vec![subscription(SubscriptionState::Running, false)]);
        let refused = RefusedInstance {
            instance_id: "e".into(),
            address: "host:1".into(),
            store_id: "three".into(),
            served_store_id: "one".into(),
        };
        let copy = RefusedInstance { instance_id: "f".into(), store_id: "one".into(), ..refused.clone() };
        let told = [told(vec![stopped, diverged]), unhealthy, silent, well];
        let problems = problems("order", &instances, &told, &[refused.clone(), refused, copy]);
        assert_eq!(
            problems,
            [
                "a events/order stopped: partition 3, position 7: event e (shop.order.v1.OrderCreated of order o): \
                 total is missing",
                "a events/order stopped: why; run `meshwork reconcile order`",
                "b is NOT_SERVING: it was removed",
                "c does not answer: refused",
                "e at host:1 is refused: it has store three, but order is served from store one; see `meshwork store adopt \
                 --help`",
                "f at host:1 is refused: it has a copy of store one, from which order is served; see `meshwork store adopt \
                 --help`",
                "order is served from 2 stores instead of one: see `meshwork store adopt --help`",
                "store one: a b d",
                "store two: c",
            ]
        );
    }
}
