//! Placement in the plainest way: lists of nodes and pods, everything computed anew for each pod
//! and each node. It shares with the crate only how one requirement, toleration or port is
//! compared.

use std::collections::{BTreeMap, BTreeSet};

use toono_placement::{
    Budget, Company, Effect, NodeTerm, NodeView, PodKey, PodTerm, PodView, SpreadConstraint,
};

/// The truth, as lists.
#[derive(Default)]
pub(crate) struct Naive {
    pub(crate) nodes: BTreeMap<String, NodeView>,
    /// Pods with their nodes.
    pub(crate) pods: BTreeMap<PodKey, (PodView, String)>,
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// How large each image is, as the node said that had it first, and the nodes that have it.
    images: BTreeMap<String, (i64, BTreeSet<String>)>,
    /// The order of nodes among equals: places are given again when nothing speaks of a node.
    places: Vec<Option<String>>,
    vacant: Vec<usize>,
}

/// How much it hurts to free a node.
type Pain = (usize, i32, i64, usize, std::cmp::Reverse<i64>);

/// The defaults for pods that have a controller and name no constraints.
const DEFAULTS: [(&str, i32); 3] = [
    ("kubernetes.io/hostname", 3),
    ("topology.kubernetes.io/zone", 5),
    ("apps.openyurt.io/nodepool", 5),
];

impl Naive {
    pub(crate) fn set_node(&mut self, view: &NodeView) {
        self.speak_of(&view.name);
        self.forget_images(&view.name);
        for image in &*view.images {
            let new = (image.size_bytes, BTreeSet::new());
            let (_, nodes) = self.images.entry(image.name.to_string()).or_insert(new);
            nodes.insert(view.name.to_string());
        }
        self.nodes.insert(view.name.to_string(), view.clone());
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.forget_images(name);
        self.nodes.remove(name);
        self.forget_if_unused(name);
    }

    pub(crate) fn assume(&mut self, pod: &PodView, node: &str) {
        self.remove_pod(pod);
        self.speak_of(node);
        self.pods.insert(pod.key.clone(), (pod.clone(), node.to_owned()));
    }

    pub(crate) fn remove_pod(&mut self, pod: &PodView) {
        if let Some((_, node)) = self.pods.remove(&pod.key) {
            self.forget_if_unused(&node);
        }
    }

    fn forget_images(&mut self, node: &str) {
        self.images.retain(|_, (_, nodes)| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }

    fn speak_of(&mut self, name: &str) {
        if self.place(name).is_some() {
            return;
        }
        match self.vacant.pop() {
            Some(place) => self.places[place] = Some(name.to_owned()),
            None => self.places.push(Some(name.to_owned())),
        }
    }

    fn forget_if_unused(&mut self, name: &str) {
        let used = self.nodes.contains_key(name) || self.pods.values().any(|(_, on)| on == name);
        if let (false, Some(place)) = (used, self.place(name)) {
            self.places[place] = None;
            self.vacant.push(place);
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.iter().position(|known| known.as_deref() == Some(name))
    }

    fn on<'a>(&'a self, node: &'a NodeView) -> impl Iterator<Item = &'a PodView> {
        self.pods.values().filter(|(_, on)| **on == *node.name).map(|(pod, _)| pod)
    }

    /// The node, or the sentence that says why there is none.
    pub(crate) fn decide(&self, pod: &PodView) -> Result<String, String> {
        let prefiltered = only_nodes(pod);
        let mut tally: BTreeMap<String, usize> = BTreeMap::new();
        let mut feasible = Vec::new();
        for node in self.nodes.values() {
            let outside = prefiltered.as_ref().is_some_and(|names| !names.contains(&*node.name));
            let reasons = match outside && pod.node_name.is_none() {
                true => vec!["node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned()],
                false => self.refusals(pod, node),
            };
            if reasons.is_empty() {
                feasible.push(node);
            }
            for reason in reasons {
                *tally.entry(reason).or_default() += 1;
            }
        }
        match self.best(pod, &feasible) {
            Some(node) => Ok(node.name.to_string()),
            None if self.nodes.is_empty() => Err("no nodes available to schedule pods".to_owned()),
            None => {
                let mut parts: Vec<_> =
                    tally.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                parts.sort();
                Err(format!("0/{} nodes are available: {}.", self.nodes.len(), parts.join(", ")))
            }
        }
    }

    /// The node that is freed for a pod that fits nowhere, and the pods that have to go.
    pub(crate) fn preempt(
        &mut self,
        pod: &PodView,
        budgets: &[Budget],
    ) -> Option<(String, Vec<PodKey>)> {
        if pod.never_preempts {
            return None;
        }
        let mut nodes: Vec<_> = self.nodes.values().cloned().collect();
        nodes.sort_by_key(|node| self.place(&node.name));
        let mut best: Option<(Pain, String, Vec<PodKey>)> = None;
        for node in nodes {
            let Some((pain, victims)) = self.victims(pod, &node, budgets) else { continue };
            if best.as_ref().is_none_or(|(least, ..)| pain < *least) {
                best = Some((pain, node.name.to_string(), victims));
            }
        }
        best.map(|(_, node, victims)| (node, victims))
    }

    fn victims(
        &mut self,
        pod: &PodView,
        node: &NodeView,
        budgets: &[Budget],
    ) -> Option<(Pain, Vec<PodKey>)> {
        const HOPELESS: [&str; 6] = [
            "node(s) were unschedulable",
            "node(s) didn't match the requested node name",
            "node(s) had untolerated taint",
            "node(s) didn't match Pod's node affinity/selector",
            "node(s) didn't match pod topology spread constraints (missing required label)",
            "node(s) didn't match pod affinity rules",
        ];
        let why = self.refusals(pod, node);
        if HOPELESS.iter().any(|one| why[0].starts_with(one)) {
            return None;
        }
        let mut lower: Vec<_> =
            self.on(node).filter(|other| other.priority < pod.priority).cloned().collect();
        if lower.is_empty() {
            return None;
        }
        lower.sort_by_key(|one| (std::cmp::Reverse(one.priority), one.created, one.key.clone()));
        let before = self.pods.clone();
        for other in &lower {
            self.pods.remove(&other.key);
        }
        let fits = self.refusals(pod, node).is_empty();
        let mut left: Vec<_> = budgets.iter().map(|budget| budget.allowed).collect();
        let mut violating = Vec::new();
        for other in &lower {
            let mut violates = false;
            for (budget, left) in budgets.iter().zip(&mut left) {
                if budget.namespace == other.key.namespace
                    && budget.selector.iter().all(|one| one.matches(&other.labels))
                {
                    *left -= 1;
                    violates |= *left < 0;
                }
            }
            violating.push(violates);
        }
        let mut victims: Vec<PodView> = Vec::new();
        let mut violations = 0;
        for round in [true, false] {
            for (other, violates) in lower.iter().zip(&violating) {
                if *violates != round {
                    continue;
                }
                self.pods.insert(other.key.clone(), (other.clone(), node.name.to_string()));
                if !self.refusals(pod, node).is_empty() {
                    self.pods.remove(&other.key);
                    victims.push(other.clone());
                    violations += usize::from(round);
                }
            }
        }
        self.pods = before;
        victims.sort_by_key(|one| (std::cmp::Reverse(one.priority), one.created, one.key.clone()));
        let highest = victims.first().map_or(i32::MIN, |one| one.priority);
        let oldest = victims.first().map_or(i64::MAX, |one| one.created);
        let sum = victims.iter().map(|one| i64::from(one.priority) + (1 << 31)).sum();
        let pain = (violations, highest, sum, victims.len(), std::cmp::Reverse(oldest));
        fits.then(|| (pain, victims.into_iter().map(|one| one.key).collect()))
    }

    fn refusals(&self, pod: &PodView, node: &NodeView) -> Vec<String> {
        let one = |reason: &str| vec![reason.to_owned()];
        let cordon = toono_placement::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: "".into(),
            effect: Effect::NoSchedule,
        };
        if node.unschedulable && !pod.tolerations.iter().any(|one| one.tolerates(&cordon)) {
            return one("node(s) were unschedulable");
        }
        if pod.node_name.as_ref().is_some_and(|name| *name != node.name) {
            return one("node(s) didn't match the requested node name");
        }
        if let Some(taint) = node.taints.iter().find(|taint| {
            taint.effect != Effect::PreferNoSchedule
                && !pod.tolerations.iter().any(|one| one.tolerates(taint))
        }) {
            return vec![format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key, taint.value
            )];
        }
        if !selected(pod, node) {
            return one("node(s) didn't match Pod's node affinity/selector");
        }
        let mut taken = self.on(node).flat_map(|pod| &pod.host_ports);
        if taken.any(|held| pod.host_ports.iter().any(|port| port.conflicts(held))) {
            return one("node(s) didn't have free ports for the requested pod ports");
        }
        let reasons = self.shortages(pod, node);
        if !reasons.is_empty() {
            return reasons;
        }
        let refusal = self.spread_refusal(pod, node).or_else(|| self.company_refusal(pod, node));
        refusal.into_iter().collect()
    }

    /// All pods on nodes that are known.
    fn all(&self) -> impl Iterator<Item = (&PodView, &NodeView)> {
        self.pods.values().filter_map(|(pod, on)| Some((pod, self.nodes.get(on)?)))
    }

    fn is_meant(&self, term: &PodTerm, pod: &PodView) -> bool {
        let none = BTreeMap::new();
        let labels = self.namespaces.get(&*pod.key.namespace).unwrap_or(&none);
        term.is_about(&pod.key.namespace, labels) && term.selects(&pod.labels)
    }

    fn company_refusal(&self, pod: &PodView, node: &NodeView) -> Option<String> {
        let nothing = Company::default();
        let company = pod.company.as_deref().unwrap_or(&nothing);
        let together = |term: &PodTerm, other: &NodeView| {
            let key = &*term.topology_key;
            node.labels.contains_key(key) && node.labels.get(key) == other.labels.get(key)
        };
        let near = |other: &PodView| company.near.iter().all(|term| self.is_meant(term, other));
        let met = |term: &PodTerm| self.all().any(|(other, on)| near(other) && together(term, on));
        let labelled = |term: &PodTerm| node.labels.contains_key(&*term.topology_key);
        let anybody = self.all().any(|(other, on)| {
            near(other)
                && company.near.iter().any(|term| on.labels.contains_key(&*term.topology_key))
        });
        let first = !anybody && near(pod);
        if !company.near.iter().all(|term| labelled(term) && (first || met(term))) {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
        for term in &company.apart {
            if self.all().any(|(other, on)| self.is_meant(term, other) && together(term, on)) {
                return Some("node(s) didn't match pod anti-affinity rules".to_owned());
            }
        }
        let shunned = self.all().any(|(other, on)| {
            let terms = other.company.iter().flat_map(|company| &company.apart);
            terms.into_iter().any(|term| self.is_meant(term, pod) && together(term, on))
        });
        shunned.then(|| "node(s) didn't satisfy existing pods anti-affinity rules".to_owned())
    }

    fn likes(&self, pod: &PodView, node: &NodeView) -> i64 {
        let mut sum = 0;
        let together = |term: &PodTerm, other: &NodeView| {
            let key = &*term.topology_key;
            node.labels.contains_key(key) && node.labels.get(key) == other.labels.get(key)
        };
        for (other, on) in self.all() {
            for (weight, term) in pod.company.iter().flat_map(|company| &company.liking) {
                if self.is_meant(term, other) && together(term, on) {
                    sum += weight;
                }
            }
            let Some(company) = &other.company else { continue };
            let hard = company.near.iter().map(|term| (1, term));
            for (weight, term) in
                company.liking.iter().map(|(weight, term)| (*weight, term)).chain(hard)
            {
                if self.is_meant(term, pod) && together(term, on) {
                    sum += weight;
                }
            }
        }
        sum
    }

    fn shortages(&self, pod: &PodView, node: &NodeView) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.on(node).count() as i64 + 1 > node.offer.pods {
            reasons.push("Too many pods".to_owned());
        }
        let (asked, offered) = (&pod.requests, &node.offer.resources);
        let used = |of: fn(&PodView) -> i64| self.on(node).map(of).sum::<i64>();
        let mut check = |name: &str, asked: i64, used: i64, offered: i64| {
            if asked > 0 && used + asked > offered {
                reasons.push(format!("Insufficient {name}"));
            }
        };
        check("cpu", asked.cpu_milli, used(|pod| pod.requests.cpu_milli), offered.cpu_milli);
        let memory = used(|pod| pod.requests.memory_bytes);
        check("memory", asked.memory_bytes, memory, offered.memory_bytes);
        let storage = used(|pod| pod.requests.ephemeral_bytes);
        check("ephemeral-storage", asked.ephemeral_bytes, storage, offered.ephemeral_bytes);
        for (name, asked) in &asked.extended {
            let used = self.on(node).map(|pod| pod.requests.extended(name)).sum();
            check(name, *asked, used, offered.extended(name));
        }
        reasons
    }

    /// The pods that a constraint counts on a node.
    fn kin(&self, pod: &PodView, constraint: &SpreadConstraint, node: &NodeView) -> i64 {
        let kin = |other: &&PodView| {
            !other.terminating
                && other.key.namespace == pod.key.namespace
                && constraint.selects(&other.labels)
        };
        self.on(node).filter(kin).count() as i64
    }

    fn spread_refusal(&self, pod: &PodView, node: &NodeView) -> Option<String> {
        let required: Vec<_> = pod.spread.iter().filter(|one| one.required).collect();
        for constraint in &required {
            let Some(domain) = node.labels.get(&*constraint.topology_key) else {
                return Some(
                    "node(s) didn't match pod topology spread constraints (missing required label)"
                        .to_owned(),
                );
            };
            let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
            for other in self.nodes.values() {
                let complete =
                    required.iter().all(|one| other.labels.contains_key(&*one.topology_key));
                if complete && looks_at(constraint, pod, other) {
                    *domains.entry(&other.labels[&*constraint.topology_key]).or_default() +=
                        self.kin(pod, constraint, other);
                }
            }
            let few = constraint.min_domains.is_some_and(|least| (domains.len() as i32) < least);
            let least = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
            let there = domains.get(domain.as_str()).copied().unwrap_or(0);
            let itself = i64::from(constraint.selects(&pod.labels));
            if there + itself - least > i64::from(constraint.max_skew) {
                return Some("node(s) didn't match pod topology spread constraints".to_owned());
            }
        }
        None
    }

    fn best<'a>(&self, pod: &PodView, feasible: &[&'a NodeView]) -> Option<&'a NodeView> {
        let unwelcome: Vec<_> = feasible.iter().map(|node| unwelcome(pod, node)).collect();
        let preferred: Vec<_> = feasible.iter().map(|node| preference(pod, node)).collect();
        let crowds: Vec<_> = feasible.iter().map(|node| self.crowd(pod, node)).collect();
        let most = |all: &[i64]| all.iter().copied().max().unwrap_or(0);
        let (unwelcome_most, preferred_most) = (most(&unwelcome), most(&preferred));
        let known = || crowds.iter().flatten().copied();
        let (roomiest, fullest) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let likes: Vec<_> = feasible.iter().map(|node| self.likes(pod, node)).collect();
        let (least, most) = (likes.iter().min().copied(), likes.iter().max().copied());
        let (least, range) = (least.unwrap_or(0), most.unwrap_or(0) - least.unwrap_or(0));
        let total = |at: usize| {
            let taints = match unwelcome_most {
                0 => 100,
                most => 100 * (most - unwelcome[at]) / most,
            };
            let affinity = match preferred_most {
                0 => 0,
                most => 100 * preferred[at] / most,
            };
            let spread = match crowds[at] {
                None => 0,
                Some(_) if fullest == 0 => 100,
                Some(crowd) => 100 * (fullest + roomiest - crowd) / fullest,
            };
            let company = match range {
                0 => 0,
                range => (100.0 * ((likes[at] - least) as f64 / range as f64)) as i64,
            };
            let node = feasible[at];
            2 * company
                + 3 * taints
                + 2 * affinity
                + 2 * spread
                + self.locality(pod, node)
                + self.spare(pod, node)
                + self.balance(pod, node)
        };
        let best = (0..feasible.len()).max_by_key(|at| {
            let node = feasible[*at];
            let order = (self.on(node).count(), self.place(&node.name));
            (total(*at), std::cmp::Reverse(order))
        })?;
        Some(feasible[best])
    }

    /// How crowded a node's domains are; `None` where that earns no points.
    fn crowd(&self, pod: &PodView, node: &NodeView) -> Option<i64> {
        let weight = |key: &str| {
            let values: BTreeSet<_> =
                self.nodes.values().filter_map(|other| other.labels.get(key)).collect();
            let own = self
                .nodes
                .values()
                .any(|other| other.labels.get(key).is_some_and(|value| **value == *other.name));
            let size = if own { self.nodes.len() } else { values.len() };
            (size as f64 + 2.0).ln()
        };
        let mut sum = 0.0;
        if pod.spread.is_empty() {
            let owner = pod.owner.as_ref()?;
            for (key, skew) in DEFAULTS {
                let Some(domain) = node.labels.get(key) else { continue };
                let inside = |other: &&NodeView| {
                    other.labels.get(key) == Some(domain) && selected(pod, other)
                };
                let kin =
                    |other: &&PodView| !other.terminating && other.owner.as_ref() == Some(owner);
                let count: usize = self
                    .nodes
                    .values()
                    .filter(inside)
                    .map(|other| self.on(other).filter(kin).count())
                    .sum();
                sum += count as f64 * weight(key) + f64::from(skew - 1);
            }
            return Some(sum.round() as i64);
        }
        let preferred: Vec<_> = pod.spread.iter().filter(|one| !one.required).collect();
        let complete = |node: &NodeView| {
            preferred.iter().all(|one| node.labels.contains_key(&*one.topology_key))
        };
        if preferred.is_empty() || !complete(node) {
            return None;
        }
        for constraint in &preferred {
            let key = &*constraint.topology_key;
            let inside = self.nodes.values().filter(|other| {
                other.labels.get(key) == node.labels.get(key)
                    && complete(other)
                    && looks_at(constraint, pod, other)
            });
            let count: i64 = inside.map(|other| self.kin(pod, constraint, other)).sum();
            sum += count as f64 * weight(key) + f64::from(constraint.max_skew - 1);
        }
        Some(sum.round() as i64)
    }

    /// What the node's images are worth to the pod.
    fn locality(&self, pod: &PodView, node: &NodeView) -> i64 {
        const MIB: i64 = 1024 * 1024;
        let mut sum = 0;
        for image in &pod.images {
            if node.images.iter().any(|there| there.name == *image) {
                let (size, nodes) = &self.images[&**image];
                let share = nodes.len() as f64 / self.nodes.len() as f64;
                sum += (*size as f64 * share) as i64;
            }
        }
        let most = 1000 * MIB * pod.images.len() as i64;
        100 * (sum.clamp(23 * MIB, most) - 23 * MIB) / (most - 23 * MIB)
    }

    fn spare(&self, pod: &PodView, node: &NodeView) -> i64 {
        let offered = &node.offer.resources;
        let free = |of: fn(&PodView) -> i64, offered: i64| {
            let taken = self.on(node).map(of).sum::<i64>() + of(pod);
            if offered <= 0 || taken > offered { 0 } else { (offered - taken) * 100 / offered }
        };
        let cpu = free(|pod| pod.weight.cpu_milli, offered.cpu_milli);
        let memory = free(|pod| pod.weight.memory_bytes, offered.memory_bytes);
        let kinds = i64::from(offered.cpu_milli > 0) + i64::from(offered.memory_bytes > 0);
        if kinds == 0 { 0 } else { (cpu + memory) / kinds }
    }

    fn balance(&self, pod: &PodView, node: &NodeView) -> i64 {
        if pod.requests.cpu_milli == 0 && pod.requests.memory_bytes == 0 {
            return 0;
        }
        let offered = &node.offer.resources;
        let share = |of: fn(&PodView) -> i64, offered: i64| {
            let used = self.on(node).map(of).sum::<i64>() + of(pod);
            (offered > 0).then(|| (used as f64 / offered as f64).min(1.0))
        };
        let cpu = share(|pod| pod.requests.cpu_milli, offered.cpu_milli);
        let memory = share(|pod| pod.requests.memory_bytes, offered.memory_bytes);
        match (cpu, memory) {
            (Some(cpu), Some(memory)) => ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64,
            _ => 100,
        }
    }
}

fn matches(term: &NodeTerm, node: &NodeView) -> bool {
    (!term.expressions.is_empty() || !term.fields.is_empty())
        && term.expressions.iter().all(|one| one.matches(&node.labels))
        && term
            .fields
            .iter()
            .all(|one| &*one.key == "metadata.name" && one.accepts(Some(&node.name)))
}

fn selected(pod: &PodView, node: &NodeView) -> bool {
    pod.node_selector.iter().all(|one| one.matches(&node.labels))
        && pod
            .required_affinity
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| matches(term, node)))
}

/// Whether a spread constraint takes a node into account.
fn looks_at(constraint: &SpreadConstraint, pod: &PodView, node: &NodeView) -> bool {
    let kept_away = node.taints.iter().any(|taint| {
        taint.effect != Effect::PreferNoSchedule
            && !pod.tolerations.iter().any(|one| one.tolerates(taint))
    });
    (!constraint.honor_affinity || selected(pod, node)) && !(constraint.honor_taints && kept_away)
}

/// The nodes that each term of a required affinity names by field.
fn only_nodes(pod: &PodView) -> Option<BTreeSet<&str>> {
    let terms = pod.required_affinity.as_ref().filter(|terms| !terms.is_empty())?;
    let mut names = BTreeSet::new();
    for term in terms {
        let field = term.fields.iter().find(|field| {
            &*field.key == "metadata.name" && field.operator == toono_placement::Operator::In
        })?;
        names.extend(field.values.iter().map(|name| &**name));
    }
    Some(names)
}

fn unwelcome(pod: &PodView, node: &NodeView) -> i64 {
    let unwelcome = node.taints.iter().filter(|taint| {
        taint.effect == Effect::PreferNoSchedule
            && !pod.tolerations.iter().any(|one| one.tolerates(taint))
    });
    unwelcome.count() as i64
}

fn preference(pod: &PodView, node: &NodeView) -> i64 {
    let met = pod.preferred_affinity.iter().filter(|(_, term)| matches(term, node));
    met.map(|(weight, _)| weight).sum()
}
