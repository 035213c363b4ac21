//! Which nodes can take a pod at all: by their site, and by their load. What looks at several
//! nodes together is in `topology`.

use std::collections::HashSet;

use crate::{
    cell::{Cell, Load},
    cluster::{Cluster, Seen},
    intern::{Interner, Symbol},
    node::{NodeIndex, Offer},
    pod::{NodeTerm, PodView},
    reasons::Reason,
    requirement::{Compiled, Operator, Requirement},
    site::{Site, SiteId},
    taints::{Effect, Taint},
};

/// With so few sites to choose from, looking at each is cheaper than a ranking of its own for each
/// selector, of which there may be one a pool.
const MAX_SITES_WITHOUT_RANKING: usize = 64;

/// A pod's node selector and node affinity, with labels resolved once.
pub(crate) struct Affinity<'a> {
    selector: Vec<Compiled<'a>>,
    required: Option<Vec<Term<'a>>>,
    preferred: Vec<(i64, Term<'a>)>,
}

/// A node affinity term with labels resolved once.
struct Term<'a> {
    expressions: Vec<Compiled<'a>>,
    source: &'a NodeTerm,
}

impl<'a> Term<'a> {
    fn new(source: &'a NodeTerm, symbols: &Interner) -> Self {
        let compile = |requirement| Compiled::new(requirement, symbols);
        Self { expressions: source.expressions.iter().map(compile).collect(), source }
    }

    fn matches(&self, site: &Site, name: Symbol, symbols: &Interner) -> bool {
        let fields = &self.source.fields;
        if self.expressions.is_empty() && fields.is_empty() {
            return false;
        }
        let named = |field: &Requirement| is_name(field) && field.accepts(Some(symbols.text(name)));
        self.expressions.iter().all(|expression| on(expression, site, name, symbols))
            && fields.iter().all(named)
    }
}

impl<'a> Affinity<'a> {
    pub(crate) fn new(pod: &'a PodView, symbols: &Interner) -> Self {
        let term = |term| Term::new(term, symbols);
        Self {
            selector: pod.node_selector.iter().map(|label| Compiled::new(label, symbols)).collect(),
            required: pod.required_affinity.as_ref().map(|terms| terms.iter().map(term).collect()),
            preferred: pod
                .preferred_affinity
                .iter()
                .map(|(weight, preference)| (*weight, term(preference)))
                .collect(),
        }
    }

    /// Whether the pod may go to the site's node of this name.
    pub(crate) fn matches(&self, site: &Site, name: Symbol, symbols: &Interner) -> bool {
        self.selector.iter().all(|label| on(label, site, name, symbols))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(site, name, symbols)))
    }

    /// The sum of the weights of the preferences that the node meets.
    pub(crate) fn preference(&self, site: &Site, name: Symbol, symbols: &Interner) -> i64 {
        let met = self.preferred.iter().filter(|(_, term)| term.matches(site, name, symbols));
        met.map(|(weight, _)| weight).sum()
    }
}

/// Whether the site's node of this name meets a requirement on labels.
fn on(requirement: &Compiled<'_>, site: &Site, name: Symbol, symbols: &Interner) -> bool {
    requirement.accepts(site.label(requirement.key, name), symbols)
}

fn is_name(field: &Requirement) -> bool {
    &*field.key == "metadata.name"
}

/// Which nodes a pod's terms tell apart by their names; all others of a site are alike to it.
pub(crate) enum Named {
    /// These.
    Some(Vec<NodeIndex>),
    /// Each may differ: names are compared as numbers.
    All,
}

/// The nodes that the pod's selector and affinities name: by the field `metadata.name`, or by a
/// label whose value is each node's own name.
pub(crate) fn named(pod: &PodView, cluster: &Cluster) -> Named {
    let terms = pod.required_affinity.iter().flatten();
    let terms = terms.chain(pod.preferred_affinity.iter().map(|(_, term)| term));
    let labels = terms.clone().flat_map(|term| &term.expressions).chain(&pod.node_selector);
    let own_name =
        |label: &&Requirement| cluster.sites.is_own_name(cluster.symbols.lookup(&label.key));
    let fields = terms.flat_map(|term| &term.fields).filter(|field| is_name(field));
    let mut named = Vec::new();
    for requirement in labels.filter(own_name).chain(fields) {
        match requirement.operator {
            Operator::In | Operator::NotIn => {
                named.extend(requirement.values.iter().filter_map(|name| cluster.node_named(name)));
            }
            Operator::Gt | Operator::Lt => return Named::All,
            Operator::Exists | Operator::DoesNotExist | Operator::Unknown => {}
        }
    }
    named.sort_unstable();
    named.dedup();
    Named::Some(named)
}

/// The only nodes that a pod's affinity can mean, when each of its terms names them: so it is
/// with the pods of a DaemonSet, which then need no look at any other node.
pub(crate) fn only_nodes(pod: &PodView, cluster: &Cluster) -> Option<Vec<NodeIndex>> {
    let terms = pod.required_affinity.as_ref().filter(|terms| !terms.is_empty())?;
    let mut nodes = Vec::new();
    for term in terms {
        let mut fields = term.fields.iter();
        let field = fields.find(|field| is_name(field) && field.operator == Operator::In)?;
        nodes.extend(field.values.iter().filter_map(|name| cluster.node_named(name)));
    }
    nodes.sort_unstable();
    nodes.dedup();
    Some(nodes)
}

/// All the sites that a pod may go to, if labels tell that they are few. Nodes that it names are not
/// among them.
pub(crate) fn few_sites(pod: &PodView, cluster: &Cluster) -> Option<Vec<SiteId>> {
    let of_label = |label: &Requirement| -> Option<HashSet<SiteId>> {
        (label.operator == Operator::In).then_some(())?;
        let key = cluster.symbols.lookup(&label.key);
        let values = || label.values.iter().map(|value| cluster.symbols.lookup(value));
        let count: usize = values().map(|value| cluster.sites.labelled(key, value).len()).sum();
        (count <= MAX_SITES_WITHOUT_RANKING)
            .then(|| values().flat_map(|value| cluster.sites.labelled(key, value).iter()).collect())
    };
    let of_term = |term: &NodeTerm| term.expressions.iter().find_map(of_label);
    let selected = pod.node_selector.iter().find_map(of_label);
    let sites = selected.or_else(|| {
        let terms = pod.required_affinity.as_ref()?.iter();
        let sites = terms.map(of_term).collect::<Option<Vec<_>>>()?;
        Some(sites.into_iter().flatten().collect())
    })?;
    Some(sites.into_iter().collect())
}

/// The first taint that keeps the pod away.
pub(crate) fn untolerated<'n>(pod: &PodView, site: &'n Site) -> Option<&'n Taint> {
    site.taints
        .iter()
        .filter(|taint| taint.effect != Effect::PreferNoSchedule)
        .find(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

/// Why the site's node of this name is not meant for the pod: by the first filter that refuses,
/// in Kubernetes' order of filters.
pub(crate) fn site_refusal(
    pod: &PodView,
    affinity: &Affinity<'_>,
    site: &Site,
    name: Symbol,
    symbols: &Interner,
) -> Option<Reason> {
    if site.unschedulable && !tolerates_cordon(pod) {
        return Some(Reason::Unschedulable);
    }
    if pod.node_name.as_deref().is_some_and(|asked| *asked != *symbols.text(name)) {
        return Some(Reason::NodeName);
    }
    if let Some(taint) = untolerated(pod, site) {
        let (key, value) = (taint.key.clone(), taint.value.clone());
        return Some(Reason::UntoleratedTaint { key, value });
    }
    (!affinity.matches(site, name, symbols)).then_some(Reason::NodeAffinity)
}

/// Why the node cannot take the pod, spreading apart; empty when it can.
pub(crate) fn refusals(
    pod: &PodView,
    affinity: &Affinity<'_>,
    node: &Seen<'_>,
    symbols: &Interner,
) -> Vec<Reason> {
    match site_refusal(pod, affinity, &node.place.site, node.name, symbols) {
        Some(reason) => vec![reason],
        None => shortages(pod, node.cell),
    }
}

fn tolerates_cordon(pod: &PodView) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: "".into(),
        effect: Effect::NoSchedule,
    };
    pod.tolerations.iter().any(|toleration| toleration.tolerates(&cordon))
}

/// Whether nodes with this load have room for the pod: what [`shortages`] says, without the words.
pub(crate) fn has_room(pod: &PodView, offer: &Offer, load: &Load) -> bool {
    let (asked, used, offered) = (&pod.requests, &load.used, &offer.resources);
    let fits = |asked: i64, used: i64, offered: i64| asked <= 0 || asked <= offered - used;
    load.pods < offer.pods
        && fits(asked.cpu_milli, used.cpu_milli, offered.cpu_milli)
        && fits(asked.memory_bytes, used.memory_bytes, offered.memory_bytes)
        && fits(asked.ephemeral_bytes, used.ephemeral_bytes, offered.ephemeral_bytes)
        && asked
            .extended
            .iter()
            .all(|(name, asked)| fits(*asked, used.extended(name), offered.extended(name)))
        && ports_are_free(pod, load)
}

fn ports_are_free(pod: &PodView, load: &Load) -> bool {
    !pod.host_ports.iter().any(|port| load.ports.iter().any(|held| held.conflicts(port)))
}

/// What the nodes of a cell lack for the pod; empty when they can take it.
pub(crate) fn shortages(pod: &PodView, cell: &Cell) -> Vec<Reason> {
    if !ports_are_free(pod, &cell.load) {
        return vec![Reason::HostPorts];
    }
    let mut reasons = Vec::new();
    let (load, offer) = (&cell.load, &cell.offer);
    let (used, offered) = (&load.used, &offer.resources);
    if load.pods + 1 > offer.pods {
        reasons.push(Reason::TooManyPods);
    }
    let requests = &pod.requests;
    for (name, asked, taken, there) in [
        ("cpu", requests.cpu_milli, used.cpu_milli, offered.cpu_milli),
        ("memory", requests.memory_bytes, used.memory_bytes, offered.memory_bytes),
        (
            "ephemeral-storage",
            requests.ephemeral_bytes,
            used.ephemeral_bytes,
            offered.ephemeral_bytes,
        ),
    ] {
        if asked > 0 && asked > there - taken {
            reasons.push(Reason::Insufficient(name.into()));
        }
    }
    for (name, asked) in &requests.extended {
        if *asked > 0 && *asked > offered.extended(name) - used.extended(name) {
            reasons.push(Reason::Insufficient(name.clone()));
        }
    }
    reasons
}
