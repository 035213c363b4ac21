//! Commands run as if on a node: in its network namespace, with the caller's terminal.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use toono_net::{NetNs, netns};

use crate::daemon::enter_before_exec;
use crate::{LabError, LabName, state};

/// What shells add to a signal's number to make an exit code of it.
const SIGNAL_BASE: i32 = 128;

/// Runs `argv` in the node's network namespace with our standard input, output and error, waits for it and
/// returns its exit code. Blocks.
pub fn shell(lab: &LabName, node: &str, argv: &[String]) -> Result<i32, LabError> {
    let default = ["/bin/sh".to_owned()];
    let argv = if argv.is_empty() { &default } else { argv };
    let [program, args @ ..] = argv else { return Ok(0) };
    let netns = namespace(lab, node)?;
    let mut command = Command::new(program);
    command.args(args);
    enter_before_exec(&mut command, netns);
    let failed =
        |source| LabError::Shell { program: program.clone(), node: node.to_owned(), source };
    let status = command.status().map_err(failed)?;
    Ok(status.code().unwrap_or_else(|| SIGNAL_BASE + status.signal().unwrap_or(0)))
}

/// The network namespace of a node, for what is to be started there.
pub fn namespace(lab: &LabName, node: &str) -> Result<NetNs, LabError> {
    let plan = state::load(lab)?.plan()?;
    let no_node = || LabError::NoNode { lab: lab.to_string(), node: node.to_owned() };
    Ok(netns::open(&plan.node(node).ok_or_else(no_node)?.netns)?)
}
