//! Log lines go to standard error, in colour only for a terminal that wants it.

use std::io::IsTerminal as _;

use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _};

use crate::failure::Failure;

/// Starts logging by a filter such as `info` or `info,toono_fleet=debug`.
pub(crate) fn start(filter: &str) -> Result<(), Failure> {
    let filter: Targets = filter.parse().map_err(|error| {
        Failure::caused("bad-log-filter", &error, "use a level such as info, or target=level")
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}
