//! The short run of every target: its corpus, its giants, and some seconds of mutations.
//!
//! A failure keeps its input in the corpus; `scripts/fuzz TARGET SECONDS` looks for more like it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{path::Path, time::Duration};

use toono_fuzz::{
    corpus,
    engine::{Defect, Engine, current_file},
    targets::TARGETS,
};

/// Enough for some thousand inputs of most targets; the sum over all must not hold up a test run.
const TIME: Duration = Duration::from_millis(1500);
/// A run is the same every time, as far as time lets it: a red one must be a change's fault.
const SEED: u64 = 7;

fn short_run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let current = current_file(Path::new(env!("CARGO_TARGET_TMPDIR")), target);
    println!("an input that ends the process is left in {}", current.display());
    let report = Engine::new(target, &current).unwrap().run(SEED, TIME).unwrap();
    if let Some((input, defect)) = report.defects.first() {
        let what = if matches!(defect, Defect::Panic) { "panic" } else { "slow" };
        let path = corpus::keep(name, what, input).unwrap();
        panic!("{defect:?} with {}", path.display());
    }
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { short_run($name); })*

        #[test]
        fn no_target_is_left_out() {
            let tested = [$($name),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, tested);
            let mut folders: Vec<_> = std::fs::read_dir(corpus::root()).unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            folders.sort();
            let mut sorted = all;
            sorted.sort_unstable();
            assert_eq!(folders, sorted, "each target has a corpus, and each corpus a target");
        }
    };
}

targets! {
    json_patch "json-patch"
    merge_patch "merge-patch"
    strategic_merge "strategic-merge"
    server_side_apply "server-side-apply"
    label_selector "label-selector"
    field_selector "field-selector"
    small_texts "small-texts"
    cel "cel"
    crd_schema "crd-schema"
    object "object"
    protobuf "protobuf"
    spdy "spdy"
    websocket "websocket"
    tunnel "tunnel"
    csr "csr"
    jwt "jwt"
    datagram "datagram"
    frames "frames"
    reports "reports"
    pool "pool"
    neighbour "neighbour"
    layer_sources "layer-sources"
    layer_request "layer-request"
    offer "offer"
    dns_question "dns-question"
    dns_answer "dns-answer"
    layer "layer"
    manifest "manifest"
    compressed "compressed"
    image_archive "image-archive"
    pull_secret "pull-secret"
    request "request"
    http "http"
}
