//! `/healthz`, `/livez`, `/readyz`: whether the server works, check by check.
//!
//! <https://kubernetes.io/docs/reference/using-api/health-checks/>

use std::fmt::Write as _;

use http::{HeaderValue, Response, StatusCode};
use toono_http::Body;

use crate::{query::Query, respond, server::ApiServer};

/// A named check; the error says what is wrong.
struct Check {
    name: &'static str,
    /// Whether it counts for `/livez`: whether a restart would mend it.
    of_life: bool,
    run: fn(&ApiServer) -> Result<(), String>,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", of_life: true, run: |_| Ok(()) },
    // A store that takes no more writes takes them again only after a restart.
    Check { name: "store", of_life: true, run: store },
    Check { name: "shutdown", of_life: false, run: shutdown },
];

/// Answers one of the three paths, or one check below it; `None` for a check that there is not.
pub(crate) fn answer(
    server: &ApiServer,
    path: &str,
    which: &[&str],
    query: &Query,
) -> Option<Response<Body>> {
    let of_path = |check: &&Check| path == "readyz" || check.of_life;
    let excluded = query.texts("exclude");
    let checks: Vec<&Check> = match which {
        [] => CHECKS.iter().filter(of_path).collect(),
        [name] => vec![CHECKS.iter().filter(of_path).find(|check| check.name == *name)?],
        _ => return None,
    };
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        // Writing to a string cannot fail.
        let _ = if excluded.contains(&check.name) {
            writeln!(text, "[+]{} excluded: ok", check.name)
        } else if let Err(why) = (check.run)(server) {
            failed = true;
            writeln!(text, "[-]{} failed: {why}", check.name)
        } else {
            writeln!(text, "[+]{} ok", check.name)
        };
    }
    if failed {
        let _ = writeln!(text, "{path} check failed");
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        return Some(respond::typed(StatusCode::INTERNAL_SERVER_ERROR, content_type, text));
    }
    if !query.flag("verbose") {
        return Some(respond::text("ok"));
    }
    let _ = writeln!(text, "{path} check passed");
    Some(respond::text(text))
}

fn store(server: &ApiServer) -> Result<(), String> {
    let store = &server.inner.store;
    store.poisoned().map_or(Ok(()), |poisoned| Err(poisoned.to_string()))?;
    store.lost().map_or(Ok(()), |lost| Err(lost.to_string()))
}

fn shutdown(server: &ApiServer) -> Result<(), String> {
    if *server.inner.ends.borrow() { Err("the server is about to end".to_owned()) } else { Ok(()) }
}
