//! Checks of the tree that the compiler does not make: `cargo xtask tidy [--bless]`.

mod graph;
mod headers;
mod metadata;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy [--bless]

  tidy      layers, crate graph, banned crates and licences, file headers
  --bless   write docs/crate-graph.txt instead of comparing with it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bless = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => false,
        ["tidy", "--bless"] => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tidy(bless) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("tidy: {finding}");
            }
            eprintln!("tidy: {} finding(s)", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: cannot run: {error}");
            ExitCode::from(2)
        }
    }
}

fn tidy(bless: bool) -> Result<Vec<String>, String> {
    let workspace = metadata::Workspace::load()?;
    let mut findings = graph::check_layers(&workspace);
    findings.extend(graph::check_golden_file(&workspace, bless)?);
    findings.extend(graph::check_packages(&workspace));
    findings.extend(headers::check(&workspace.root)?);
    Ok(findings)
}
