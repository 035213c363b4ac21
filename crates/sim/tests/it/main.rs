//! The built benchmarks.

mod ending;
