//! One container's life, backward: what the agent observed, and what follows from it.

use std::time::Duration;

use jiff::Timestamp;

use super::{Container, Ended, State, Waiting, stop::Again};
use crate::{
    action::{Action, Exit, Hook, Observation, StartFailure},
    context::Context,
    plan::PullPolicy,
    probes::Probes,
};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const ERROR_SHOWN: Duration = Duration::from_secs(1);
/// The code of a container whose process could not be run, as every runtime reports it.
const CODE_START_ERROR: i32 = 128;
/// Why a container waits whose pod asks for something that cannot be resolved.
const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// The code given to a container that vanished, as the kubelet reports it.
const CODE_UNKNOWN: i32 = 137;

impl Container {
    /// Takes an observation about this container; one that answers no open question is ignored.
    pub(crate) fn observe(&mut self, seen: Observation, cx: &mut Context<'_>) {
        use Observation as Seen;
        match (seen, self.state) {
            (Seen::ImagePresent { image_id, .. }, State::LookingUp) => {
                let image = &self.plan.image;
                let text = format!("Container image \"{image}\" already present on machine");
                self.on_image(image_id, text, cx);
            }
            (Seen::ImageAbsent { .. }, State::LookingUp) => self.on_absent(cx),
            (Seen::ImagePulled { image_id, took, size, .. }, State::Pulling) => {
                let text = pulled(&self.plan.image, took, size);
                self.on_image(image_id, text, cx);
            }
            (Seen::ImageNameInvalid { message, .. }, State::LookingUp | State::Pulling) => {
                self.on_invalid_name(&message, cx);
            }
            (Seen::ImagePullFailed { unreachable, message, .. }, State::Pulling) => {
                self.on_pull_failed(unreachable, message, cx);
            }
            (Seen::Started { attempt, at, .. }, State::Starting)
                if attempt == self.next_attempt() =>
            {
                self.on_started(attempt, at, cx);
            }
            (Seen::StartFailed { attempt, failure, message, .. }, State::Starting)
                if attempt == self.next_attempt() =>
            {
                self.on_start_failed(failure, message, cx);
            }
            (
                Seen::Exited { attempt, exit, .. },
                State::Running { .. } | State::Stopping { .. },
            ) if attempt == self.attempt => {
                self.on_exit(exit, None, cx);
            }
            (Seen::HookDone { attempt, hook, error, .. }, _)
                if self.has_process() && attempt == self.attempt =>
            {
                self.on_hook_done(hook, error, cx);
            }
            (Seen::Probed { attempt, kind, outcome, .. }, _)
                if self.has_process() && attempt == self.attempt =>
            {
                self.on_probed(kind, outcome, cx);
            }
            _ => {}
        }
    }

    /// What it could not be configured for may be there now.
    pub(crate) fn configure_again(&mut self, cx: &Context<'_>) {
        let waits = self.waiting.as_ref().is_some_and(|it| it.reason == CONFIG_ERROR);
        if let (true, State::Held { until }) = (waits, &mut self.state) {
            *until = cx.now.elapsed;
        }
    }

    /// The sandbox went, and the container with it.
    pub(crate) fn lose(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Starting {
            // Nobody saw it run, so it counts as not having run.
            let again = State::Held { until: cx.now.elapsed };
            self.state = if cx.going { again } else { State::Finished };
        }
        if !self.is_live() {
            return;
        }
        let exit = lost(self.started_at, cx.now.wall);
        self.on_exit(exit, Some("ContainerStatusUnknown"), cx);
    }

    /// The run is over: for good, or until the back-off allows the next.
    pub(crate) fn on_exit(&mut self, exit: Exit, reason: Option<&str>, cx: &mut Context<'_>) {
        let ran = match self.state {
            State::Running { since } | State::Stopping { since, .. } => {
                cx.now.elapsed.saturating_sub(since)
            }
            _ => Duration::ZERO,
        };
        let code = exit.code;
        let reason = reason.unwrap_or(match code {
            _ if exit.oom => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        });
        let ended = Ended { attempt: self.attempt, reason: reason.to_owned(), exit };
        self.previous = self.ended.replace(ended);
        self.started_at = None;
        self.waiting = None;
        self.probes = Probes::default();
        self.hooking = false;
        let stopped = matches!(self.state, State::Stopping { .. });
        let again = if stopped { self.again } else { Again::ByPolicy };
        if !(cx.going && again.restarts(&self.plan.restarts, code)) {
            self.state = State::Finished;
            return;
        }
        // A container that is stopped to be replaced did not crash.
        let replaced = again == Again::Replaced;
        let delay = if replaced { Duration::ZERO } else { self.crash.after_run(ran) };
        self.hold(delay, cx);
        if let (None, Some(message)) = (&self.waiting, self.hook_error.take()) {
            self.waiting = Some(Waiting { reason: "PostStartHookError", message });
        }
    }

    /// Waits for the crash back-off.
    pub(crate) fn hold(&mut self, delay: Duration, cx: &mut Context<'_>) {
        self.state = State::Held { until: cx.now.elapsed + delay };
        if delay.is_zero() {
            return;
        }
        let name = &self.plan.name;
        let pod = cx.pod.full_name();
        let seconds = delay.as_secs();
        cx.events.warning(
            &self.plan,
            "BackOff",
            format!("Back-off restarting failed container {name} in pod {pod}"),
        );
        let clock = if seconds < 60 {
            format!("{seconds}s")
        } else {
            format!("{}m{}s", seconds / 60, seconds % 60)
        };
        let message = format!("back-off {clock} restarting failed container={name} pod={pod}");
        self.waiting = Some(Waiting { reason: "CrashLoopBackOff", message });
    }

    fn on_image(&mut self, image_id: String, text: String, cx: &mut Context<'_>) {
        cx.events.normal(&self.plan, "Pulled", text);
        self.image_id = image_id;
        self.unreachable = None;
        self.pull.reset();
        self.state = State::HasImage;
    }

    fn on_absent(&mut self, cx: &mut Context<'_>) {
        let image = &self.plan.image;
        if self.plan.pull == PullPolicy::Never {
            let message =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            cx.events.warning(&self.plan, "ErrImageNeverPull", message.clone());
            cx.events.warning(&self.plan, "Failed", "Error: ErrImageNeverPull".to_owned());
            self.waiting = Some(Waiting { reason: "ErrImageNeverPull", message });
            let until = cx.now.elapsed + self.pull.after_failure();
            self.state = State::PullHeld { until, error_until: None };
        } else if let Some(message) = self.unreachable.take() {
            self.hold_pull(message, cx);
        } else {
            self.state = State::WantsPull;
        }
    }

    /// Asked again only because the pod's image may be changed; the answer will be the same.
    fn on_invalid_name(&mut self, reason: &str, cx: &mut Context<'_>) {
        let image = &self.plan.image;
        let message = format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": \
             invalid reference format: {reason}"
        );
        cx.events.warning(&self.plan, "InspectFailed", message.clone());
        cx.events.warning(&self.plan, "Failed", "Error: InvalidImageName".to_owned());
        self.waiting = Some(Waiting { reason: "InvalidImageName", message });
        let until = cx.now.elapsed + self.pull.after_failure();
        self.state = State::PullHeld { until, error_until: None };
    }

    fn on_pull_failed(&mut self, unreachable: bool, message: String, cx: &mut Context<'_>) {
        let image = &self.plan.image;
        let text = format!("Failed to pull image \"{image}\": {message}");
        cx.events.warning(&self.plan, "Failed", text);
        // `Always` asks the registry whether the image is still the right one. With the link down
        // nobody can say, and an edge must come back from a crash alone: the image that this very
        // container has run before is taken as it is.
        if unreachable && !self.running_image.is_empty() && self.running_image == *image {
            self.unreachable = Some(message);
            self.state = State::WantsLookUp;
        } else {
            self.hold_pull(message, cx);
        }
    }

    fn hold_pull(&mut self, cause: String, cx: &mut Context<'_>) {
        let shown = matches!(&self.waiting, Some(waiting) if waiting.reason == "ImagePullBackOff");
        cx.events.warning(&self.plan, "Failed", "Error: ErrImagePull".to_owned());
        self.waiting = Some(Waiting { reason: "ErrImagePull", message: cause });
        let until = cx.now.elapsed + self.pull.after_failure();
        let error_until = (!shown).then(|| cx.now.elapsed + ERROR_SHOWN);
        self.state = State::PullHeld { until, error_until };
        if shown {
            self.show_pull_back_off(cx);
        }
    }

    pub(super) fn show_pull_back_off(&mut self, cx: &mut Context<'_>) {
        let text = format!("Back-off pulling image \"{}\"", self.plan.image);
        let cause = self.waiting.take().map(|it| it.message).unwrap_or_default();
        cx.events.normal(&self.plan, "BackOff", text.clone());
        cx.events.warning(&self.plan, "Failed", "Error: ImagePullBackOff".to_owned());
        let message = format!("{text}: ErrImagePull: {cause}");
        self.waiting = Some(Waiting { reason: "ImagePullBackOff", message });
    }

    fn on_started(&mut self, attempt: u32, at: Timestamp, cx: &mut Context<'_>) {
        let name = &self.plan.name;
        cx.events.normal(&self.plan, "Created", format!("Created container: {name}"));
        cx.events.normal(&self.plan, "Started", format!("Started container {name}"));
        self.attempt = attempt;
        self.started_at = Some(at);
        self.waiting = None;
        self.state = State::Running { since: cx.now.elapsed };
        self.again = Again::ByPolicy;
        self.hook_error = None;
        self.probes = Probes::begin(&self.plan.probes, cx.now.elapsed);
        if self.plan.post_start && cx.going {
            self.run_post_start(cx);
        }
    }

    /// Has the hook after the start run. It may run a second time when nobody knows of the first.
    pub(crate) fn run_post_start(&mut self, cx: &mut Context<'_>) {
        self.hooking = true;
        let container = self.plan.name.clone();
        cx.act(Action::RunHook { container, attempt: self.attempt, hook: Hook::PostStart });
    }

    fn on_start_failed(&mut self, failure: StartFailure, message: String, cx: &mut Context<'_>) {
        cx.events.warning(&self.plan, "Failed", format!("Error: {message}"));
        let reason = match failure {
            StartFailure::Config => CONFIG_ERROR,
            StartFailure::Create => "CreateContainerError",
            StartFailure::Run => {
                self.attempt = self.next_attempt();
                let at = cx.now.wall;
                let exit = Exit {
                    code: CODE_START_ERROR,
                    signal: None,
                    oom: false,
                    started_at: Some(at),
                    finished_at: at,
                    message: Some(message),
                };
                self.on_exit(exit, Some("StartError"), cx);
                return;
            }
        };
        // Nothing ran, so the restart policy has no say; but nothing should be hammered either.
        if cx.going {
            let delay = self.crash.after_run(Duration::ZERO);
            self.state = State::Held { until: cx.now.elapsed + delay };
        } else {
            self.state = State::Finished;
        }
        self.waiting = Some(Waiting { reason, message });
    }
}

/// The end of a container that nobody saw end.
pub(crate) fn lost(started_at: Option<Timestamp>, at: Timestamp) -> Exit {
    Exit {
        code: CODE_UNKNOWN,
        signal: None,
        oom: false,
        started_at,
        finished_at: at,
        message: Some(
            "The container could not be located: its sandbox ended with the node or with its keeper"
                .to_owned(),
        ),
    }
}

fn pulled(image: &str, took: Duration, size: u64) -> String {
    let took = format!("{:.3}s", took.as_secs_f64());
    format!(
        "Successfully pulled image \"{image}\" in {took} ({took} including waiting). \
         Image size: {size} bytes."
    )
}
