//! What is stored and what is made of it, also after damage, power cuts and on a full disk.

use super::*;
use crate::disk::small::Small;

fn bundle(revision: u64, pods: &[&str], present: &[&str]) -> Bundle {
    let pod = |uid: &&str| {
        let text = format!(r#"{{"metadata":{{"name":"p-{uid}","namespace":"d","uid":"{uid}"}}}}"#);
        RawValue::from_string(text).unwrap()
    };
    let digests = present.iter().map(|uid| PodDigest::of_json(pod(uid).get()).unwrap());
    let digest: BundleDigest = digests.collect();
    Bundle {
        revision,
        pods: pods.iter().map(pod).collect(),
        present: present.iter().map(ToString::to_string).collect(),
        referents: Vec::new(),
        referenced: Vec::new(),
        digest: digest.0,
        pool: None,
    }
}

fn config_map(name: &str, value: &str) -> (ReferentName, Box<RawValue>) {
    let text = format!(
        r#"{{"kind":"ConfigMap","namespace":"d","name":"{name}","data":{{"k":"{value}"}}}}"#
    );
    (referents::told(&text).unwrap().0, RawValue::from_string(text).unwrap())
}

/// The bundle with ConfigMaps: some sent, some only named, each with its value.
fn with_maps(mut bundle: Bundle, sent: &[(&str, &str)], named: &[(&str, &str)]) -> Bundle {
    let mut sum = BundleDigest(bundle.digest);
    for (maps, are_sent) in [(sent, true), (named, false)] {
        for (name, value) in maps {
            let (name, text) = config_map(name, value);
            sum = sum.with(referents::told(text.get()).unwrap().1);
            bundle.referenced.push(name);
            bundle.referents.extend(are_sent.then_some(text));
        }
    }
    Bundle { digest: sum.0, ..bundle }
}

/// What a ConfigMap of the node says.
fn value(bundles: &Bundles, name: &str) -> Option<String> {
    let found = bundles.referents().find(&config_map(name, "").0).unwrap()?;
    Some(String::from_utf8(found.data["k"].clone()).unwrap())
}

fn uids(bundles: &Bundles) -> Vec<String> {
    bundles.pods().unwrap().into_iter().filter_map(|pod| pod.metadata.uid).collect()
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    assert_eq!(bundles.revision(), 0);
    bundles.store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
    bundles.store(&bundle(9, &[], &["b"])).unwrap();
    let again = Bundles::load(dir.path()).unwrap();
    assert_eq!((again.revision(), again.digest()), (9, bundle(9, &[], &["b"]).digest));
    assert_eq!(uids(&again), ["a", "b"], "a pod to be ended keeps its file");
    assert!(again.wants("b") && !again.wants("a"));
}

#[test]
fn damage_is_noticed_and_costs_one_fetch_and_no_pod() {
    let dir = tempfile::tempdir().unwrap();
    Bundles::load(dir.path()).unwrap().store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
    let path = pod_dir(dir.path(), "a").join("pod");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..40]).unwrap();
    let torn = Bundles::load(dir.path()).unwrap();
    assert_eq!((torn.revision(), uids(&torn)), (0, vec!["b".to_owned()]));
    assert!(torn.wants("a"), "its containers are not given up");
    fs::write(&path, whole).unwrap();

    fs::write(dir.path().join("bundle"), "toono1 00000000 3\n{}").unwrap();
    let torn = Bundles::load(dir.path()).unwrap();
    assert_eq!(torn.revision(), 0);
    assert!(torn.wants("a") && torn.wants("b"), "without an index nothing is unwanted");
}

#[test]
fn what_does_not_make_the_whole_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    bundles.store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    assert!(bundles.fits(&bundle(8, &[], &["a", "b"])), "nothing new");
    assert!(bundles.fits(&bundle(8, &["c"], &["b", "c"])), "one more, one less");
    assert!(!bundles.fits(&bundle(8, &["c"], &["a", "c", "d"])), "one is not here");
    let mut changed = bundle(8, &[], &["a", "b"]);
    changed.digest = changed.digest.wrapping_add(1);
    assert!(!bundles.fits(&changed), "one is not as it was here");
    let index = fs::read(dir.path().join("bundle")).unwrap();
    bundles.store(&changed).unwrap();
    assert_eq!(bundles.digest(), changed.digest, "the cloud's word");
    // Without the digests of pods, as after damage, nothing fits but the whole.
    fs::remove_file(dir.path().join("bundle")).unwrap();
    let damaged = Bundles::load(dir.path()).unwrap();
    assert!(!damaged.fits(&bundle(8, &[], &["a", "b"])));
    assert!(damaged.fits(&bundle(8, &["a", "b"], &["a", "b"])));
    fs::write(dir.path().join("bundle"), index).unwrap();
    assert!(Bundles::load(dir.path()).unwrap().fits(&bundle(8, &[], &["a", "b"])));
}

#[test]
fn what_pods_reference_comes_changes_and_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let files = || fs::read_dir(dir.path().join("referents")).unwrap().count();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    let first = with_maps(bundle(7, &["a"], &["a"]), &[("m", "1"), ("n", "1")], &[]);
    assert!(bundles.fits(&first) && bundles.store(&first).unwrap().referents);
    let mut bundles = Bundles::load(dir.path()).unwrap();
    assert_eq!((value(&bundles, "m").as_deref(), bundles.revision()), (Some("1"), 7));
    let second = with_maps(bundle(8, &[], &["a"]), &[("m", "2")], &[("n", "1")]);
    assert!(bundles.fits(&second) && bundles.store(&second).unwrap().referents);
    assert_eq!((value(&bundles, "m").as_deref(), files()), (Some("2"), 2));
    assert!(!bundles.fits(&with_maps(bundle(9, &[], &["a"]), &[], &[("m", "3")])));
    assert!(!bundles.fits(&with_maps(bundle(9, &[], &["a"]), &[], &[("o", "1")])));
    let third = with_maps(bundle(9, &["b"], &["a", "b"]), &[], &[("n", "1")]);
    assert!(bundles.fits(&third) && bundles.store(&third).unwrap().referents);
    assert_eq!((value(&bundles, "m"), files()), (None, 1));
    let fourth = with_maps(bundle(10, &[], &["b"]), &[], &[("n", "1")]);
    assert!(!bundles.store(&fourth).unwrap().referents);
}

#[test]
fn a_power_cut_between_any_two_writes_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    bundles.store(&with_maps(bundle(7, &["a"], &["a"]), &[("m", "1")], &[])).unwrap();
    let index = fs::read(dir.path().join("bundle")).unwrap();
    bundles.referents().write(config_map("m", "2").1.get()).unwrap();
    let cut = Bundles::load(dir.path()).unwrap();
    assert_eq!((value(&cut, "m").as_deref(), cut.revision()), (Some("1"), 7));
    // The index went with the disk's cache, and no server is there to ask.
    fs::write(dir.path().join("bundle"), &index[..20]).unwrap();
    let cut = Bundles::load(dir.path()).unwrap();
    assert_eq!((value(&cut, "m").as_deref(), cut.revision()), (Some("2"), 0));
    fs::write(dir.path().join("bundle"), &index).unwrap();
    for entry in fs::read_dir(dir.path().join("referents")).unwrap() {
        fs::write(entry.unwrap().path(), "toono1 00000000 3\n{}").unwrap();
    }
    let torn = Bundles::load(dir.path()).unwrap();
    assert_eq!(torn.revision(), 0);
    assert!(torn.referents().find(&config_map("m", "").0).is_err());
    assert!(torn.wants("a"));
}

#[test]
fn a_uid_cannot_leave_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundles = Bundles::load(dir.path()).unwrap();
    let stored = bundles.store(&bundle(1, &["../x"], &["../x", "a"])).unwrap();
    assert!(stored.pods.is_empty() && !bundles.wants("../x"));
    assert!(!dir.path().join("x").exists());
}

#[test]
fn a_full_disk_takes_what_makes_room_and_gets_the_rest_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Small::mount(dir.path());
    let mut bundles = Bundles::load(dir.path()).unwrap();
    bundles.store(&with_maps(bundle(7, &["a", "b"], &["a", "b"]), &[("m", "1")], &[])).unwrap();
    disk.fill();
    // One has changed, one is gone, one is new, and so is a ConfigMap.
    let next = with_maps(bundle(9, &["a", "c"], &["a", "c"]), &[("m", "2")], &[]);
    assert!(bundles.fits(&next));
    let news = bundles.store(&next).unwrap();
    assert_eq!(news.pods.len(), 1);
    let refused = news.refused.iter().map(|it| it.pod.as_ref().map(|pod| pod.2.as_str()));
    assert_eq!(refused.collect::<Vec<_>>(), [Some("c"), None]);
    assert!(news.refused[0].reason.contains("No space left on device"), "{:?}", news.refused);
    let mut bundles = Bundles::load(dir.path()).unwrap();
    assert_eq!(bundles.revision(), 7, "the rest comes again");
    assert!(bundles.wants("a") && !bundles.wants("b") && !bundles.wants("c"));
    assert_eq!(value(&bundles, "m").as_deref(), Some("1"));
    disk.make_room();
    assert!(bundles.fits(&next));
    let news = bundles.store(&next).unwrap();
    assert!(news.refused.is_empty() && news.referents && bundles.wants("c"));
    assert_eq!((bundles.revision(), value(&bundles, "m").as_deref()), (9, Some("2")));
}
