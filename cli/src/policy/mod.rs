//! `meshwork policy` and `meshwork split`: reads what is there, changes it, and sets it whole.
//!
//! A change carries the etag of what it was made from, so that two people do not undo each other's.

mod change;
mod values;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use meshwork::{
    contract::meshwork::registry::v1::{
        GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse, Policy, SetPolicyRequest, SplitPolicy,
        policy_service_client::PolicyServiceClient,
    },
    policy::{self, limits::MAX_VERSIONS},
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;

use crate::{
    args::{PolicyChange, PolicyClearArgs, PolicyCommand, PolicyGetArgs, PolicyListArgs, PolicySetArgs, SplitArgs},
    directory::{Directory, PAGE_SIZE, Registry, all_pages},
    error::Error,
    message_file,
    table::{Align, Table, printable},
};
use values::Value;

/// `meshwork policy`.
pub(crate) async fn run(command: PolicyCommand) -> Result<(), Error> {
    match command {
        PolicyCommand::Get(args) => get(args).await,
        PolicyCommand::List(args) => list(args).await,
        PolicyCommand::Set(args) => set(args).await,
        PolicyCommand::Clear(args) => clear(args).await,
    }
}

/// `meshwork split`.
pub(crate) async fn split(args: SplitArgs) -> Result<(), Error> {
    let split = weights(args.shares)?.map(|weights| SplitPolicy { weights });
    let directory = Directory::open(&args.source)?;
    let now = directory.policy(args.service).await?;
    show_set(&directory, Policy { split, ..now }, args.source.json).await
}

async fn get(args: PolicyGetArgs) -> Result<(), Error> {
    let directory = Directory::open(&args.source)?;
    let policy = directory.policy(args.service).await?;
    directory.warn_of_unknown(&policy.service).await?;
    show(&policy, args.source.json)
}

async fn list(args: PolicyListArgs) -> Result<(), Error> {
    let policies = Directory::open(&args.source)?.policies().await?;
    let mut out = io::stdout().lock();
    if args.source.json {
        let all = ListPoliciesResponse { policies, next_page_token: String::new() };
        writeln!(out, "{}", ProtobufJson::new().line(&all))?;
        return Ok(());
    }
    let mut table = Table::new([("SERVICE", Align::Left), ("FIELD", Align::Left), ("VALUE", Align::Left)]);
    for policy in &policies {
        for Value { field, text, .. } in values::of(policy)?.into_iter().filter(|value| value.set) {
            table.row([printable(&policy.service), field.to_owned(), printable(&text)]);
        }
    }
    Ok(write!(out, "{table}")?)
}

async fn set(args: PolicySetArgs) -> Result<(), Error> {
    let PolicySetArgs { service, change, source } = args;
    if change == PolicyChange::default() {
        return Err(Error::flag("policy set", service, "nothing to set: give a value, such as --timeout 2s"));
    }
    let directory = Directory::open(&source)?;
    let mut policy = match &change.file {
        Some(file) => from_file(file, &service)?,
        None => directory.policy(service).await?,
    };
    change::apply(&change, &mut policy);
    show_set(&directory, policy, source.json).await
}

async fn clear(args: PolicyClearArgs) -> Result<(), Error> {
    let directory = Directory::open(&args.source)?;
    let policy = Policy { service: args.service, ..Policy::default() };
    show_set(&directory, policy, args.source.json).await
}

/// Sets a policy and shows it.
async fn show_set(directory: &Directory, policy: Policy, json: bool) -> Result<(), Error> {
    let set = directory.set_policy(policy).await?;
    // Now: a registry that goes away after this has the policy.
    let left_out = directory.left_out().join(", ");
    directory.warn_of_unknown(&set.service).await?;
    let shown = show(&set, json).map_err(Error::after_work);
    // Its clients go on without the policy, and it may be the one that is asked next.
    if left_out.is_empty() {
        shown
    } else {
        Err(Error::NotAtAll { what: "the policy was not set", registries: left_out })
    }
}

impl Directory {
    /// The policy that holds: of those that the registries have, the one that was set last.
    async fn policy(&self, service: String) -> Result<Policy, Error> {
        let policies = self.all(|registry| policy_of(registry, service.clone())).await?;
        let latest = latest(&policies);
        if policies.iter().any(|policy| policy.etag != latest.etag) {
            to_stderr(format_args!(
                "warning: the registries have different policies for {service}; the newest is used; set it again to make \
                 them equal"
            ));
        }
        Ok(latest.clone())
    }

    /// Sets a policy at every registry that answers. Its etag is checked against the policy that holds.
    async fn set_policy(&self, policy: Policy) -> Result<Policy, Error> {
        // Without a warning if they differ: this makes them equal.
        let holds = latest(&self.all(|registry| policy_of(registry, policy.service.clone())).await?).clone();
        check_replaceable(&policy, &holds)?;
        let set = self.all(|registry| {
            let (mut policy, holds) = (policy.clone(), &holds);
            async move {
                let there = policy_of(registry.clone(), policy.service.clone()).await?;
                policy.etag = etag_at(policy.etag, &there, holds);
                let request = SetPolicyRequest { policy: Some(policy) };
                let mut client = PolicyServiceClient::new(registry.channel.clone());
                registry.answer("set the policy", client.set_policy(request)).await
            }
        });
        Ok(latest(&set.await?).clone())
    }

    /// All that are set, by service.
    async fn policies(&self) -> Result<Vec<Policy>, Error> {
        let told = self.all(policies_of).await?;
        let mut by_service: BTreeMap<String, Vec<Policy>> = BTreeMap::new();
        for policy in told.into_iter().flatten() {
            by_service.entry(policy.service.clone()).or_default().push(policy);
        }
        Ok(by_service.values().map(|policies| latest(policies).clone()).collect())
    }
}

async fn policy_of(registry: Registry, service: String) -> Result<Policy, Error> {
    let mut client = PolicyServiceClient::new(registry.channel.clone());
    registry.answer("get the policy", client.get_policy(GetPolicyRequest { service })).await
}

async fn policies_of(registry: Registry) -> Result<Vec<Policy>, Error> {
    all_pages(|page_token| {
        let registry = registry.clone();
        async move {
            let request = ListPoliciesRequest { page_size: PAGE_SIZE, page_token };
            let mut client = PolicyServiceClient::new(registry.channel.clone());
            let page = registry.answer("list the policies", client.list_policies(request)).await?;
            Ok((page.policies, page.next_page_token))
        }
    })
    .await
}

/// Of at least one policy, the one that was set last.
fn latest(policies: &[Policy]) -> &Policy {
    policies.iter().max_by_key(|policy| set_at(policy)).expect("at least one registry answers")
}

fn set_at(policy: &Policy) -> Option<(i64, i32)> {
    policy.update_time.map(|time| (time.seconds, time.nanos))
}

/// Whether the policy that holds is the one that is to be replaced. A registry that is behind cannot tell, and would be changed. To
/// set what is there already is no conflict, as in the registry.
fn check_replaceable(policy: &Policy, holds: &Policy) -> Result<(), Error> {
    let Policy { etag, service, .. } = policy;
    let is_there = || *holds == Policy { etag: holds.etag.clone(), update_time: holds.update_time, ..policy.clone() };
    if etag.is_empty() || *etag == holds.etag || is_there() {
        return Ok(());
    }
    Err(Error::Changed { what: "policy", service: service.clone(), etag: etag.clone(), command: "policy" })
}

/// The etag to set a policy with at a registry that has `there`. One that was away is behind the others, and no reason to refuse; one
/// that is ahead has a change that was not seen.
fn etag_at(etag: String, there: &Policy, holds: &Policy) -> String {
    if !etag.is_empty() && set_at(there) < set_at(holds) { there.etag.clone() } else { etag }
}

/// The weights of a split; `None`: no version is named.
fn weights(shares: Vec<(String, u32)>) -> Result<Option<BTreeMap<String, u32>>, Error> {
    let given = shares.iter().map(|(version, share)| format!("{version}={share}")).collect::<Vec<_>>().join(" ");
    let mut weights = BTreeMap::new();
    for (version, share) in shares {
        if weights.insert(version.clone(), share).is_some() {
            let problem = format!("version {version} is given twice");
            return Err(Error::flag("VERSION=SHARE", format_args!("{version}={share}"), problem));
        }
    }
    if weights.len() > MAX_VERSIONS {
        return Err(Error::flag("VERSION=SHARE", given, format_args!("must be 1-{MAX_VERSIONS} versions")));
    }
    if !weights.is_empty() && weights.values().all(|share| *share == 0) {
        return Err(Error::flag("VERSION=SHARE", given, "at least one share must be above 0"));
    }
    Ok(Some(weights).filter(|weights| !weights.is_empty()))
}

/// The policy of a file, for a service that the file may leave out.
fn from_file(file: &Path, service: &str) -> Result<Policy, Error> {
    let policy: Policy = message_file::read(file, "a Policy")?;
    message_file::check_service(file, &policy.service, service)?;
    // The registry checks it too; a mistake in a file is one of the command line.
    policy::Policy::try_from(&policy).map_err(|violations| message_file::unusable(file, violations))?;
    Ok(Policy { service: service.to_owned(), ..policy })
}

fn show(policy: &Policy, json: bool) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", ProtobufJson::new().line(policy))?;
        return Ok(());
    }
    let mut table = Table::new([("FIELD", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
    for Value { field, text, set } in values::of(policy)? {
        table.row([field.to_owned(), printable(&text), if set { "policy" } else { "default" }.to_owned()]);
    }
    Ok(write!(out, "{table}")?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[tokio::test]
    async fn a_change_of_nothing_is_a_mistake() {
        let cli = Cli::try_parse_from(["meshwork", "policy", "set", "order"]).expect("it parses");
        let Command::Policy(policy) = cli.command else { panic!("a policy") };
        let error = run(policy.command).await.expect_err("nothing was said");
        assert_eq!(error.to_string(), "policy set order: nothing to set: give a value, such as --timeout 2s");
    }

    #[test]
    fn a_registry_that_is_behind_is_overwritten_and_a_change_that_was_not_seen_is_not() {
        let policy = |etag: &str, seconds: Option<i64>| Policy {
            etag: etag.to_owned(),
            update_time: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            ..Policy::default()
        };
        let holds = policy("read", Some(5));
        let etag = |there: Policy| etag_at("read".to_owned(), &there, &holds);
        assert_eq!(etag(policy("old", Some(4))), "old");
        assert_eq!(etag(policy("none", None)), "none");
        assert_eq!(etag(policy("read", Some(5))), "read");
        assert_eq!(etag(policy("of another", Some(6))), "read", "which that registry refuses");
        assert_eq!(etag_at(String::new(), &policy("old", Some(4)), &holds), "", "whatever is there");
    }

    #[test]
    fn an_etag_that_is_not_in_effect_changes_nothing_at_any_registry() {
        let policy = |etag: &str, timeout: Option<i64>| Policy {
            etag: etag.to_owned(),
            service: "order".to_owned(),
            timeout: timeout.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..Policy::default()
        };
        let holds = policy("in effect", None);
        assert!(check_replaceable(&policy("", Some(1)), &holds).is_ok());
        assert!(check_replaceable(&policy("in effect", Some(1)), &holds).is_ok());
        let error = check_replaceable(&policy("old", Some(1)), &holds).expect_err("changed").to_string();
        assert!(error.starts_with("somebody has changed the policy of order: etag \"old\""), "{error}");
        assert!(check_replaceable(&policy("old", None), &holds).is_ok(), "it is there");
    }

    #[test]
    fn a_version_has_one_share() {
        let share = |version: &str, share| (version.to_owned(), share);
        assert_eq!(weights(vec![]).expect("good"), None);
        let two = weights(vec![share("v1", 95), share("v2", 5)]).expect("good").expect("some");
        assert_eq!(two, BTreeMap::from([share("v1", 95), share("v2", 5)]));
        let twice = weights(vec![share("v1", 95), share("v1", 5)]).expect_err("twice");
        assert_eq!(twice.to_string(), "VERSION=SHARE v1=5: version v1 is given twice");
        let many = (0..=MAX_VERSIONS).map(|version| share(&version.to_string(), 1)).collect();
        assert!(weights(many).expect_err("too many").to_string().ends_with("must be 1-16 versions"));
        let none = weights(vec![share("v1", 0), share("v2", 0)]).expect_err("no calls at all");
        assert_eq!(none.to_string(), "VERSION=SHARE v1=0 v2=0: at least one share must be above 0");
    }

    #[test]
    fn a_file_is_read_for_its_service_and_a_mistake_in_it_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("policy.json");
        let read = |text: &str| {
            fs::write(&file, text).expect("written");
            from_file(&file, "order").map_err(|error| error.to_string())
        };
        let policy = read(r#"{"timeout": "2s", "split": {"weights": {"v1": 95, "v2": 5}}}"#).expect("good");
        assert_eq!((policy.service.as_str(), policy.timeout.map(|t| t.seconds)), ("order", Some(2)));
        for (text, says) in [
            (r#"{"timout": "2s"}"#, "timout"),
            (r#"{"timeout": 2}"#, "must be a Policy as protobuf JSON"),
            (r#"{"timeout": "2h"}"#, "must be a Policy as protobuf JSON"),
            (r#"{"timeout": "7200s"}"#, "policy.timeout"),
            (r#"{"retry": {"maxAttempts": 11}}"#, "policy.retry.max_attempts"),
            (r#"{"service": "customer"}"#, r#"not of "order": remove its field "service", or name customer"#),
            ("\n", "is empty"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with("--file ") && error.contains(says) && !error.contains('\n'), "{error}");
        }
    }
}
