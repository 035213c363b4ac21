//! What happens to a fleet that is ready: changes, pods, lists, silence, a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Figures, LIMIT, NETWORK, PROGRESS, Run, change::Fetchers, drive::Load, join, watch::Readiness,
};
use crate::{Failure, api::writes, lists, percentiles::Percentiles, server::Server};

/// Longer than a node may be silent.
const AFTER_RESTART: Duration = Duration::from_secs(60);
/// What `kubectl` asks for at once.
const PAGE: usize = 500;

impl Run<'_> {
    /// Desired state changes while everybody sends heartbeats.
    pub(super) async fn change(
        &self,
        fetchers: &Fetchers,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (before, cpu) = (load.counts(), self.server.cpu_seconds()?);
        let duration = Duration::from_secs(self.args.change_seconds);
        let began = Instant::now();
        let outcome = fetchers.change(&self.access, self.args.changes, duration).await?;
        let (counts, passed) = (load.counts().since(before), began.elapsed().as_secs_f64());
        let cores = (self.server.cpu_seconds()? - cpu) / passed;
        let rate = outcome.changes as f64 / outcome.elapsed.as_secs_f64();
        let millis = |set: &Percentiles, percent| set.at(percent).as_secs_f64() * 1e3;
        let (writes, delays) = (&outcome.writes, &outcome.delays);
        figures.tell(
            "change",
            &format!(
                "{} changes, {rate:.0}/s, to {} nodes: written in p50 {:.1} ms p99 {:.1} ms; the node has it \
                 after p50 {:.1} ms p99 {:.1} ms, slowest {:.0} ms; {} missing; {} fetches, {} failed; \
                 {:.0} heartbeats/s meanwhile, {} late; server {cores:.2} cores",
                outcome.changes,
                self.args.changing.min(self.args.nodes),
                millis(writes, 50),
                millis(writes, 99),
                millis(delays, 50),
                millis(delays, 99),
                millis(delays, 100),
                outcome.missing,
                outcome.fetches,
                outcome.failed,
                counts.sent as f64 / passed,
                counts.late,
            ),
            json!({"changes": outcome.changes, "rate": rate, "missing": outcome.missing,
                "write_p50_ms": millis(writes, 50), "write_p99_ms": millis(writes, 99),
                "p50_ms": millis(delays, 50), "p99_ms": millis(delays, 99), "max_ms": millis(delays, 100),
                "fetches": outcome.fetches, "failed": outcome.failed, "cores": cores}),
        );
        Ok(())
    }

    /// Pods that are bound from the start: what placing them takes is not the question here.
    pub(super) async fn pods(&self, load: &Load, figures: &mut Figures) -> Result<(), Failure> {
        let nodes = self.args.nodes;
        let bind = move |number: usize, pod: &mut Value| {
            if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("nodeName".to_owned(), join::name(number % nodes).into());
            }
        };
        let (pods, connections) = (self.args.pods, self.args.connections);
        let digests = load.digests();
        let made = move |number: usize, pod: &[u8]| digests.add(number % nodes, pod);
        let created = writes::create_pods(&self.access, pods, connections, bind, made).await?;
        self.settle().await?;
        let (rss, peak) = (self.server.rss_mb()?, self.server.peak_mb()?);
        figures.tell(
            "pods",
            &format!("{created}; RSS {rss:.1} MB, peak {peak:.1} MB"),
            json!({"pods": pods, "seconds": created.elapsed.as_secs_f64(), "rss_mb": rss, "peak_mb": peak}),
        );
        Ok(())
    }

    /// All nodes, as stock clients ask for them.
    pub(super) async fn list(&self, figures: &mut Figures) -> Result<(), Failure> {
        self.server.reset_peak()?;
        let before = self.server.rss_mb()?;
        let (paged, pages) = lists::paged(&self.access, lists::NODES, PAGE).await?;
        let extra = self.server.peak_mb()? - before;
        let p99 = pages.at(99);
        figures.tell(
            "list",
            &format!("{paged}, p99 of a page {p99:.1?}; peak RSS +{extra:.1} MB"),
            json!({"seconds": paged.elapsed.as_secs_f64(), "objects": paged.objects, "bytes": paged.bytes,
                "page_p99_ms": p99.as_secs_f64() * 1e3, "extra_mb": extra}),
        );
        self.server.reset_peak()?;
        let before = self.server.rss_mb()?;
        let whole = lists::whole(&self.access, lists::NODES, false).await?;
        let extra = self.server.peak_mb()? - before;
        figures.tell(
            "stream",
            &format!("{whole}; peak RSS +{extra:.1} MB"),
            json!({"seconds": whole.elapsed.as_secs_f64(), "objects": whole.objects, "bytes": whole.bytes,
                "extra_mb": extra}),
        );
        Ok(())
    }

    /// Some fall silent: those are found, and no others.
    pub(super) async fn silence(
        &self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let lost_before = readiness.lost()?.len();
        let silent = load.silence(self.args.silent);
        let began = Instant::now();
        let found = loop {
            let lost = readiness.lost()?;
            let lost = lost.get(lost_before..).unwrap_or_default();
            if lost.iter().filter(|number| silent.contains(number)).count() == silent.len() {
                break began.elapsed();
            }
            if began.elapsed() > LIMIT {
                return Err(format!("{} of {} were found", lost.len(), silent.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // Whoever is wrongly found is found soon after.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let others = readiness.lost()?.len() - lost_before - silent.len();
        figures.tell(
            "silent",
            &format!("{} found in {found:.1?}, and {others} others", silent.len()),
            json!({"nodes": silent.len(), "seconds": found.as_secs_f64(), "others": others}),
        );
        Ok(())
    }

    /// The server is killed and comes back; nobody may be called silent for that.
    pub(super) async fn restart(
        &mut self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (lost, began) = (readiness.lost()?.len(), Instant::now());
        let asked = load.counts().asked;
        self.server.kill().await?;
        let Self { args, server, .. } = self;
        *server = Server::start_on(server.port, &args.toono, &args.data, &NETWORK).await?;
        let serving = began.elapsed();
        // Past the grace that the server gives who was ready before.
        tokio::time::sleep(AFTER_RESTART).await;
        let before = load.counts();
        tokio::time::sleep(PROGRESS).await;
        let asked = load.counts().asked - asked;
        let counts = load.counts().since(before);
        let (lost, rss) = (readiness.lost()?.len() - lost, self.server.rss_mb()?);
        figures.tell(
            "restart",
            &format!(
                "serving after {serving:.1?}; false NotReady: {lost}; {} of {} heartbeats answered, {asked} asked \
                 for something over HTTPS, RSS {rss:.1} MB",
                counts.answered, counts.sent
            ),
            json!({"seconds": serving.as_secs_f64(), "false_not_ready": lost, "sent": counts.sent,
                "answered": counts.answered, "asked": asked, "rss_mb": rss}),
        );
        Ok(())
    }
}
