//! Carries out a plan of faults. A target's faults come one after another, each some time after the one before is over:
//! on a machine that is slower than planned, faults come late, but the shop has the same time between them.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use meshwork_fixture::Server;
use meshwork_harness::{
    report::Failures,
    shop_processes::{Error, Instance, Programs, ShopProcesses, move_files},
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use super::{
    load::Load,
    plan::{Fault, Planned, Release, Target},
};

/// Between the end of a fault and the next one of the same target.
const REST: Duration = Duration::from_secs(1);
/// The same for the database server, which all others wait for.
const DATABASE_REST: Duration = Duration::from_secs(5);
/// How old a backup is at least when it is put back, and how many orders were acknowledged since.
const BACKUP_AGE: Duration = Duration::from_secs(10);
const BACKUP_ORDERS: usize = 1_000;
/// How long those are waited for.
const BACKUP_LIMIT: Duration = Duration::from_secs(40);
/// From a restore to its reconciliation: new orders take the positions of lost ones meanwhile.
const OPERATOR_COMES_AFTER: Duration = Duration::from_secs(3);
/// How long the operator tries, and how often: others suffer meanwhile, and cannot be asked.
const OPERATOR_LIMIT: Duration = Duration::from_secs(90);
const OPERATOR_PAUSE: Duration = Duration::from_secs(2);

/// What was done to a shop.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How many faults, by name.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Processes that did not survive what they must: that ended unexpectedly, or did not start again.
    pub(super) failures: Failures,
}

/// The programs that processes are moved between.
#[derive(Clone, Debug)]
pub(super) struct Releases {
    pub(super) new: Programs,
    pub(super) old: Programs,
}

/// The possible targets; each is locked by the fault that hits it at the moment.
struct Victims {
    registries: Vec<Mutex<Arc<Instance>>>,
    services: Vec<Mutex<Arc<Instance>>>,
    postgres: Option<Mutex<Arc<Server>>>,
    shop: Arc<ShopProcesses>,
    load: Arc<Load>,
    releases: Releases,
}

/// Carries out a plan from now on, until all processes are back.
pub(super) async fn carry_out(
    plan: Vec<Planned>,
    shop: &Arc<ShopProcesses>,
    load: &Arc<Load>,
    releases: Releases,
) -> Done {
    let begin = Instant::now();
    let victims = Arc::new(Victims {
        registries: shop.registries().iter().cloned().map(Mutex::new).collect(),
        services: shop.services().iter().cloned().map(Mutex::new).collect(),
        postgres: shop.postgres().cloned().map(Mutex::new),
        shop: shop.clone(),
        load: load.clone(),
        releases,
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

/// Reconciles the readers of events that the orders' store has lost, as an operator does: again until it succeeds.
pub(super) async fn reconcile(shop: &ShopProcesses) -> Result<(), Error> {
    let end = Instant::now() + OPERATOR_LIMIT;
    loop {
        match shop.command().run(&["reconcile", "order", "--yes"]).await {
            Err(_) if Instant::now() < end => sleep(OPERATOR_PAUSE).await,
            reconciled => return reconciled,
        }
    }
}

impl Victims {
    async fn suffer(&self, Planned { target, fault, .. }: Planned) -> Result<(), Error> {
        match target {
            Target::Registry(index) => self.strike(&self.registries[index], fault).await,
            Target::Service(index) => self.strike(&self.services[index], fault).await,
            Target::Postgres => match &self.postgres {
                Some(server) => break_server(server, fault).await,
                None => Ok(()),
            },
            Target::Orders => self.restore().await,
        }
    }

    async fn strike(&self, instance: &Mutex<Arc<Instance>>, fault: Fault) -> Result<(), Error> {
        let instance = instance.lock().await;
        let suffered = strike(&instance, fault, &self.releases).await;
        sleep(REST).await;
        suffered
    }

    /// Sets the orders back to a backup, and lets the operator reconcile the mesh.
    async fn restore(&self) -> Result<(), Error> {
        let from;
        let backup = {
            let _held = self.hold_orders().await;
            from = Instant::now();
            self.shop.backups().make("order", self.shop.command()).await?
        };
        // A copy takes its time, and has what was committed at one moment of it.
        let (made, acknowledged) = (Instant::now(), self.load.acknowledged());
        let enough = || made.elapsed() >= BACKUP_AGE && self.load.acknowledged() >= acknowledged + BACKUP_ORDERS;
        while !enough() {
            if made.elapsed() > BACKUP_LIMIT {
                let few = self.load.acknowledged() - acknowledged;
                return Err(Error::Copy("order", io::Error::other(format!("{few} orders were taken since"))));
            }
            sleep(REST / 10).await;
        }
        let held = self.hold_orders().await;
        for instance in &held.instances {
            instance.kill();
        }
        backup.restore("order").await?;
        self.load.restored(from, Instant::now());
        try_join_all(held.instances.iter().map(|instance| instance.start())).await?;
        drop(held);
        sleep(OPERATOR_COMES_AFTER).await;
        // There may be no moment at which none of the others suffers. At rest it must succeed.
        if let Err(error) = reconcile(&self.shop).await {
            eprintln!("the operator comes again at rest: {error}");
        }
        Ok(())
    }

    /// While this is held, no other fault hits the orders' processes or the database server. It locks them in the order
    /// of their indices, and other faults hold one lock each, so that there is no deadlock.
    async fn hold_orders(&self) -> Held<'_> {
        let mut instances = Vec::new();
        for instance in &self.services {
            let held = instance.lock().await;
            if held.service() == "order" {
                instances.push(held);
            }
        }
        let postgres = match &self.postgres {
            Some(server) => Some(server.lock().await),
            None => None,
        };
        Held { instances, _postgres: postgres }
    }
}

struct Held<'a> {
    instances: Vec<MutexGuard<'a, Arc<Instance>>>,
    _postgres: Option<MutexGuard<'a, Arc<Server>>>,
}

async fn break_server(server: &Mutex<Arc<Server>>, fault: Fault) -> Result<(), Error> {
    let server = server.lock().await;
    let on_server = async |work: fn(&Server) -> Result<(), meshwork_fixture::ServerError>| {
        let server = server.clone();
        spawn_blocking(move || work(&server)).await.expect("it does not panic, and the runtime lives on")
    };
    if let Fault::ReadOnly(time) = fault {
        on_server(|server| server.set_read_only(true)).await?;
        sleep(time).await;
        on_server(|server| server.set_read_only(false)).await?;
    } else {
        on_server(Server::crash_and_restart).await?;
    }
    sleep(DATABASE_REST).await;
    Ok(())
}

async fn strike(instance: &Instance, fault: Fault, releases: &Releases) -> Result<(), Error> {
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
        Fault::Move(release) => {
            instance.move_to(match release {
                Release::New => &releases.new,
                Release::Old => &releases.old,
            });
            instance.terminate().await?;
            instance.start().await?;
        }
        Fault::Cut => instance.cut(),
        Fault::Stall(time) => {
            instance.stall(true);
            sleep(time).await;
            instance.stall(false);
        }
        Fault::Remove(time) => {
            let Some(database) = instance.database_file() else { return Ok(()) };
            let moved = |away| move_files(&database, away).map_err(|error| Error::Copy(instance.service(), error));
            moved(true)?;
            sleep(time).await;
            instance.kill();
            moved(false)?;
            instance.start().await?;
        }
        Fault::Crash | Fault::ReadOnly(_) | Fault::Restore => {}
    }
    Ok(())
}
