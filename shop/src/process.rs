//! A service as a process of its own: what its flags start, and in which order.
//!
//! Flags come before the database: one that cannot be used leaves no file behind.

use meshwork::{
    Mesh,
    process::{Failure, InstanceArgs, Listener, StoreArgs},
    server,
    write::Decider,
};

use crate::{OpenError, WriteSide};

/// Runs one instance of `service` to its end, and closes what was opened for it.
///
/// # Errors
/// A flag that cannot be used, or whatever `run` ends with.
pub async fn serve<D: Decider>(
    service: &str,
    instance: &InstanceArgs,
    store: &StoreArgs,
    open: impl AsyncFnOnce(&str) -> Result<WriteSide<D>, OpenError>,
    run: impl AsyncFnOnce(server::Config, Mesh, WriteSide<D>, Listener) -> Result<(), server::Error>,
) -> Result<(), Failure> {
    let mesh = instance.mesh()?;
    let incoming = instance.bind().await?;
    let server = instance.config(service, &incoming)?;
    let url = &store.database_url;
    let store = open(url).await.map_err(|error| error.into_failure(url))?;
    let served = run(server, mesh.clone(), store.clone(), incoming.say_ready(service)).await;
    mesh.close().await;
    store.close().await;
    served.map_err(Failure::run)
}
