//! The keeper as a program, which the tests start as the agent starts its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    toono_sandbox::keeper_main()
}
