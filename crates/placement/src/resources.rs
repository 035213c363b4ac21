//! Amounts of resources that pods ask for and nodes offer.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use toono_api::quantity::Quantity as Amount;

/// The amount that a quantity means. What does not parse counts as nothing: the API server refuses
/// it.
fn amount(quantity: &Quantity) -> Amount {
    quantity.0.parse().unwrap_or(Amount::ZERO)
}

/// A number of pods.
pub(crate) fn whole(quantity: &Quantity) -> i64 {
    amount(quantity).units()
}

/// CPU that a container without a request counts as when nodes are scored, as in Kubernetes.
const UNREQUESTED_CPU_MILLI: i64 = 100;
/// Memory that a container without a request counts as when nodes are scored.
const UNREQUESTED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// An amount of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Local ephemeral storage in bytes.
    pub ephemeral_bytes: i64,
    /// Extended resources by name, whole units, sorted by name.
    pub extended: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// Reads a resource list. Entries that do not parse count as zero: the API server refuses them.
    #[must_use]
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resources.cpu_milli = amount(quantity).millis(),
                "memory" => resources.memory_bytes = amount(quantity).units(),
                "ephemeral-storage" => resources.ephemeral_bytes = amount(quantity).units(),
                "pods" => {}
                _ => resources.extended.push((name.as_str().into(), amount(quantity).units())),
            }
        }
        resources
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.extended.retain(|(_, amount)| *amount != 0);
    }

    /// Raises each amount to at least `other`'s.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// The amount of an extended resource.
    #[must_use]
    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(known, _)| &**known == name).map_or(0, |(_, amount)| *amount)
    }

    /// True when nothing is asked for.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.cpu_milli == 0
            && self.memory_bytes == 0
            && self.ephemeral_bytes == 0
            && self.extended.iter().all(|(_, amount)| *amount == 0)
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = with(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.extended {
            match self.extended.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(at) => {
                    if let Some((_, mine)) = self.extended.get_mut(at) {
                        *mine = with(*mine, *amount);
                    }
                }
                Err(at) => self.extended.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }
}

/// What a pod's containers ask for together.
///
/// Containers add up; init containers run one after the other beside the restartable init
/// containers started before them, so the larger of both phases counts; the overhead comes on top.
pub(crate) fn pod_requests(spec: &PodSpec) -> Resources {
    total(spec, &|container| {
        container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref())
            .map(Resources::from_list)
            .unwrap_or_default()
    })
}

/// As [`pod_requests`], with a default for each container that names no CPU or memory, so that
/// pods without requests still weigh something when nodes are compared.
pub(crate) fn pod_weight(spec: &PodSpec) -> Resources {
    total(spec, &|container| {
        let requests =
            container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut amount = requests.map(Resources::from_list).unwrap_or_default();
        if requests.is_none_or(|list| !list.contains_key("cpu")) {
            amount.cpu_milli = UNREQUESTED_CPU_MILLI;
        }
        if requests.is_none_or(|list| !list.contains_key("memory")) {
            amount.memory_bytes = UNREQUESTED_MEMORY_BYTES;
        }
        amount
    })
}

fn total(spec: &PodSpec, of_container: &dyn Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    let mut beside = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut phase = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&phase);
            beside.add(&phase);
            phase = beside.clone();
        } else {
            phase.add(&beside);
        }
        starting.raise_to(&phase);
    }
    running.raise_to(&starting);
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_list(overhead));
    }
    running
}
