//! Carries a plan of faults out. A target's faults come one after another, each some time after the one before is over: a
//! machine that is slower than planned makes faults late, and not the shop's life shorter.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use meshwork_fixture::Server;
use tokio::{
    sync::Mutex,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use super::plan::{Fault, Planned, Target};
use crate::{
    report::Failures,
    shop_processes::{Error, Instance, ShopProcesses},
};

/// Between the end of a fault and the next one of the same target.
const REST: Duration = Duration::from_secs(1);
/// The same for the database server, which all others wait for.
const DATABASE_REST: Duration = Duration::from_secs(5);

/// What was done to a shop.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How many faults, by name.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Processes that did not bear what they must: that ended unasked, or did not start again.
    pub(super) failures: Failures,
}

/// Who can be made to suffer, each with whoever makes it suffer at the moment.
struct Victims {
    registry: Mutex<Arc<Instance>>,
    services: Vec<Mutex<Arc<Instance>>>,
    postgres: Option<Mutex<Arc<Server>>>,
}

/// Carries out a plan from now on, until all processes are back.
pub(super) async fn carry_out(plan: Vec<Planned>, shop: &ShopProcesses) -> Done {
    let begin = Instant::now();
    let victims = Arc::new(Victims {
        registry: Mutex::new(shop.registry().clone()),
        services: shop.services().iter().cloned().map(Mutex::new).collect(),
        postgres: shop.postgres().cloned().map(Mutex::new),
    });
    let (mut done, mut faults) = (Done::default(), JoinSet::new());
    for planned in plan {
        sleep_until(begin + planned.at).await;
        let victims = victims.clone();
        faults.spawn(async move { (planned.fault.name(), victims.suffer(planned).await) });
    }
    while let Some(fault) = faults.join_next().await {
        match fault {
            Ok((name, Ok(()))) => *done.faults.entry(name).or_default() += 1,
            Ok((name, Err(error))) => done.failures.add(format!("{name}: {error}")),
            Err(panic) => done.failures.add(format!("a fault panicked: {panic}")),
        }
    }
    done
}

impl Victims {
    async fn suffer(&self, Planned { target, fault, .. }: Planned) -> Result<(), Error> {
        match target {
            Target::Registry => suffer(&self.registry, fault).await,
            Target::Service(index) => suffer(&self.services[index], fault).await,
            Target::Postgres => match &self.postgres {
                Some(server) => crash(server).await,
                None => Ok(()),
            },
        }
    }
}

async fn suffer(instance: &Mutex<Arc<Instance>>, fault: Fault) -> Result<(), Error> {
    let instance = instance.lock().await;
    let suffered = strike(&instance, fault).await;
    sleep(REST).await;
    suffered
}

async fn crash(server: &Mutex<Arc<Server>>) -> Result<(), Error> {
    let server = server.lock().await;
    let crashed = server.clone();
    let restarted = spawn_blocking(move || crashed.crash_and_restart()).await;
    sleep(DATABASE_REST).await;
    Ok(restarted.expect("it does not panic, and the runtime lives on")?)
}

async fn strike(instance: &Instance, fault: Fault) -> Result<(), Error> {
    instance.lives()?;
    match fault {
        Fault::Kill(down) => {
            instance.kill();
            sleep(down).await;
            instance.start().await?;
        }
        Fault::Pause(time) => {
            instance.pause()?;
            sleep(time).await;
            instance.resume()?;
        }
        Fault::Replace => {
            instance.terminate().await?;
            instance.start().await?;
        }
        Fault::Cut => instance.cut(),
        Fault::Stall(time) => {
            instance.stall(true);
            sleep(time).await;
            instance.stall(false);
        }
        Fault::Crash => {}
    }
    Ok(())
}
