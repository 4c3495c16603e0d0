//! What the registries of a mesh know, read page by page: `services` and `instances`.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use console::{StyledObject, style};
use futures_util::future::join_all;
use meshwork::{
    Mesh,
    channel::{Channel, EndpointState},
    contract::meshwork::registry::v1::{
        Instance, InstanceStatus, ListInstancesRequest, ListServicesRequest, ListServicesResponse, Service,
        registry_service_client::RegistryServiceClient,
    },
    identity::Security,
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;
use parking_lot::Mutex;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    args::{ServicesArgs, SourceArgs},
    error::Error,
    table::{Align, Table, printable},
};

/// How long a registry may take to answer: a person waits, and it answers from memory. A little more than the 3 s after which
/// the channel gives up connecting, because its error says why.
const ANSWER_LIMIT: Duration = Duration::from_millis(3300);

/// How long a registry that did not answer is skipped, so that a command of many requests waits for it only once.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// How many entries are asked for at once: the most that the contract allows.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// What the channel says of an answer that is no gRPC.
const NOT_GRPC: &str = "which is not a gRPC response";

/// The registries of a mesh: all that answer are asked, and what they know is put together.
#[derive(Clone)]
pub(crate) struct Directory {
    addresses: Vec<String>,
    security: Security,
    /// One for each address.
    registries: Vec<Channel>,
    /// To the first that answers.
    first: Channel,
    /// By index, when those did not answer that are left alone.
    silent: Arc<Mutex<BTreeMap<usize, Instant>>>,
}

impl Directory {
    /// The registries of a mesh; `addresses` is what errors call them.
    pub(crate) fn new(mesh: &Mesh, addresses: &[String]) -> Self {
        let (registries, first) = (mesh.registries(), mesh.to_registry());
        Self {
            addresses: addresses.to_vec(),
            security: mesh.security().clone(),
            registries,
            first,
            silent: Arc::default(),
        }
    }

    /// The registries that are to be asked.
    pub(crate) fn open(source: &SourceArgs) -> Result<Self, Error> {
        Ok(Self::new(&source.mesh()?, &source.registry))
    }

    /// How instances are connected to.
    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// The registries, as errors call them.
    pub(crate) fn addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// All services, by name.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, Error> {
        let told = self.all(services_of).await?;
        let several = told.len() > 1;
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        for service in told.into_iter().flatten() {
            services.entry(service.name.clone()).or_insert(service);
        }
        if several {
            for service in services.values_mut() {
                let instances = self.instances(&service.name).await?.len();
                service.instance_count = u32::try_from(instances).unwrap_or(u32::MAX);
            }
        }
        Ok(services.into_values().collect())
    }

    /// All instances of a service, by instance id.
    pub(crate) async fn instances(&self, service: &str) -> Result<Vec<Instance>, Error> {
        let told = self.all(|registry| instances_of(registry, service)).await?;
        if told.iter().all(Option::is_none) {
            return Err(Error::UnknownService(service.to_owned()));
        }
        let instances = told.into_iter().flatten().flatten();
        let by_id: BTreeMap<String, Instance> = instances.map(|i| (i.instance_id.clone(), i)).collect();
        Ok(by_id.into_values().collect())
    }

    /// Whether an instance of this service has ever registered, as far as the registries that answer remember.
    pub(crate) async fn knows(&self, service: &str) -> Result<bool, Error> {
        let told = self.all(|registry| instances_of(registry, service)).await?;
        Ok(told.iter().any(Option::is_some))
    }

    /// Warns on stderr of a service that no instance has registered: its name may be misspelled.
    pub(crate) async fn warn_of_unknown(&self, service: &str) -> Result<(), Error> {
        if !self.knows(service).await? {
            to_stderr(format_args!(
                "warning: no instance of {service:?} has registered yet; \"meshwork services\" lists those that have"
            ));
        }
        Ok(())
    }

    /// The client of the first that answers, for calls of which one is enough.
    pub(crate) fn client(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.first.clone())
    }

    /// Waits for the answer of the first that answers, but no longer than a person would.
    pub(crate) async fn answer<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        answer(&self.addresses(), &self.first, what, call).await
    }

    /// The answers of all registries that answer. Names those that do not on stderr, and skips them for a while.
    ///
    /// # Errors
    /// The first error of a registry that answers, or an error that none does.
    pub(crate) async fn all<T, F>(&self, ask: impl Fn(Registry) -> F) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asked = self.to_ask();
        let registry = |index: &usize| {
            ask(Registry { address: self.addresses[*index].clone(), channel: self.registries[*index].clone() })
        };
        let told = join_all(asked.iter().map(registry)).await;
        let (mut answers, mut absent) = (Vec::new(), Vec::new());
        for (index, told) in asked.into_iter().zip(told) {
            match told {
                Ok(answer) => answers.push(answer),
                Err(error) if is_absent(&error) => absent.push((index, error)),
                Err(error) => return Err(error),
            }
        }
        if answers.is_empty() {
            return Err(self.none_answers(absent));
        }
        for (index, error) in absent {
            match error {
                Error::NoRegistry { registry, problem } => {
                    let problem = printable(&problem);
                    to_stderr(format_args!(
                        "warning: the registry at {registry} does not answer ({problem}); the result is without it"
                    ));
                }
                error => {
                    to_stderr(format_args!("warning: {}; the result is without it", printable(&error.to_string())));
                }
            }
            self.silent.lock().insert(index, Instant::now());
        }
        Ok(answers)
    }

    /// Why no registry answers, of each that was asked.
    fn none_answers(&self, mut absent: Vec<(usize, Error)>) -> Error {
        let registry = self.addresses.join(",");
        if absent.len() == 1 {
            return match absent.remove(0).1 {
                Error::NoRegistry { problem, .. } => Error::NoRegistry { registry, problem },
                error => error,
            };
        }
        let problem = |(index, error): &(usize, Error)| match error {
            Error::NoRegistry { registry, problem } => format!("{registry}: {problem}"),
            error => format!("{}: {error}", self.addresses[*index]),
        };
        Error::NoRegistry { registry, problem: absent.iter().map(problem).collect::<Vec<_>>().join("; ") }
    }

    /// The registries that have not answered, and were named.
    pub(crate) fn left_out(&self) -> Vec<&str> {
        self.silent.lock().keys().map(|index| self.addresses[*index].as_str()).collect()
    }

    /// The registries that are not skipped; all, if that would be none.
    fn to_ask(&self) -> Vec<usize> {
        let mut silent = self.silent.lock();
        silent.retain(|_, since| since.elapsed() < LEFT_ALONE);
        let all = 0..self.registries.len();
        if silent.len() == all.len() {
            all.collect()
        } else {
            all.filter(|index| !silent.contains_key(index)).collect()
        }
    }
}

/// One registry of the list.
#[derive(Clone)]
pub(crate) struct Registry {
    address: String,
    pub(crate) channel: Channel,
}

impl Registry {
    /// Where it was asked for.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits for its answer, but no longer than a person would.
    pub(crate) async fn answer<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        answer(&self.address, &self.channel, what, call).await
    }
}

async fn answer<T>(
    registry: &str,
    channel: &Channel,
    what: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let silent = |problem| Error::NoRegistry { registry: registry.to_owned(), problem };
    match tokio::time::timeout(ANSWER_LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unavailable => Err(match domain(&status) {
            // The channel's own errors are of no domain.
            None => silent(unreachable(channel).unwrap_or_else(|| status.message().to_owned())),
            Some(_) => Error::Answered { registry: registry.to_owned(), what, status: Box::new(status) },
        }),
        Ok(Err(status)) if status.code() == Code::Unimplemented || status.message().contains(NOT_GRPC) => {
            Err(Error::NotARegistry { what, status: Box::new(status) })
        }
        Ok(Err(status)) => Err(Error::call(what)(status)),
        Err(_) => Err(silent(format!("no answer within {:.1} s", ANSWER_LIMIT.as_secs_f64()))),
    }
}

/// Why the endpoints of a channel cannot be reached, each reason once; `None`: they can, as far as is known.
fn unreachable(channel: &Channel) -> Option<String> {
    let reasons = channel.endpoints().into_iter().filter_map(|endpoint| match endpoint.state {
        EndpointState::TransientFailure { why } => Some(why),
        EndpointState::Connecting | EndpointState::Ready | EndpointState::Ejected { .. } | EndpointState::Probation => {
            None
        }
    });
    let reasons: BTreeSet<String> = reasons.collect();
    (!reasons.is_empty()).then(|| reasons.into_iter().collect::<Vec<_>>().join("; "))
}

/// Of which service or server an error is.
fn domain(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.domain)
}

/// Whether another registry may do instead: this one is silent, or its server refuses (it is overloaded, or leaves), unlike a
/// registry that has tried.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::NoRegistry { .. } => true,
        Error::Answered { status, .. } => domain(status).as_deref() != Some(meshwork_registry::DOMAIN.name()),
        _ => false,
    }
}

async fn services_of(registry: Registry) -> Result<Vec<Service>, Error> {
    all_pages(|page_token| {
        let registry = registry.clone();
        async move {
            let request = ListServicesRequest { page_size: PAGE_SIZE, page_token };
            let mut client = RegistryServiceClient::new(registry.channel.clone());
            let page = registry.answer("list the services", client.list_services(request)).await?;
            Ok((page.services, page.next_page_token))
        }
    })
    .await
}

/// `None`: this service was never registered there.
async fn instances_of(registry: Registry, service: &str) -> Result<Option<Vec<Instance>>, Error> {
    let pages = all_pages(|page_token| {
        let registry = registry.clone();
        async move {
            let request = ListInstancesRequest { service: service.to_owned(), page_size: PAGE_SIZE, page_token };
            let mut client = RegistryServiceClient::new(registry.channel.clone());
            let page = registry.answer("list the instances", client.list_instances(request)).await?;
            Ok((page.instances, page.next_page_token))
        }
    })
    .await;
    match pages {
        Ok(instances) => Ok(Some(instances)),
        Err(Error::Call { status, .. }) if status.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
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
    let services = Directory::open(&args.source)?.services().await?;
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

#[cfg(test)]
mod tests {
    use meshwork::rpc::{Domain, draining_status};

    use super::*;

    async fn answered(status: Status) -> Error {
        let call = async { Err::<Response<()>, _>(status) };
        let channel = Mesh::builder().registries(["http://a:1"]).build().expect("an address").to_registry();
        answer("http://a:1", &channel, "list the services", call).await.expect_err("no answer")
    }

    #[tokio::test]
    async fn what_a_server_says_is_an_answer_and_what_the_channel_says_is_none() {
        let draining = answered(draining_status()).await.to_string();
        let begin =
            "cannot list the services: the registry at http://a:1 answered UNAVAILABLE: this instance is stopping";
        assert!(draining.starts_with(begin), "{draining}");
        let silent = answered(Status::unavailable("connection refused")).await.to_string();
        let begin = "no registry answers at http://a:1 (--registry): connection refused; start one with ";
        assert!(silent.starts_with(begin), "{silent}");
    }

    #[tokio::test]
    async fn whatever_is_no_registry_is_asked_whether_it_is_one() {
        let html = format!("HTTP 404 from b:1, {NOT_GRPC}");
        for status in [Status::unimplemented(""), Status::unknown(html)] {
            let error = answered(status).await.to_string();
            assert!(error.contains("is this a registry? Give the address of one with --registry"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_refuses_calls_is_left_out_if_another_answers_and_each_says_why_if_none_does() {
        let addresses = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let directory = Directory::new(&Mesh::builder().registries(&addresses).build().expect("addresses"), &addresses);
        let ask = |second: Result<u8, Status>| {
            let second = Arc::new(Mutex::new(Some(second)));
            move |registry: Registry| {
                let said = if registry.address().ends_with(":1") {
                    Err(draining_status())
                } else {
                    second.lock().take().expect("asked once")
                };
                async move { registry.answer("count", async { said.map(Response::new) }).await }
            }
        };
        let silent = directory.all(ask(Err(Status::unavailable("connection refused")))).await;
        let silent = silent.expect_err("no answer").to_string();
        for reason in [":1 answered UNAVAILABLE: this instance is stopping", ":2: connection refused"] {
            assert!(silent.contains(reason), "{silent}");
        }
        assert_eq!(directory.all(ask(Ok(7))).await.expect("one answers"), [7]);
        let failed =
            Domain::new(meshwork_registry::DOMAIN.name()).error(Code::Unavailable, "POLICY_NOT_STORED", "disk");
        let failed = directory.all(ask(Err(failed))).await.expect_err("it has tried").to_string();
        assert!(failed.contains(":2 answered UNAVAILABLE: disk"), "{failed}");
    }

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
}
