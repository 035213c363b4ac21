//! `toono up` and `toono down`: a whole edge on this machine, step by step, each step repeatable.
//!
//! What a step needs it reads back from the machine (the lab's networks, pid files, the API), so a
//! second `up` finds everything done, and `down` cleans up also after an `up` that was broken off.

mod application;
pub(crate) mod cli;
mod down;
mod plan;
mod processes;
mod progress;
mod ready;

pub(crate) use down::down;

use crate::{
    cloud::{
        kubeconfig, lab,
        up::{cli::UpArgs, plan::Plan, progress::Progress},
    },
    failure::Failure,
    preflight,
};

/// Brings the edge up, and shows it.
pub(crate) async fn run(args: &UpArgs) -> Result<(), Failure> {
    preflight::node()?;
    let plan = Plan::new(args)?;
    processes::check_port(&plan)?;
    let progress = Progress;

    progress
        .step("networks of the sites", async {
            toono_lab::up(&plan.lab).await.map_err(|error| lab::explain(&error))
        })
        .await?;
    progress.step("image registry", processes::registry(&plan)).await?;
    progress
        .step("server", async {
            processes::server(&plan)?;
            ready::server(&plan).await
        })
        .await?;
    progress.step("nodes", processes::nodes(&plan)).await?;
    if args.no_wait {
        return Ok(());
    }
    let client = kubeconfig::client_from(&plan.kubeconfig()).await?;
    progress.step("nodes ready", ready::nodes(&plan, &client)).await?;
    progress.step("application", application::apply(&client)).await?;
    progress.step("application running", ready::application(&plan, &client)).await?;
    print!("{}", application::show(&plan, &client).await?);
    Ok(())
}
