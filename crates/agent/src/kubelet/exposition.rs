//! The text format of metrics that Prometheus reads.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write;

use jiff::Timestamp;

/// A page of metrics, written from the top.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl Page {
    /// Begins a metric; its samples follow.
    pub(super) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { page: &mut self.0, name }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Takes the samples of one metric.
#[derive(Debug)]
pub(super) struct Metric<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    /// One sample, of a time where it is not that of the request.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        self.page.push_str(self.name);
        let mut separator = '{';
        for (name, text) in labels {
            let _ = write!(self.page, "{separator}{name}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.page.push_str("\\\\"),
                    '"' => self.page.push_str("\\\""),
                    '\n' => self.page.push_str("\\n"),
                    other => self.page.push(other),
                }
            }
            self.page.push('"');
            separator = ',';
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        let _ = write!(self.page, " {value}");
        if let Some(at) = at {
            let _ = write!(self.page, " {}", at.as_millisecond());
        }
        self.page.push('\n');
    }
}

/// Billionths to units, as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A count as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let mut page = Page::default();
        let mut metric = page.metric("a_total", Kind::Counter, "What a is.");
        metric.sample(&[("x", "1"), ("y", "quo\"te\\")], 1.5, Timestamp::from_second(2).ok());
        metric.sample(&[], 3.0, None);
        assert_eq!(
            page.finish(),
            "# HELP a_total What a is.\n# TYPE a_total counter\na_total{x=\"1\",y=\"quo\\\"te\\\\\"} 1.5 2000\na_total 3\n"
        );
    }
}
