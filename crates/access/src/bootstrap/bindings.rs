//! Who holds the default cluster roles.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Subject};
use toono_api::user::{
    GROUP_AUTHENTICATED, GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_NODES, GROUP_UNAUTHENTICATED,
};
use toono_wire::peer::GROUP_SERVERS;

use super::{
    cluster_roles::{JOIN_ROLE, LINK_ROLE, PEER_ROLE},
    group, metadata, role_ref, service_account, user,
};

/// The default cluster role bindings. `system:node` is bound to nobody: the node authorizer serves nodes.
#[must_use]
pub fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    let scheduler = || user("system:kube-scheduler");
    vec![
        binding("cluster-admin", vec![group(GROUP_MASTERS)]),
        binding("system:monitoring", vec![group("system:monitoring")]),
        binding("system:discovery", vec![group(GROUP_AUTHENTICATED)]),
        binding("system:basic-user", vec![group(GROUP_AUTHENTICATED)]),
        binding(
            "system:public-info-viewer",
            vec![group(GROUP_AUTHENTICATED), group(GROUP_UNAUTHENTICATED)],
        ),
        binding("system:node", Vec::new()),
        binding("system:node-proxier", vec![user("system:kube-proxy")]),
        binding("system:kube-controller-manager", vec![user("system:kube-controller-manager")]),
        binding("system:kube-dns", vec![service_account("kube-dns")]),
        binding("system:kube-scheduler", vec![scheduler()]),
        binding("system:volume-scheduler", vec![scheduler()]),
        binding("system:service-account-issuer-discovery", vec![group("system:serviceaccounts")]),
        binding(JOIN_ROLE, vec![group(GROUP_BOOTSTRAPPERS)]),
        binding(LINK_ROLE, vec![group(GROUP_NODES)]),
        binding(PEER_ROLE, vec![group(GROUP_SERVERS)]),
    ]
}

/// Each is named as its role.
fn binding(role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(None, role),
        role_ref: role_ref("ClusterRole", role),
        subjects: (!subjects.is_empty()).then_some(subjects),
    }
}
