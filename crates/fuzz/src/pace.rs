//! How slow this machine is just now, by work that is always the same: the limit of time is meant for the
//! machine of docs/benchmarks.md, undisturbed, and a decoder must not fail for another one.

use std::{fmt::Write as _, hint::black_box, sync::OnceLock, time::Duration};

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// The work on that machine.
const REFERENCE: Duration = Duration::from_micros(8_700);
/// Whatever is so many times slower is not believed.
const SLOWEST: f64 = 4.0;

/// What a limit comes to here and now. Builds for development have limits of their own.
pub(crate) fn allowance(limit: Duration) -> Duration {
    if cfg!(debug_assertions) || cfg!(feature = "coverage") {
        return limit;
    }
    limit.mul_f64((work().as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, SLOWEST))
}

/// Reads a megabyte of JSON, which takes what decoders take: branches, copies, small allocations.
fn work() -> Duration {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let mut text = String::from("[");
        for at in 0..20_000 {
            let _ = write!(text, r#"{{"name":"item-{at}","values":[{at},true,"text"]}},"#);
        }
        text + "0]"
    });
    let once = || {
        let begun = thread_time();
        let _ = black_box(serde_json::from_str::<Value>(text));
        thread_time().saturating_sub(begun)
    };
    // The first time the allocator may have to ask the system for memory.
    once().min(once())
}

/// The processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_no_smaller_anywhere_and_never_without_end() {
        let limit = Duration::from_millis(100);
        let here = allowance(limit);
        assert!(here >= limit && here <= limit.mul_f64(SLOWEST), "{here:?}");
        println!("{here:?} for {limit:?}; the work takes {:?}", work());
    }
}
