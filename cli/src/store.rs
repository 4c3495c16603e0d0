//! `meshwork store`: a backup, and which store is a service's.

use std::{
    io::{self, Write as _},
    path::Path,
};

use meshwork::{
    contract::meshwork::registry::v1::{
        AdoptStoreRequest, AdoptStoreResponse, InstanceRef, store_service_client::StoreServiceClient,
    },
    rpc::ProtobufJson,
    store::{self, BackupError},
};

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
    if database_url.starts_with("postgres") {
        let problem = "use pg_dump for PostgreSQL, which makes a copy of one moment too";
        return Err(Error::flag("URL", store::shown(&database_url), problem));
    }
    store::backup(&database_url, target.clone()).await.map_err(|error| refused(&database_url, &target, error))?;
    Ok(writeln!(io::stdout(), "{}", target.display())?)
}

/// Names the argument that brought it about.
fn refused(url: &str, target: &Path, error: BackupError) -> Error {
    let with_cause = |error: &dyn std::error::Error| {
        error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    };
    match error {
        BackupError::Target(error) => Error::flag("TARGET", target.display(), error),
        error => Error::flag("URL", store::shown(url), with_cause(&error)),
    }
}

async fn adopt(StoreAdoptArgs { service, store_id, source }: StoreAdoptArgs) -> Result<(), Error> {
    let directory = Directory::open(&source.registry)?;
    let adopted = directory.all(|registry| {
        let request = AdoptStoreRequest { service: service.clone(), store_id: store_id.clone() };
        async move {
            let mut client = StoreServiceClient::new(registry.channel.clone());
            registry.answer("adopt the store", client.adopt_store(request)).await
        }
    });
    // An instance is registered at each of them.
    let mut told = AdoptStoreResponse::default();
    for AdoptStoreResponse { kept, removed } in adopted.await? {
        told.kept.extend(kept);
        told.removed.extend(removed);
    }
    for instances in [&mut told.kept, &mut told.removed] {
        instances.sort_by(|one, other| one.instance_id.cmp(&other.instance_id));
        instances.dedup();
    }
    let mut out = io::stdout().lock();
    if source.json {
        return Ok(writeln!(out, "{}", ProtobufJson::new().line(&told))?);
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
    Ok(())
}
