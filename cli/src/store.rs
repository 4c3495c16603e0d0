//! `meshwork store`: a backup, and which store is a service's.

use std::{
    io::{self, Write as _},
    path::Path,
};

use meshwork::{
    contract::meshwork::registry::v1::{
        AdoptStoreRequest, AdoptStoreResponse, InstanceRef, store_service_client::StoreServiceClient,
    },
    discovery::stores::{shared_store, some_differ},
};
use meshwork_events::store::{self, BackupError, StoreError};
use meshwork_process::{to_stderr, with_causes};
use meshwork_registry::ProtobufJson;
use parking_lot::Mutex;
use tonic::Code;

use crate::{
    args::{StoreAdoptArgs, StoreBackupArgs, StoreCommand},
    directory::Directory,
    error::Error,
    table::printable,
};

/// `meshwork store`.
pub(crate) async fn run(command: StoreCommand) -> Result<(), Error> {
    match command {
        StoreCommand::Backup(args) => backup(args).await,
        StoreCommand::Adopt(args) => adopt(args).await,
    }
}

async fn backup(StoreBackupArgs { database_url, target, .. }: StoreBackupArgs) -> Result<(), Error> {
    if database_url.is_empty() {
        return Err(Error::flag("URL", "", "must not be empty"));
    }
    if !database_url.contains(':') {
        let problem = format!("must begin with sqlite://, such as sqlite://{database_url}");
        return Err(Error::flag("URL", database_url, problem));
    }
    store::backup(&database_url, target.clone()).await.map_err(|error| refused(&database_url, &target, error))?;
    Ok(writeln!(io::stdout(), "{}", target.display())?)
}

/// Names the argument that brought it about.
fn refused(url: &str, target: &Path, error: BackupError) -> Error {
    match error {
        BackupError::Target(error) if error.kind() == io::ErrorKind::NotFound => {
            Error::flag("TARGET", target.display(), "its folder does not exist")
        }
        BackupError::Target(error) => Error::flag("TARGET", target.display(), error),
        BackupError::Database(StoreError::UnsupportedUrl { .. }) if url.starts_with("sqlite:") => {
            Error::flag("URL", store::shown(url), "give sqlite://FILE")
        }
        BackupError::Database(StoreError::UnsupportedUrl { .. }) => {
            let problem = "this command copies SQLite databases only; for PostgreSQL use pg_dump";
            Error::flag("URL", store::shown(url), problem)
        }
        BackupError::Database(StoreError::InvalidUrl { problem, .. }) => Error::flag("URL", store::shown(url), problem),
        BackupError::Database(StoreError::Open { source, .. }) => {
            Error::flag("URL", store::shown(url), with_causes(&source))
        }
        error => Error::flag("URL", store::shown(url), with_causes(&error)),
    }
}

async fn adopt(StoreAdoptArgs { service, store_id, source }: StoreAdoptArgs) -> Result<(), Error> {
    let directory = Directory::open(&source)?;
    let unknowing = Mutex::new(Vec::new());
    let adopted = directory.all(|registry| {
        let unknowing = &unknowing;
        let request = AdoptStoreRequest { service: service.clone(), store_id: store_id.clone() };
        async move {
            let mut client = StoreServiceClient::new(registry.channel.clone());
            match registry.answer("adopt the store", client.adopt_store(request)).await {
                Ok(adopted) => Ok(Some(adopted)),
                // An instance may not have reached it yet.
                Err(Error::Call { status, .. }) if status.code() == Code::NotFound => {
                    unknowing.lock().push(registry.address().to_owned());
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        }
    });
    let answers = adopted.await?;
    let mut told = AdoptStoreResponse::default();
    let mut adopted = 0;
    for AdoptStoreResponse { kept, removed } in answers.into_iter().flatten() {
        adopted += 1;
        told.kept.extend(kept);
        told.removed.extend(removed);
    }
    if adopted == 0 {
        return Err(Error::UnknownStore { service, store_id });
    }
    for registry in unknowing.into_inner() {
        to_stderr(format_args!("warning: the registry at {registry} knows no instance with this store yet"));
    }
    for instances in [&mut told.kept, &mut told.removed] {
        instances.sort_by(|one, other| one.instance_id.cmp(&other.instance_id));
        instances.dedup();
    }
    let instances = match directory.instances(&service).await {
        // None with this store has come yet.
        Err(Error::UnknownService(_)) => Vec::new(),
        told => told?,
    };
    if some_differ(instances.iter().filter_map(shared_store).filter(|(id, _)| *id == store_id)) {
        return Err(Error::Copies { service, store_id });
    }
    let mut out = io::stdout().lock();
    if source.json {
        writeln!(out, "{}", ProtobufJson::new().line(&told))?;
        return everywhere(source.registry.len() - adopted);
    }
    writeln!(out, "{service} is served from store {store_id}")?;
    let of = |instances: &[InstanceRef]| {
        instances.iter().map(|instance| printable(&instance.instance_id)).collect::<Vec<_>>().join(" ")
    };
    if !told.kept.is_empty() {
        writeln!(out, "kept:    {}", of(&told.kept))?;
    }
    if !told.removed.is_empty() {
        writeln!(out, "removed: {}", of(&told.removed))?;
    }
    writeln!(out, "other instances with this store are accepted within 5 s; then run: meshwork reconcile {service}")?;
    everywhere(source.registry.len() - adopted)
}

/// A registry that was left out goes on refusing the store, or lets the other be served.
fn everywhere(left_out: usize) -> Result<(), Error> {
    if left_out == 0 { Ok(()) } else { Err(Error::NotAdopted(left_out)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[tokio::test]
    async fn a_file_that_is_given_without_a_scheme_is_named_with_the_url_that_was_meant() {
        let cli = Cli::try_parse_from(["meshwork", "store", "backup", "order.db", "copy.db"]).expect("it parses");
        let Command::Store(store) = cli.command else { panic!("a store") };
        let error = run(store.command).await.expect_err("no URL");
        assert_eq!(error.to_string(), "URL order.db: must begin with sqlite://, such as sqlite://order.db");
    }
}
