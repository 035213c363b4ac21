//! A damaged journal under the built server: a bad end is cut, a bad middle is refused.

use std::{fs, os::unix::fs::FileExt as _, path::PathBuf};

use crate::{
    cloud::{Cloud, assert_refused},
    edge::Turn,
};

#[test]
fn a_torn_end_is_cut_with_a_warning() {
    let _turn = Turn::alone();
    let (mut cloud, journal) = stopped_with_writes();
    let file = fs::File::options().write(true).open(&journal).unwrap();
    file.set_len(written(&journal) - 3).unwrap();
    restart_and_expect_all_but_the_last(&mut cloud);
}

#[test]
fn a_flipped_bit_at_the_end_is_cut_with_a_warning() {
    let _turn = Turn::alone();
    let (mut cloud, journal) = stopped_with_writes();
    let length = written(&journal);
    flip_a_bit(&journal, length - 40);
    restart_and_expect_all_but_the_last(&mut cloud);
}

#[test]
fn a_damaged_middle_is_refused_with_its_place() {
    let _turn = Turn::alone();
    let (cloud, journal) = stopped_with_writes();
    let length = written(&journal);
    let before = fs::read(&journal).unwrap();
    flip_a_bit(&journal, length / 2);
    let output = cloud.command().output().unwrap();
    assert_refused(&output, "store-damaged", "damaged at byte");
    flip_a_bit(&journal, length / 2);
    assert_eq!(fs::read(&journal).unwrap(), before, "the refusal changed the journal");
}

/// A server killed after ten writes, and its newest journal file.
fn stopped_with_writes() -> (Cloud, PathBuf) {
    let mut cloud = Cloud::start();
    for number in 0..10 {
        cloud.create_configmap(&format!("kept-{number}"));
    }
    cloud.create_configmap("last");
    cloud.kill();
    let mut journals: Vec<PathBuf> = fs::read_dir(cloud.dir.path().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("journal-"))
        .collect();
    journals.sort();
    (cloud, journals.pop().unwrap())
}

/// How long a journal file is without the zeros after its last frame, which are room for more.
fn written(path: &PathBuf) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64
}

fn flip_a_bit(path: &PathBuf, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).unwrap();
}

fn restart_and_expect_all_but_the_last(cloud: &mut Cloud) {
    cloud.spawn();
    cloud.await_ready();
    let names = cloud.kubectl(&["get", "configmaps", "-o", "name"]);
    for number in 0..10 {
        assert!(names.contains(&format!("configmap/kept-{number}")), "{names}");
    }
    assert!(!names.contains("configmap/last"), "{names}");
    assert!(cloud.log().contains("WARN"), "no warning in:\n{}", cloud.log());
    cloud.create_configmap("after");
}
