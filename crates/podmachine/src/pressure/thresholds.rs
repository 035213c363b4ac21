//! What must be left of a node, as the kubelet's settings say it.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use jiff::SignedDuration;
use toono_api::Quantity;

use super::{Signal, quantity};

/// How long a condition stays after it was last seen; the kubelet's default.
const TRANSITION_PERIOD: Duration = Duration::from_secs(5 * 60);

/// By what a node judges whether it is short of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// With less than this a pod is ended at once.
    pub hard: Thresholds,
    /// With less than this a pod is ended when that lasts.
    pub soft: Soft,
    /// How long a condition of the Node stays after it was last seen: `evictionPressureTransitionPeriod`.
    pub transition: Duration,
}

/// Thresholds that may be crossed for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Soft {
    thresholds: Thresholds,
    grace: GracePeriods,
    /// A pod that is ended for them gets its own grace period, but no more than this:
    /// `evictionMaxPodGracePeriod`.
    pub pod_grace: Duration,
}

/// How long each may be crossed. Parsed as the kubelet's `--eviction-soft-grace-period`: `memory.available=1m30s`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GracePeriods(BTreeMap<Signal, Duration>);

/// The least that is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// Bytes, or a number.
    Amount(u64),
    /// Hundredths of the capacity.
    Percent(u8),
}

/// The least of each. Parsed as the kubelet's `--eviction-hard`: `memory.available<100Mi,nodefs.available<10%`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thresholds(BTreeMap<Signal, Least>);

/// A text that says no thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// Not `SIGNAL<QUANTITY`.
    #[error(
        "invalid eviction threshold {0:?}: it must be a signal, \"<\" and a quantity or a percentage"
    )]
    Syntax(String),
    /// Nothing that can be measured.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// The same twice.
    #[error("found duplicate eviction threshold for signal {0}")]
    Duplicate(&'static str),
    /// Not `SIGNAL=DURATION`.
    #[error(
        "invalid eviction grace period {0:?}: it must be a signal, \"=\" and a duration such as 1m30s"
    )]
    GracePeriod(String),
    /// A soft threshold of which nothing says how long it may be crossed.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGracePeriod(&'static str),
}

impl Default for Rules {
    fn default() -> Self {
        let (hard, soft) = (Thresholds::hard(), Soft::default());
        Self { hard, soft, transition: TRANSITION_PERIOD }
    }
}

impl Soft {
    /// Thresholds each of which has a grace period.
    ///
    /// # Errors
    /// [`ThresholdError::NoGracePeriod`] when one has none.
    pub fn new(
        thresholds: Thresholds,
        grace: GracePeriods,
        pod_grace: Duration,
    ) -> Result<Self, ThresholdError> {
        match thresholds.0.keys().find(|signal| !grace.0.contains_key(signal)) {
            Some(signal) => Err(ThresholdError::NoGracePeriod(signal.name())),
            None => Ok(Self { thresholds, grace, pod_grace }),
        }
    }

    /// The least that is to be left of each.
    #[must_use]
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// How long there may be less.
    #[must_use]
    pub fn grace(&self, signal: Signal) -> Duration {
        self.grace.0.get(&signal).copied().unwrap_or_default()
    }
}

impl GracePeriods {
    /// Each as the kubelet's configuration has it: `"memory.available": "1m30s"`.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<&'static str, String> {
        self.0.iter().map(|(signal, grace)| (signal.name(), written(*grace))).collect()
    }
}

impl Soft {
    /// How long each may be crossed.
    #[must_use]
    pub fn grace_periods(&self) -> &GracePeriods {
        &self.grace
    }
}

impl Thresholds {
    /// The kubelet's hard ones on Linux, unless others are set.
    #[must_use]
    pub fn hard() -> Self {
        Self(BTreeMap::from([
            (Signal::Memory, Least::Amount(100 << 20)),
            (Signal::Nodefs, Least::Percent(10)),
            (Signal::NodefsInodes, Least::Percent(5)),
            (Signal::Imagefs, Least::Percent(15)),
            (Signal::ImagefsInodes, Least::Percent(5)),
        ]))
    }
}

impl Thresholds {
    /// The least that is to be left of a whole; 0 where there is no threshold.
    #[must_use]
    pub fn least(&self, signal: Signal, capacity: u64) -> u64 {
        match self.0.get(&signal) {
            None => 0,
            Some(Least::Amount(amount)) => *amount,
            Some(Least::Percent(percent)) => {
                let part = u128::from(capacity) * u128::from(*percent) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

impl Thresholds {
    /// Each as the kubelet's configuration has it: `"memory.available": "100Mi"`.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<&'static str, String> {
        let text = |least: &Least| match least {
            Least::Amount(amount) => quantity(*amount),
            Least::Percent(percent) => format!("{percent}%"),
        };
        self.0.iter().map(|(signal, least)| (signal.name(), text(least))).collect()
    }
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut found = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let syntax = || ThresholdError::Syntax(part.to_owned());
            let (name, value) = part.split_once('<').ok_or_else(syntax)?;
            let signal = named(name)?;
            let least = match value.strip_suffix('%') {
                Some(percent) => {
                    let percent = percent.parse().ok().filter(|it: &u8| *it <= 100);
                    Least::Percent(percent.ok_or_else(syntax)?)
                }
                None => {
                    let amount: Quantity = value.parse().map_err(|_| syntax())?;
                    Least::Amount(u64::try_from(amount.units()).map_err(|_| syntax())?)
                }
            };
            if found.insert(signal, least).is_some() {
                return Err(ThresholdError::Duplicate(signal.name()));
            }
        }
        Ok(Self(found))
    }
}

impl FromStr for GracePeriods {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut found = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let syntax = || ThresholdError::GracePeriod(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(syntax)?;
            let signal = named(name)?;
            let grace = period(value).ok_or_else(syntax)?;
            if found.insert(signal, grace).is_some() {
                return Err(ThresholdError::Duplicate(signal.name()));
            }
        }
        Ok(Self(found))
    }
}

/// A duration as the kubelet's settings have it: `90s`, `1m30s`.
#[must_use]
pub fn period(text: &str) -> Option<Duration> {
    let parsed: SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

/// As the kubelet writes it: `1m30s`, `1h0m0s`.
#[must_use]
pub fn written(period: Duration) -> String {
    let seconds = period.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn named(name: &str) -> Result<Signal, ThresholdError> {
    let signal = Signal::ALL.into_iter().find(|it| it.name() == name);
    signal.ok_or_else(|| ThresholdError::Signal(name.to_owned()))
}
