//! What a registry knows, read page by page: `services` and `instances`.

use std::{
    future::Future,
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use console::{StyledObject, style};
use meshwork::{
    Mesh,
    channel::Channel,
    contract::meshwork::registry::v1::{
        Instance, InstanceStatus, ListInstancesRequest, ListInstancesResponse, ListServicesRequest,
        ListServicesResponse, Service, policy_service_client::PolicyServiceClient,
        registry_service_client::RegistryServiceClient,
    },
    rpc::ProtobufJson,
};
use tonic::{Code, Response, Status};

use crate::{
    args::{InstancesArgs, ServicesArgs},
    error::Error,
    table::{Align, Table, printable},
};

/// How long a registry may take to answer: a person waits, and it answers from memory. A little more than the 3 s after which
/// the channel gives up to connect, because its error says why.
const ANSWER_LIMIT: Duration = Duration::from_millis(3300);

/// How many entries are asked for at once: the most that the contract allows.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// A registry, or a list of them of which the first that answers is asked.
#[derive(Clone)]
pub(crate) struct Directory {
    addresses: String,
    client: RegistryServiceClient<Channel>,
    policy_client: PolicyServiceClient<Channel>,
}

impl Directory {
    /// The registry of a mesh; `addresses` is what errors call it.
    pub(crate) fn new(mesh: &Mesh, addresses: &[String]) -> Self {
        Self { addresses: addresses.join(","), client: mesh.registry(), policy_client: mesh.policies() }
    }

    /// The registry at these addresses.
    pub(crate) fn open(addresses: &[String]) -> Result<Self, Error> {
        let mesh = Mesh::builder().registries(addresses).build().map_err(Error::bad_registry(addresses))?;
        Ok(Self::new(&mesh, addresses))
    }

    /// All services, by name.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, Error> {
        all_pages(|page_token| async move {
            let request = ListServicesRequest { page_size: PAGE_SIZE, page_token };
            let page = self.answer("list the services", self.client().list_services(request)).await?;
            Ok((page.services, page.next_page_token))
        })
        .await
    }

    /// All instances of a service, by instance id.
    pub(crate) async fn instances(&self, service: &str) -> Result<Vec<Instance>, Error> {
        all_pages(|page_token| async move {
            let request = ListInstancesRequest { service: service.to_owned(), page_size: PAGE_SIZE, page_token };
            let page = self.answer("list the instances", self.client().list_instances(request)).await;
            let page = page.map_err(|error| match error {
                Error::Call { status, .. } if status.code() == Code::NotFound => {
                    Error::UnknownService(service.to_owned())
                }
                error => error,
            })?;
            Ok((page.instances, page.next_page_token))
        })
        .await
    }

    /// The client, for calls of other kinds.
    pub(crate) fn client(&self) -> RegistryServiceClient<Channel> {
        self.client.clone()
    }

    /// The client of its policies.
    pub(crate) fn policy_client(&self) -> PolicyServiceClient<Channel> {
        self.policy_client.clone()
    }

    /// Waits for the answer to a call, but no longer than a person would.
    pub(crate) async fn answer<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER_LIMIT, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                Err(Error::NoRegistry { registry: self.addresses.clone(), problem: status.message().to_owned() })
            }
            Ok(Err(status)) => Err(Error::call(what)(status)),
            Err(_) => {
                let problem = format!("no answer for {:.1} s", ANSWER_LIMIT.as_secs_f64());
                Err(Error::NoRegistry { registry: self.addresses.clone(), problem })
            }
        }
    }
}

/// The entries of a list's pages, of which each is asked for with the token of the one before.
pub(crate) async fn all_pages<T, F>(page: impl Fn(String) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let (more, next_page_token) = page(page_token).await?;
        entries.extend(more);
        if next_page_token.is_empty() {
            return Ok(entries);
        }
        page_token = next_page_token;
    }
}

/// `meshwork services`.
pub(crate) async fn services(args: ServicesArgs) -> Result<(), Error> {
    let services = Directory::open(&args.source.registry)?.services().await?;
    let mut out = io::stdout().lock();
    if args.source.json {
        let all = ListServicesResponse { services, next_page_token: String::new() };
        writeln!(out, "{}", ProtobufJson::new().line(&all))?;
        return Ok(());
    }
    let mut table = Table::new([("SERVICE", Align::Left), ("INSTANCES", Align::Right)]);
    for service in services {
        table.row([printable(&service.name), service.instance_count.to_string()]);
    }
    write!(out, "{table}")?;
    Ok(())
}

/// `meshwork instances SERVICE`.
pub(crate) async fn instances(args: InstancesArgs) -> Result<(), Error> {
    let instances = Directory::open(&args.source.registry)?.instances(&args.service).await?;
    let mut out = io::stdout().lock();
    if args.source.json {
        let all = ListInstancesResponse { instances, next_page_token: String::new() };
        writeln!(out, "{}", ProtobufJson::new().line(&all))?;
        return Ok(());
    }
    write!(out, "{}", instance_table(&instances, SystemTime::now()))?;
    Ok(())
}

fn instance_table(instances: &[Instance], now: SystemTime) -> Table<7> {
    let left = |title| (title, Align::Left);
    let right = |title| (title, Align::Right);
    let mut table = Table::new([
        left("INSTANCE"),
        left("ADDRESS"),
        left("STATUS"),
        left("ZONE"),
        left("VERSION"),
        right("WEIGHT"),
        right("AGE"),
    ]);
    for instance in instances {
        let created = instance.create_time.and_then(|time| SystemTime::try_from(time).ok());
        table.row([
            printable(&instance.instance_id),
            printable(&instance.address),
            status_name(instance.status()).to_string(),
            or_dash(&instance.zone),
            or_dash(&instance.version),
            instance.weight.to_string(),
            // A clock that is behind the registry's shows as an age of 0.
            created.map_or_else(|| "-".into(), |created| age(now.duration_since(created).unwrap_or_default())),
        ]);
    }
    table
}

/// A status without its enum's prefix; on a terminal in the colour that says how it is.
pub(crate) fn status_name(status: InstanceStatus) -> StyledObject<&'static str> {
    match status {
        InstanceStatus::Serving => style("SERVING").green(),
        InstanceStatus::Starting => style("STARTING").cyan(),
        InstanceStatus::Draining => style("DRAINING").yellow(),
        InstanceStatus::NotServing => style("NOT_SERVING").red(),
        InstanceStatus::Unspecified => style("-"),
    }
}

/// What was not said shows as a dash, so that columns can be counted.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
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
    use super::*;

    #[tokio::test]
    async fn a_list_of_several_pages_is_read_whole_and_in_order() {
        let page = |page_token: String| async move {
            match page_token.as_str() {
                "" => Ok((vec![1, 2], "second".to_owned())),
                "second" => Ok((vec![3], "third".to_owned())),
                _ => Ok((vec![4], String::new())),
            }
        };
        assert_eq!(all_pages(page).await.expect("pages"), [1, 2, 3, 4]);
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
        let text = console::strip_ansi_codes(&instance_table(&[instance], SystemTime::now()).to_string()).into_owned();
        for line in text.lines() {
            assert!(line.chars().count() <= crate::table::MAX_WIDTH, "{line}");
        }
        assert!(text.contains("NOT_SERVING") && !text.contains('\u{1b}'), "{text}");
    }
}
