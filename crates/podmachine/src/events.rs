//! Events in the kubelet's words, about one pod.

use jiff::Timestamp;
use toono_wire::report::EventReport;

use crate::{
    conditions::whole_seconds,
    plan::{ContainerPlan, Plan},
};

/// Collects the events of one step.
#[derive(Debug)]
pub(crate) struct EventLog<'a> {
    plan: &'a Plan,
    at: Timestamp,
    events: &'a mut Vec<EventReport>,
}

impl<'a> EventLog<'a> {
    pub(crate) fn new(plan: &'a Plan, at: Timestamp, events: &'a mut Vec<EventReport>) -> Self {
        Self { plan, at, events }
    }

    pub(crate) fn pod_warning(&mut self, reason: &str, message: String) {
        self.push(String::new(), "Warning", reason, message);
    }

    pub(crate) fn pod_normal(&mut self, reason: &str, message: String) {
        self.push(String::new(), "Normal", reason, message);
    }

    pub(crate) fn normal(&mut self, container: &ContainerPlan, reason: &str, message: String) {
        self.push(field_path(container), "Normal", reason, message);
    }

    pub(crate) fn warning(&mut self, container: &ContainerPlan, reason: &str, message: String) {
        self.push(field_path(container), "Warning", reason, message);
    }

    fn push(&mut self, field_path: String, kind: &str, reason: &str, message: String) {
        self.events.push(EventReport {
            namespace: self.plan.namespace.clone(),
            pod: self.plan.name.clone(),
            pod_uid: self.plan.uid.clone(),
            field_path,
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            message,
            at: whole_seconds(self.at).to_string(),
        });
    }
}

fn field_path(container: &ContainerPlan) -> String {
    format!("spec.{}{{{}}}", container.list(), container.name)
}
