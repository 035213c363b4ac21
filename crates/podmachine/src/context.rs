//! What every part of the machine works with during one call: the pod, the time, and the outputs.

use crate::{action::Action, events::EventLog, moment::Moment, plan::Plan};

pub(crate) struct Context<'a> {
    /// The pod as the cloud wants it.
    pub(crate) pod: &'a Plan,
    pub(crate) now: Moment,
    /// The pod is to run on, as opposed to ending.
    pub(crate) going: bool,
    pub(crate) actions: &'a mut Vec<Action>,
    pub(crate) events: EventLog<'a>,
}

impl Context<'_> {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}
