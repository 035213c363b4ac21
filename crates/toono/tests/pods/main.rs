//! Pods in practice: what people ask of a pod, through an unmodified kubectl, against real containers.
//!
//! One edge is brought up for all cases, and taken down whatever happens. A case is a namespace with a
//! few objects and the facts that must come true; several run at a time. Needs root, kubectl,
//! busybox-static, iproute2, curl and docker-registry; what is missing fails the test and says so. The first
//! run downloads Debian's nginx and python.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod applications;
mod basics;
mod case;
mod debian;
#[path = "../it/edge.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod edge;
mod health;
mod images;
mod input;
mod inside;
mod programs;
mod registry;
mod runs;
mod security;
mod stage;
mod volumes;
mod web;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::Instant,
};

use case::Case;
use stage::Stage;

/// How many cases run at a time.
const AT_A_TIME: usize = 8;
/// How many cases there are to be.
const CASES: usize = 224;

#[test]
fn pods_do_what_pods_do() {
    let stage = Stage::set();
    let areas = [
        basics::cases,
        runs::cases,
        health::cases,
        volumes::cases,
        security::cases,
        images::cases,
        inside::cases,
        input::cases,
        web::cases,
        programs::cases,
    ];
    let cases: Vec<Case> = areas.iter().flat_map(|cases| cases(&stage)).collect();
    let count = cases.len();
    let waiting: Mutex<VecDeque<Case>> = Mutex::new(cases.into());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = { waiting.lock().unwrap().pop_front() } {
                    let start = Instant::now();
                    let ended = catch_unwind(AssertUnwindSafe(|| case.run(&stage)));
                    let seconds = start.elapsed().as_secs_f32();
                    results.lock().unwrap().push((case.name, ended.is_ok(), seconds));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(name, ..)| *name);
    for (name, ok, seconds) in &results {
        println!("{} {seconds:5.1} s  {name}", if *ok { "ok    " } else { "FAILED" });
    }
    let failed: Vec<&str> = results.iter().filter(|it| !it.1).map(|it| it.0).collect();
    println!("{} of {} cases ok", results.len() - failed.len(), results.len());
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert!(count >= CASES, "only {count} cases");
}
