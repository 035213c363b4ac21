//! A node lives through a day without the cloud, and loses power three times in it.
//!
//! The day is short: libfaketime (Debian's `faketime`) lets the node's clocks and waits go faster. Its containers have
//! the time of everyone.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use crate::{
    chaos::{self, MENDED, NODE},
    edge::{Edge, TOONO},
    wait::until,
};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const FASTER: u64 = 1440;
const POWER_CUTS: u64 = 3;
const BETWEEN: Duration = Duration::from_secs(24 * 3600 / POWER_CUTS / FASTER);
const PODS: usize = 4;
/// Pods are back after a start within this, which is more of the node's own time.
const BACK: Duration = Duration::from_secs(10);
/// What a return may cause shows within this.
const QUIET: Duration = Duration::from_secs(15);

#[test]
fn a_day_without_the_cloud_is_known_by_its_power_cuts_alone() {
    assert!(Path::new(FAKETIME).exists(), "needs Debian's package faketime");
    let tools = tempfile::tempdir().unwrap();
    let (program, clock) = (tools.path().join("toono"), tools.path().join("clock"));
    let script = format!(
        "#!/bin/sh\n[ ! -f {clock} ] || . {clock}\nexec {TOONO} \"$@\"\n",
        clock = clock.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edge = Edge::up_with_one_node(&["--node-program", program.to_str().unwrap()], &[]);
    chaos::remove_hello(&edge);

    let names: Vec<String> = (0..PODS).map(|number| format!("day-{number}")).collect();
    names.iter().for_each(|name| chaos::create(&edge, name));
    until("the pods", MENDED, || chaos::all_ready(&edge, &names).then_some(()));
    let before = chaos::identities(&edge, &names);
    edge.toono_here(&["lab", "cut"], &["pool-a"]);

    let run = |edge: &Edge| {
        let mains: BTreeMap<_, _> =
            before.values().map(|(uid, _)| (uid.clone(), chaos::mains(uid))).collect();
        edge.process("node", NODE);
        mains
    };
    for cut in 0..POWER_CUTS {
        let hours = cut * 24 / POWER_CUTS;
        let speed = format!("export LD_PRELOAD={FAKETIME} FAKETIME='+{hours}h x{FASTER}'\n");
        std::fs::write(&clock, speed).unwrap();
        chaos::cut_power(&edge);
        edge.run_up_without_waiting();
        // A node that starts is a shell for a moment.
        until("the node's process", BACK, || edge.find_process("node", NODE));
        until("the pods to run without the cloud", BACK, || {
            run(&edge).values().all(|mains| mains.len() == 1).then_some(())
        });
        let running = run(&edge);
        std::thread::sleep(BETWEEN);
        assert_eq!(run(&edge), running, "hours without a cause to restart anything");
    }

    // The node's own clock again, by a start of the daemon alone; then the link is back.
    std::fs::remove_file(&clock).unwrap();
    let running = run(&edge);
    chaos::restart_daemon(&edge);
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    let as_it_was = || {
        let counted = |name: &String| chaos::restarts_of(&edge, name) == POWER_CUTS;
        chaos::all_ready(&edge, &names) && names.iter().all(counted)
    };
    until("true restart counts", Duration::from_secs(60), || as_it_was().then_some(()));
    std::thread::sleep(QUIET);
    assert!(as_it_was(), "the return restarted something");
    assert_eq!(run(&edge), running, "the return restarted something");
    assert_eq!(chaos::identities(&edge, &names), before, "the same pods at the same addresses");
}
