//! The rules at all registries of a mesh: read from all that answer, and changed at all.

use std::collections::{BTreeMap, BTreeSet};

use meshwork::{
    contract::meshwork::registry::v1::{
        AuthorizationPolicy, DeleteAuthorizationPolicyRequest, GetAuthorizationPolicyRequest,
        ListAuthorizationPoliciesRequest, SetAuthorizationPolicyRequest,
        authorization_service_client::AuthorizationServiceClient,
    },
    identity::{ANONYMOUS, REGISTRY, TlsMode},
};
use meshwork_process::to_stderr;
use prost_types::Timestamp;
use tonic::Code;

use super::shown::has_rules;
use crate::{
    directory::{Directory, PAGE_SIZE, Registry, all_pages},
    error::Error,
};

impl Directory {
    /// The rules of a service that are in effect: of those that the registries have, the ones that were set last.
    pub(super) async fn rules(&self, service: &str) -> Result<AuthorizationPolicy, Error> {
        let found = self.found(service).await?;
        if found.differ() {
            to_stderr(format_args!(
                "warning: the registries have different rules for {service}; the newest are used; set them again to make them equal"
            ));
        }
        Ok(found.latest().clone())
    }

    /// The rules of all services that have some, by service.
    pub(super) async fn all_rules(&self) -> Result<Vec<AuthorizationPolicy>, Error> {
        let told = self.all(policies_of).await?;
        let several = told.len() > 1;
        let by_service: BTreeMap<String, AuthorizationPolicy> =
            told.into_iter().flatten().map(|policy| (policy.service.clone(), policy)).collect();
        let mut in_effect = Vec::new();
        for (service, listed) in by_service {
            // What one lists may have been replaced, or removed, at another.
            let policy = if several { self.found(&service).await?.latest().clone() } else { listed };
            in_effect.extend(has_rules(&policy).then_some(policy));
        }
        Ok(in_effect)
    }

    /// Replaces the rules of a service at every registry that answers; if the policy has an etag, only those with this etag.
    pub(super) async fn set_rules(&self, policy: AuthorizationPolicy) -> Result<AuthorizationPolicy, Error> {
        let found = self.found(&policy.service).await?;
        found.check_replaceable(&policy)?;
        let set = self.all(|registry| {
            let etag = found.etag_at(registry.address());
            let request =
                SetAuthorizationPolicyRequest { policy: Some(AuthorizationPolicy { etag, ..policy.clone() }) };
            let replaced = found.latest();
            async move {
                let mut client = AuthorizationServiceClient::new(registry.channel.clone());
                let set = registry.answer("set the rules", client.set_authorization_policy(request)).await;
                set.map_err(|error| or_changed(error, replaced))
            }
        });
        Ok(latest(&set.await?).clone())
    }

    /// Removes the rules of a service at every registry that answers.
    pub(super) async fn delete_rules(&self, service: &str) -> Result<AuthorizationPolicy, Error> {
        let found = self.found(service).await?;
        let deleted = self.all(|registry| {
            let etag = found.etag_at(registry.address());
            let request = DeleteAuthorizationPolicyRequest { service: service.to_owned(), etag };
            let replaced = found.latest();
            async move {
                let mut client = AuthorizationServiceClient::new(registry.channel.clone());
                let deleted = registry.answer("remove the rules", client.delete_authorization_policy(request)).await;
                deleted.map_err(|error| or_changed(error, replaced))
            }
        });
        Ok(latest(&deleted.await?).clone())
    }

    /// Warns on stderr of a service whose name may be misspelled: no instance of it has registered, and it is not the registry, which
    /// has rules of its own and registers nowhere.
    pub(super) async fn warn_of_unregistered(&self, service: &str) -> Result<(), Error> {
        if service == REGISTRY { Ok(()) } else { self.warn_of_unknown(service).await }
    }

    /// Warns of callers that are not there, of which a name may be misspelled, and of rules that allow nobody in plain mode.
    pub(super) async fn warn_of_callers(&self, policy: &AuthorizationPolicy) -> Result<(), Error> {
        let callers = || policy.allow.iter().flat_map(|rule| &rule.callers).map(String::as_str);
        if self.security().mode() == TlsMode::Plain && !callers().any(|caller| [ANONYMOUS, "*"].contains(&caller)) {
            to_stderr(format_args!(
                "warning: in plain mode every caller is {ANONYMOUS}, and no rule allows that: nobody is let in"
            ));
        }
        let named: BTreeSet<&str> = callers()
            .chain(policy.deny.iter().flat_map(|rule| &rule.callers).map(String::as_str))
            .filter_map(|caller| caller.strip_prefix("service/"))
            .filter(|name| ![REGISTRY, "*"].contains(name))
            .collect();
        let known: BTreeSet<String> = self.services().await?.into_iter().map(|service| service.name).collect();
        for name in named.into_iter().filter(|name| !known.contains(*name)) {
            to_stderr(format_args!(
                "warning: a rule is about the caller service/{name}, of which no instance has registered"
            ));
        }
        Ok(())
    }

    async fn found(&self, service: &str) -> Result<Found, Error> {
        let told = self.all(|registry| async move {
            let request = GetAuthorizationPolicyRequest { service: service.to_owned() };
            let mut client = AuthorizationServiceClient::new(registry.channel.clone());
            let policy = registry.answer("get the rules", client.get_authorization_policy(request)).await?;
            Ok((registry.address().to_owned(), policy))
        });
        Ok(Found(told.await?))
    }
}

async fn policies_of(registry: Registry) -> Result<Vec<AuthorizationPolicy>, Error> {
    all_pages(|page_token| {
        let registry = registry.clone();
        async move {
            let request = ListAuthorizationPoliciesRequest { page_size: PAGE_SIZE, page_token };
            let mut client = AuthorizationServiceClient::new(registry.channel.clone());
            let page = registry.answer("list the rules", client.list_authorization_policies(request)).await?;
            Ok((page.policies, page.next_page_token))
        }
    })
    .await
}

/// What a registry says if somebody was faster.
fn or_changed(error: Error, replaced: &AuthorizationPolicy) -> Error {
    match error {
        Error::Call { status, .. } if status.code() == Code::Aborted => changed(&replaced.service, &replaced.etag),
        error => error,
    }
}

fn changed(service: &str, etag: &str) -> Error {
    Error::Changed { what: "rules", service: service.to_owned(), etag: etag.to_owned(), command: "authz" }
}

/// The rules of one service that each registry had when it was asked. At least one has answered.
struct Found(Vec<(String, AuthorizationPolicy)>);

impl Found {
    fn latest(&self) -> &AuthorizationPolicy {
        latest(self.0.iter().map(|(_, policy)| policy))
    }

    fn differ(&self) -> bool {
        self.0.iter().any(|(_, policy)| policy.etag != self.latest().etag)
    }

    /// Whether what is in effect is what the policy is to replace. To set what is there already is no conflict, as in the registry,
    /// so that a command may be repeated.
    fn check_replaceable(&self, by: &AuthorizationPolicy) -> Result<(), Error> {
        let latest = self.latest();
        let is_there =
            (&latest.allow, &latest.deny, &latest.subject_callers) == (&by.allow, &by.deny, &by.subject_callers);
        if by.etag.is_empty() || by.etag == latest.etag || is_there {
            Ok(())
        } else {
            Err(changed(&latest.service, &by.etag))
        }
    }

    /// The etag of what is replaced at a registry: of what it had itself, since one that was away is behind the others, and that
    /// is no reason to refuse.
    fn etag_at(&self, registry: &str) -> String {
        let its = self.0.iter().find(|(address, _)| address == registry).map(|(_, policy)| policy);
        its.unwrap_or_else(|| self.latest()).etag.clone()
    }
}

fn latest<'a>(policies: impl IntoIterator<Item = &'a AuthorizationPolicy>) -> &'a AuthorizationPolicy {
    policies.into_iter().max_by_key(|policy| set_at(policy)).expect("at least one registry answers")
}

fn set_at(policy: &AuthorizationPolicy) -> Option<(i64, i32)> {
    policy.update_time.map(|Timestamp { seconds, nanos }| (seconds, nanos))
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::{super::shown::tests::rule, *};

    fn policy(etag: &str, seconds: Option<i64>) -> AuthorizationPolicy {
        AuthorizationPolicy {
            service: "order".into(),
            allow: vec![rule(&["service/a"], &[&format!("a.C/M{etag}")])],
            etag: etag.into(),
            update_time: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
            ..AuthorizationPolicy::default()
        }
    }

    fn found(policies: &[(&str, Option<i64>)]) -> Found {
        let addressed = policies.iter().enumerate();
        Found(addressed.map(|(n, (etag, seconds))| (format!("http://r{n}:1"), policy(etag, *seconds))).collect())
    }

    #[test]
    fn each_registry_replaces_what_it_had_itself_and_what_was_set_last_is_in_effect() {
        let found = found(&[("old", Some(4)), ("new", Some(5)), ("never", None)]);
        assert_eq!(found.latest().etag, "new");
        assert!(found.differ());
        let etags = ["http://r0:1", "http://r1:1", "http://r2:1", "http://was-silent:1"].map(|at| found.etag_at(at));
        assert_eq!(etags, ["old", "new", "never", "new"]);
    }

    #[test]
    fn an_etag_must_be_that_of_what_is_in_effect_at_whichever_registry() {
        let found = found(&[("old", Some(4)), ("new", Some(5))]);
        for (etag, replaceable) in [("", true), ("new", true), ("old", false), ("other", false)] {
            let by = AuthorizationPolicy { etag: etag.into(), ..policy("wanted", None) };
            assert_eq!(found.check_replaceable(&by).is_ok(), replaceable, "{etag}");
        }
        let same = AuthorizationPolicy { etag: "old".into(), ..policy("new", None) };
        assert!(found.check_replaceable(&same).is_ok(), "it is there: the command was repeated");
        let other = AuthorizationPolicy { etag: "old".into(), ..policy("wanted", None) };
        let error = found.check_replaceable(&other).expect_err("changed").to_string();
        assert_eq!(
            error,
            "somebody has changed the rules of order: etag \"old\" is not in effect any more; run \"meshwork authz get order\" \
             again, and repeat the change"
        );
    }

    #[test]
    fn a_registry_that_says_aborted_has_other_rules_by_now() {
        let error = |status| or_changed(Error::call("set the rules")(status), &policy("read", None));
        assert!(matches!(error(Status::aborted("changed")), Error::Changed { etag, .. } if etag == "read"));
        assert!(matches!(error(Status::permission_denied("no operator")), Error::Call { .. }));
    }
}
