//! What a run came to, in words and figures; and its faults.

use std::{ops::Range, time::Duration};

use serde_json::json;
use toono_lab::Loss;

use super::{
    gauge::{Gauge, Sample, neighbours},
    judge::Verdict,
    links::Links,
    plan::{Cut, Place},
    watch::Seen,
};
use crate::{Failure, fleet::Figures, percentiles::Percentiles};

const DAY_SECONDS: f64 = 86_400.0;
/// The server keeps old versions of objects for five minutes: until then its memory grows with every change.
const HISTORY: Duration = Duration::from_secs(300);
/// From then on it is flat while it stays within this of what it was.
const GROWTH_MOST: f64 = 0.10;
/// Faults that are told one by one; there are as many when a whole site is misjudged.
const FAULTS_TOLD: usize = 20;

/// From one sample to another.
pub(super) struct Phase<'a> {
    pub(super) gauge: &'a Gauge,
    pub(super) from: &'a Sample,
    pub(super) to: &'a Sample,
}

/// What happened.
pub(super) struct Course<'a> {
    pub(super) names: &'a [String],
    pub(super) cuts: &'a [Cut],
    pub(super) links: &'a Links,
    pub(super) seen: &'a Seen,
    /// From the first cut to the end.
    pub(super) time: Range<Duration>,
    pub(super) has_pods: bool,
}

/// Before anything is cut.
pub(super) fn quiet(phase: &Phase<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let used = phase.gauge.between(phase.from, phase.to);
    let count = phase.gauge.nodes.len() as f64;
    let (node_mb, server_mb) = (phase.to.nodes_mb / count, phase.to.server_mb);
    let day = DAY_SECONDS / used.seconds / 1e6;
    let (up, down) = (used.up_bytes * day, used.down_bytes * day);
    let (known, most) = neighbours()?;
    figures.tell(
        "quiet",
        &format!(
            "{:.0} s; server {:.3} cores, RSS {server_mb:.1} MB; a node {:.4} cores, PSS {node_mb:.1} MB, \
             {up:.2} + {down:.2} MB a day up and down; {known} of {most} neighbours in the kernel's table",
            used.seconds, used.server_cores, used.node_cores,
        ),
        json!({"seconds": used.seconds, "server_cores": used.server_cores, "server_mb": server_mb,
            "node_cores": used.node_cores, "node_mb": node_mb, "up_mb_a_day": up, "down_mb_a_day": down,
            "neighbours": known, "neighbours_most": most}),
    );
    Ok(())
}

/// What the API said of nodes, against their links.
pub(super) fn nodes(course: &Course<'_>, figures: &mut Figures) -> Vec<String> {
    let count = |kind: &dyn Fn(&Cut) -> bool| course.cuts.iter().filter(|cut| kind(cut)).count();
    let of = |loss| count(&|cut| cut.loss == loss);
    let [all, udp, out, inward] = [Loss::All, Loss::Udp, Loss::Outbound, Loss::Inbound].map(of);
    let sites = count(&|cut| matches!(cut.places.first(), Some(Place::Site(_))));
    figures.tell(
        "cuts",
        &format!(
            "{}, {sites} of them of whole sites; {all} lose everything, {udp} UDP, {out} what goes out, {inward} \
             what comes in",
            course.cuts.len()
        ),
        json!({"cuts": course.cuts.len(), "sites": sites, "all": all, "udp": udp, "outbound": out,
            "inbound": inward}),
    );

    let mut verdict = Verdict::default();
    for (number, (name, turns)) in course.names.iter().zip(&course.seen.nodes).enumerate() {
        verdict.judge((number, name), course.links, turns, &course.time);
    }
    let (found, back) = (Percentiles::of(verdict.found), Percentiles::of(verdict.back));
    let (not_ready, faults) = (verdict.not_ready, verdict.faults.len());
    figures.tell(
        "judged",
        &format!(
            "{not_ready} times a node was NotReady: p50 {:.1?}, last {:.1?} after its cut, and Ready p50 {:.1?}, last \
             {:.1?} after its healing; {faults} faults",
            found.at(50),
            found.at(100),
            back.at(50),
            back.at(100)
        ),
        json!({"not_ready": not_ready, "found_p50_s": found.at(50).as_secs_f64(),
            "found_last_s": found.at(100).as_secs_f64(), "back_p50_s": back.at(50).as_secs_f64(),
            "back_last_s": back.at(100).as_secs_f64(), "faults": faults}),
    );
    shortened(verdict.faults)
}

/// What became of the pods.
pub(super) fn pods(course: &Course<'_>, figures: &mut Figures) -> Vec<String> {
    if !course.has_pods {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (name, pod) in course.names.iter().zip(&course.seen.pods) {
        faults.extend(pod.faults.iter().map(|fault| format!("the pod of {name} {fault}")));
        if !pod.ready {
            faults.push(format!("the pod of {name} is not Ready at the end"));
        }
    }
    let (count, told) = (course.seen.pods.len(), faults.len());
    figures.tell(
        "pods",
        &format!("{count}; {told} evicted, restarted, replaced, or not Ready at the end"),
        json!({"pods": count, "faults": told}),
    );
    shortened(faults)
}

/// Memory minute by minute, and what the cuts cost.
pub(super) fn used(
    gauge: &Gauge,
    quiet: &Sample,
    samples: &[Sample],
    figures: &mut Figures,
) -> Vec<String> {
    let Some(last) = samples.last() else { return Vec::new() };
    let used = gauge.between(quiet, last);
    let minutes = used.seconds / 60.0;
    let (up, down) = (used.up_bytes / minutes, used.down_bytes / minutes);
    let rss: Vec<f64> = [quiet].into_iter().chain(samples).map(|sample| sample.server_mb).collect();
    let text: Vec<String> = rss.iter().map(|rss| format!("{rss:.1}")).collect();
    let node_mb = last.nodes_mb / gauge.nodes.len() as f64;
    figures.tell(
        "used",
        &format!(
            "{:.0} s; server {:.3} cores; a node {:.4} cores, PSS {node_mb:.1} MB, {up:.0} + {down:.0} bytes a minute \
             up and down; RSS of the server by the minute: {} MB",
            used.seconds,
            used.server_cores,
            used.node_cores,
            text.join(" ")
        ),
        json!({"seconds": used.seconds, "server_cores": used.server_cores, "node_cores": used.node_cores,
            "node_mb": node_mb, "up_bytes_a_minute": up, "down_bytes_a_minute": down, "server_mb": rss}),
    );
    let settled = samples.iter().filter(|sample| sample.at - quiet.at >= HISTORY);
    let settled: Vec<f64> = settled.map(|sample| sample.server_mb).collect();
    match growth(&settled) {
        Some(grown) if grown > GROWTH_MOST => {
            vec![format!("the server's memory grew by {:.0}%", grown * 100.0)]
        }
        _ => Vec::new(),
    }
}

/// By how much the last third is above the first, as a part of it; none of too few.
fn growth(samples: &[f64]) -> Option<f64> {
    let third = samples.len() / 3;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let first = mean(samples.get(..third).filter(|part| !part.is_empty())?);
    Some((mean(samples.get(samples.len() - third..)?) - first) / first)
}

fn shortened(mut faults: Vec<String>) -> Vec<String> {
    let more = faults.len().saturating_sub(FAULTS_TOLD);
    faults.truncate(FAULTS_TOLD);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_from_the_first_third_to_the_last() {
        let grows = |samples: &[f64]| growth(samples).map(|grown| grown > GROWTH_MOST);
        assert_eq!(grows(&[100.0, 101.0, 99.0, 100.0, 100.0]), Some(false));
        assert_eq!(grows(&[100.0, 100.0, 110.0, 120.0, 130.0, 140.0]), Some(true));
        assert_eq!(grows(&[100.0, 120.0]), None);
    }
}
