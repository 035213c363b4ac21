//! What people and scripts type: unmodified kubectl, the oldest and the newest of this machine,
//! against the built `toono server` with its controllers and no node.
//!
//! Each command's results are checked, not its exit code alone. Commands that need a container
//! (`exec`, `logs`, `cp`, `port-forward`) are in the binary `it`, whose edge has real ones, and in
//! `remote` of `toono-apiserver`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod access;
mod apply;
mod certificates;
mod change;
mod crds;
mod create;
mod discovery;
mod get;
mod harness;
mod nodes;
mod rollout;
mod server;
mod workloads;

use std::{path::PathBuf, time::Instant};

use harness::Kubectl;
use server::Server;

/// How many different commands each kubectl is to be seen through.
const COMMANDS: usize = 120;

#[test]
fn the_oldest_and_the_newest_kubectl_see_kubernetes() {
    std::thread::scope(|scope| {
        for program in server::programs() {
            scope.spawn(|| sees_kubernetes(program));
        }
    });
}

fn sees_kubernetes(program: PathBuf) {
    let start = Instant::now();
    let server = Server::start();
    let k = Kubectl::new(&server, program);
    let themes = [
        discovery::run,
        get::run,
        create::run,
        change::run,
        apply::run,
        rollout::run,
        workloads::run,
        nodes::run,
        access::run,
        certificates::run,
        crds::run,
    ];
    for theme in themes {
        theme(&k);
    }
    let commands = k.finish();
    println!("{}: {commands} different commands in {:?}", k.version(), start.elapsed());
    assert!(commands >= COMMANDS, "only {commands} different commands were checked");
}
