//! `scripts/fuzz`: runs targets for a long time and keeps what they find in the corpus.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use toono_fuzz::{
    Target, corpus,
    engine::{Defect, Engine, current_file, last_input},
    targets::TARGETS,
};

const USAGE: &str = "usage: scripts/fuzz TARGET|all SECONDS [SEED]";
/// The argument that marks the process that runs the target: its parent outlives it.
const CHILD: &str = "--child";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (child, arguments) = match arguments.as_slice() {
        [CHILD, rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (name, seconds, seed) = match arguments {
        [name, seconds] => (*name, seconds.parse(), Ok(fastrand::u64(..))),
        [name, seconds, seed] => (*name, seconds.parse(), seed.parse()),
        _ => return usage(),
    };
    let (Ok(seconds), Ok(seed)) = (seconds, seed) else { return usage() };
    let chosen: Vec<_> = TARGETS.iter().filter(|t| name == "all" || t.name == name).collect();
    if chosen.is_empty() {
        return usage();
    }
    let mut found = false;
    for target in chosen {
        let time = Duration::from_secs(seconds);
        let outcome = if child { run(target, seed, time) } else { guard(target, seed, seconds) };
        match outcome {
            Ok(clean) => found |= !clean,
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                return ExitCode::from(2);
            }
        }
    }
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}\n\ntargets:");
    TARGETS.iter().for_each(|target| eprintln!("  {}", target.name));
    ExitCode::from(2)
}

/// Runs a target; whether nothing was found.
fn run(target: &'static Target, seed: u64, time: Duration) -> std::io::Result<bool> {
    let current = current_file(&std::env::temp_dir(), target);
    let report = Engine::new(target, &current)?.run(seed, time)?;
    for (input, defect) in &report.defects {
        let what = match defect {
            Defect::Panic => "panic",
            Defect::Slow(_) => "slow",
        };
        let path = corpus::keep(target.name, what, input)?;
        println!("{}: {defect:?} with {} (seed {seed})", target.name, path.display());
    }
    Ok(report.defects.is_empty())
}

/// Runs a target in a process of its own, which an input may end.
fn guard(target: &Target, seed: u64, seconds: u64) -> std::io::Result<bool> {
    let own = std::env::current_exe()?;
    let numbers = [seconds.to_string(), seed.to_string()];
    let status = Command::new(own).args([CHILD, target.name]).args(numbers).status()?;
    if status.code().is_none() {
        let input = last_input(&current_file(&std::env::temp_dir(), target))?;
        let path = corpus::keep(target.name, "abort", &input)?;
        println!("{}: {status} with {} (seed {seed})", target.name, shown(&path));
    }
    Ok(status.success())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
