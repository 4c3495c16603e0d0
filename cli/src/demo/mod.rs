//! `meshwork demo`: a story of customers and orders, told to a mesh while an instance of it is killed; and the check that
//! nothing of it was lost.
//!
//! Modules are listed in the order of the story: [`stage`] is the mesh in which it plays, [`plan`] says what will happen,
//! [`story`] makes it happen and [`tracker`] sees how it ends, [`evidence`] gathers what the mesh remembers,
//! [`audit`](crate::audit) compares that with what the mesh has acknowledged, [`report`] tells.

mod stage;

mod plan;

mod story;
mod tracker;

mod evidence;

mod report;

mod clients;

use crate::{args::DemoArgs, error::Error};

use clients::Clients;
use plan::Plan;
use report::Report;
use stage::Stage;
use story::Story;

/// Plays the demo until it is over. Dropped, it leaves nothing behind.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Error> {
    let stage = Stage::open(&args.registry, &args.tls).await?;
    let played = play(&stage, &args).await;
    stage.close().await;
    let report = played?;
    report.print(args.json)?;
    match report.broken() {
        0 => Ok(()),
        broken => Err(Error::Broken(broken)),
    }
}

async fn play(stage: &Stage, args: &DemoArgs) -> Result<Report, Error> {
    let clients = Clients::new(stage.mesh());
    let plan = Plan::new(args.orders, args.customers, &mut rand::rng());
    let story = Story::begin(plan, clients.clone()).await?;
    let placed = story.placed();
    let (outcome, killed) = tokio::join!(story.play(), stage.accident(placed, args.orders / 2));
    let outcome = outcome?;

    let mut credit_lines = evidence::gather_settled(&clients, &outcome).await?;
    if args.tamper {
        evidence::tamper(&mut credit_lines)?;
    }
    Ok(Report::new(&outcome, &credit_lines, killed))
}
