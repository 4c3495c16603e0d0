//! `meshwork bindings`: which service gets the calls that name only a gRPC service.
//!
//! Bindings are read from all registries that answer, and changed at all.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use meshwork::contract::meshwork::registry::v1::{
    Binding, BindingOrigin, DeleteBindingRequest, DeleteBindingResponse, ListBindingsRequest, ListBindingsResponse,
    SetBindingRequest, binding_service_client::BindingServiceClient,
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;
use tonic::Code;

use crate::{
    args::{BindingsArgs, BindingsClearArgs, BindingsCommand, BindingsSetArgs, SourceArgs},
    directory::{Directory, PAGE_SIZE, Registry, all_pages, or_dash},
    error::Error,
    table::{Align, Output, Table, printable},
};

/// `meshwork bindings`.
pub(crate) async fn run(args: BindingsArgs) -> Result<(), Error> {
    match args.command {
        None => list(args.source).await,
        Some(BindingsCommand::Set(args)) => set(args).await,
        Some(BindingsCommand::Clear(args)) => clear(args).await,
    }
}

async fn list(source: SourceArgs) -> Result<(), Error> {
    let bindings = Directory::open(&source)?.bindings().await?;
    if source.json {
        let all = ListBindingsResponse { bindings, next_page_token: String::new() };
        return Ok(writeln!(io::stdout(), "{}", ProtobufJson::new().line(&all))?);
    }
    Ok(write!(io::stdout(), "{}", table(&bindings, Output::stdout()))?)
}

async fn set(args: BindingsSetArgs) -> Result<(), Error> {
    let BindingsSetArgs { grpc_service, service, source } = args;
    let directory = Directory::open(&source)?;
    let request = SetBindingRequest { binding: Some(Binding { grpc_service, service, ..Binding::default() }) };
    let set = directory.all(|registry| {
        let request = request.clone();
        async move {
            let mut client = BindingServiceClient::new(registry.channel.clone());
            registry.answer("set the binding", client.set_binding(request)).await
        }
    });
    let set = merged(set.await?);
    for Binding { grpc_service, service, .. } in set.iter().filter(|set| !set.announced_by.contains(&set.service)) {
        let (grpc_service, service) = (printable(grpc_service), printable(service));
        to_stderr(format_args!("warning: no instance of {service} announces {grpc_service}: calls by that name fail"));
    }
    let shown = match &set[..] {
        [binding] if source.json => ProtobufJson::new().line(binding) + "\n",
        bindings => table(bindings, Output::stdout()).to_string(),
    };
    done(&directory, "the binding was not set", &shown)
}

async fn clear(args: BindingsClearArgs) -> Result<(), Error> {
    let BindingsClearArgs { grpc_service, source } = args;
    let directory = Directory::open(&source)?;
    let unbound = directory.all(|registry| unbind(registry, grpc_service.clone())).await?;
    if !unbound.contains(&true) {
        return Err(Error::NotBound(grpc_service));
    }
    let shown = if source.json {
        ProtobufJson::new().line(&DeleteBindingResponse {}) + "\n"
    } else {
        format!("{} is bound to no service\n", printable(&grpc_service))
    };
    done(&directory, "the binding was not removed", &shown)
}

/// Prints what has changed; `undone` says what silent registries have not done.
fn done(directory: &Directory, undone: &'static str, shown: &str) -> Result<(), Error> {
    io::stdout().write_all(shown.as_bytes()).map_err(Error::Untold)?;
    let registries = directory.left_out().join(", ");
    if registries.is_empty() { Ok(()) } else { Err(Error::NotAtAll { what: undone, registries }) }
}

impl Directory {
    /// All gRPC services that are bound or announced, by name.
    pub(crate) async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        Ok(merged(self.all(bindings_of).await?.into_iter().flatten()))
    }
}

async fn bindings_of(registry: Registry) -> Result<Vec<Binding>, Error> {
    all_pages(|page_token| {
        let registry = registry.clone();
        async move {
            let request = ListBindingsRequest { page_size: PAGE_SIZE, page_token };
            let mut client = BindingServiceClient::new(registry.channel.clone());
            let page = registry.answer("list the bindings", client.list_bindings(request)).await?;
            Ok((page.bindings, page.next_page_token))
        }
    })
    .await
}

/// Whether it was bound there.
async fn unbind(registry: Registry, grpc_service: String) -> Result<bool, Error> {
    let mut client = BindingServiceClient::new(registry.channel.clone());
    let request = DeleteBindingRequest { grpc_service };
    match registry.answer("remove the binding", client.delete_binding(request)).await {
        Ok(_) => Ok(true),
        Err(Error::Call { status, .. }) if status.code() == Code::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The service that gets the calls by the name of a gRPC service: the one that it is bound to, or the only one that announces it.
pub(crate) fn owner(binding: &Binding) -> Option<&str> {
    match binding.announced_by.as_slice() {
        _ if !binding.service.is_empty() => Some(&binding.service),
        [only] => Some(only),
        _ => None,
    }
}

/// What several registries say of each gRPC service: all that announce it, and the binding that was made last.
fn merged(told: impl IntoIterator<Item = Binding>) -> Vec<Binding> {
    let mut by_name: BTreeMap<String, Binding> = BTreeMap::new();
    for binding in told {
        let known = by_name.entry(binding.grpc_service.clone()).or_default();
        let mut announced_by = [&known.announced_by[..], &binding.announced_by].concat();
        announced_by.sort();
        announced_by.dedup();
        let made_at = |binding: &Binding| binding.update_time.map(|time| (time.seconds, time.nanos));
        if known.grpc_service.is_empty() || made_at(known) < made_at(&binding) {
            *known = binding;
        }
        known.announced_by = announced_by;
    }
    by_name.into_values().collect()
}

fn table(bindings: &[Binding], output: Output) -> Table<4> {
    let columns = ["GRPC SERVICE", "SERVICE", "ORIGIN", "ANNOUNCED BY"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns).on(output);
    for binding in bindings {
        let service = or_dash(owner(binding).unwrap_or_default());
        let announced_by = or_dash(&binding.announced_by.join(", "));
        table.row([printable(&binding.grpc_service), service, origin(binding).to_owned(), announced_by]);
    }
    table
}

/// Why it belongs to its service, or why to none.
fn origin(binding: &Binding) -> &'static str {
    match (binding.origin(), binding.announced_by.len()) {
        (BindingOrigin::Registration, _) => "registration",
        (BindingOrigin::Operator, _) => "operator",
        (BindingOrigin::Unspecified, _) if !binding.service.is_empty() => "unknown",
        (BindingOrigin::Unspecified, 0) => "-",
        (BindingOrigin::Unspecified, 1) => "announced",
        (BindingOrigin::Unspecified, _) => "ambiguous",
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn binding(name: &str, service: &str, origin: BindingOrigin, announced_by: &[&str], seconds: i64) -> Binding {
        Binding {
            grpc_service: name.into(),
            service: service.into(),
            origin: origin.into(),
            announced_by: announced_by.iter().map(|name| (*name).to_owned()).collect(),
            update_time: (seconds != 0).then_some(Timestamp { seconds, nanos: 0 }),
            ..Binding::default()
        }
    }

    #[test]
    fn each_grpc_service_has_its_service_or_is_ambiguous() {
        use BindingOrigin::{Operator, Registration, Unspecified};
        let bindings = [
            binding("a.One", "one", Registration, &["one", "two"], 1),
            binding("a.Two", "two", Operator, &[], 1),
            binding("b.Three", "", Unspecified, &["three"], 0),
            binding("b.Four", "", Unspecified, &["three", "two"], 0),
        ];
        let expected = "\
GRPC SERVICE  SERVICE  ORIGIN        ANNOUNCED BY
a.One         one      registration  one, two
a.Two         two      operator      -
b.Three       three    announced     three
b.Four        -        ambiguous     three, two
";
        assert_eq!(table(&bindings, Output::Pipe).to_string(), expected);
    }

    #[test]
    fn of_several_registries_the_last_binding_counts_and_all_that_announce() {
        use BindingOrigin::{Operator, Registration, Unspecified};
        let told = [
            binding("a.One", "one", Registration, &["one"], 1),
            binding("b.Two", "", Unspecified, &["two"], 0),
            binding("a.One", "two", Operator, &["two"], 2),
            binding("a.One", "", Unspecified, &["one", "three"], 0),
        ];
        assert_eq!(
            merged(told),
            [
                binding("a.One", "two", Operator, &["one", "three", "two"], 2),
                binding("b.Two", "", Unspecified, &["two"], 0),
            ]
        );
    }
}
