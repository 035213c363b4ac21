//! What is going on, on standard error: one line a step, with the time it took.

use std::{io::Write as _, time::Instant};

use crate::failure::Failure;

/// Reports steps as they are taken.
pub(crate) struct Progress;

impl Progress {
    /// Takes one step under its name.
    pub(crate) async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        eprint!("{name:<24}");
        // Only the look of the progress is at stake.
        let _ = std::io::stderr().flush();
        let start = Instant::now();
        let result = work.await;
        match &result {
            Ok(_) => eprintln!("ok   {:.1} s", start.elapsed().as_secs_f32()),
            Err(_) => eprintln!("failed"),
        }
        result
    }
}
