//! A pod's `/etc/resolv.conf`: its DNS policy and configuration over what the node and the cluster have, within the
//! kubelet's limits and in its words.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use toono_wire::join::ClusterDns;

use crate::dns::resolvers::ResolvConf;

/// How many name servers a pod has at most: what resolvers in containers read (resolv.conf(5), MAXNS).
const MOST_NAMESERVERS: usize = 3;
/// How many domains it searches, and how long their line may be (Kubernetes' `MaxDNSSearchPaths` and
/// `MaxDNSSearchListChars`).
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCH_LINE: usize = 2_048;
/// Longest domain.
const LONGEST_DOMAIN: usize = 253;
/// What pods that ask the cluster's DNS have: names with fewer dots are searched for first.
const CLUSTER_OPTIONS: &str = "ndots:5";

/// The file, and what is to be said about it as events: reason and message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) text: String,
    pub(crate) warnings: Vec<(&'static str, String)>,
}

/// Whom a pod asks, before its own configuration.
enum Base {
    Cluster,
    Node,
    Nobody,
}

/// The resolver of a pod.
pub(crate) fn of_pod(pod: &Pod, node: ResolvConf, cluster: &ClusterDns) -> Resolver {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let base = match policy {
        "None" => Base::Nobody,
        "Default" => Base::Node,
        "ClusterFirst" if host_network => Base::Node,
        _ => Base::Cluster,
    };
    let mut warnings = Vec::new();
    let mut conf = match base {
        Base::Nobody => ResolvConf::default(),
        Base::Node => node,
        Base::Cluster if cluster.addresses.is_empty() => {
            warnings.push(("MissingClusterDNS", no_cluster_dns(pod)));
            node
        }
        Base::Cluster => of_cluster(pod, node, cluster),
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        add(&mut conf, own);
    }
    warnings.extend(limit_nameservers(&mut conf.nameservers).map(|it| ("DNSConfigForming", it)));
    warnings.extend(limit_searches(&mut conf.searches).map(|it| ("DNSConfigForming", it)));
    Resolver { text: text(&conf), warnings }
}

fn of_cluster(pod: &Pod, node: ResolvConf, cluster: &ClusterDns) -> ResolvConf {
    let domain = &cluster.domain;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    ResolvConf {
        nameservers: cluster.addresses.iter().map(ToString::to_string).collect(),
        searches: distinct(own.into_iter().chain(node.searches)),
        options: vec![CLUSTER_OPTIONS.to_owned()],
    }
}

/// Adds what the pod configures. An option of the same name is replaced.
fn add(conf: &mut ResolvConf, own: &PodDNSConfig) {
    let more = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
        *list = distinct(list.drain(..).chain(more.iter().flatten().cloned()));
    };
    more(&mut conf.nameservers, &own.nameservers);
    more(&mut conf.searches, &own.searches);
    for option in own.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let value = option.value.as_deref().filter(|value| !value.is_empty());
        let text = value.map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
        let is_it = |known: &String| known.split(':').next() == Some(name);
        match conf.options.iter_mut().find(|known| is_it(known)) {
            Some(known) => *known = text,
            None => conf.options.push(text),
        }
    }
}

fn limit_nameservers(list: &mut Vec<String>) -> Option<String> {
    if list.len() <= MOST_NAMESERVERS {
        return None;
    }
    list.truncate(MOST_NAMESERVERS);
    Some(format!(
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
        list.join(" ")
    ))
}

fn limit_searches(list: &mut Vec<String>) -> Option<String> {
    let before = list.len();
    list.truncate(MOST_SEARCHES);
    list.retain(|domain| domain.len() <= LONGEST_DOMAIN);
    while list.join(" ").len() > LONGEST_SEARCH_LINE {
        list.pop();
    }
    (list.len() < before).then(|| {
        format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            list.join(" ")
        )
    })
}

fn no_cluster_dns(pod: &Pod) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    let (name, namespace) = (or_none(&pod.metadata.name), or_none(&pod.metadata.namespace));
    let uid = or_none(&pod.metadata.uid);
    format!(
        "pod: \"{name}_{namespace}({uid})\". kubelet does not have ClusterDNS IP configured and cannot create Pod \
         using \"ClusterFirst\" policy. Falling back to \"Default\" policy."
    )
}

/// The lines in the order in which container runtimes write them.
fn text(conf: &ResolvConf) -> String {
    let mut text = String::new();
    if !conf.searches.is_empty() {
        text.push_str(&format!("search {}\n", conf.searches.join(" ")));
    }
    for server in &conf.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !conf.options.is_empty() {
        text.push_str(&format!("options {}\n", conf.options.join(" ")));
    }
    text
}

fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut list = Vec::new();
    for item in all {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolver(spec: Value, dns: &[[u8; 4]]) -> Resolver {
        let pod =
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let node = "nameserver 192.0.2.53\nsearch lan corp\noptions ndots:1 timeout:1\n";
        let addresses = dns.iter().map(|it| (*it).into()).collect();
        let cluster = ClusterDns { domain: "cluster.local".into(), addresses };
        of_pod(&pod, ResolvConf::parse(node), &cluster)
    }

    const DNS: [[u8; 4]; 1] = [[10, 96, 0, 10]];
    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local lan corp\n\
        nameserver 10.96.0.10\noptions ndots:5\n";
    const NODE: &str = "search lan corp\nnameserver 192.0.2.53\noptions ndots:1 timeout:1\n";

    #[test]
    fn each_policy_has_its_resolvers() {
        for (spec, expected) in [
            (json!({"containers": []}), CLUSTER),
            (json!({"containers": [], "dnsPolicy": "ClusterFirst"}), CLUSTER),
            (json!({"containers": [], "dnsPolicy": "Default"}), NODE),
            (json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}), NODE),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                CLUSTER,
            ),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"]}}),
                "nameserver 192.0.2.9\n",
            ),
        ] {
            let made = resolver(spec.clone(), &DNS);
            assert_eq!((made.text.as_str(), made.warnings), (expected, vec![]), "{spec}");
        }
        let made = resolver(json!({"containers": []}), &[]);
        assert_eq!(made.text, NODE);
        assert_eq!(made.warnings, [("MissingClusterDNS", "pod: \"web_shop(u)\". kubelet does not have \
            ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \
            \"Default\" policy.".to_owned())]);
    }

    #[test]
    fn what_the_pod_configures_is_added_and_its_options_replace() {
        let made = resolver(
            json!({"containers": [], "dnsConfig": {
                "nameservers": ["192.0.2.9", "10.96.0.10"], "searches": ["lan", "x"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &DNS,
        );
        assert_eq!(
            made.text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan corp x\n\
             nameserver 10.96.0.10\nnameserver 192.0.2.9\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn limits_are_told_in_the_kubelets_words() {
        let servers: Vec<String> = (1..=5).map(|it| format!("192.0.2.{it}")).collect();
        let searches: Vec<String> = (0..40).map(|it| format!("d{it}")).collect();
        let made = resolver(
            json!({"containers": [], "dnsPolicy": "None",
                "dnsConfig": {"nameservers": servers, "searches": searches}}),
            &DNS,
        );
        let kept = searches[..32].join(" ");
        let messages: Vec<&str> = made.warnings.iter().map(|(_, it)| it.as_str()).collect();
        assert_eq!(messages, [
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
             192.0.2.1 192.0.2.2 192.0.2.3".to_owned(),
            format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line \
             is: {kept}"),
        ]);
        assert!(made.warnings.iter().all(|(reason, _)| *reason == "DNSConfigForming"));
        let long =
            vec!["x".repeat(240); 9].into_iter().enumerate().map(|(at, it)| format!("{it}{at}"));
        let mut long: Vec<String> = long.collect();
        assert!(limit_searches(&mut long).is_some());
        assert_eq!(long.len(), 8);
        assert!(limit_searches(&mut vec!["x".repeat(254)]).is_some());
    }
}
