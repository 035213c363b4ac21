//! The default roles of `kube-system` and `kube-public`, and who holds them.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, Subject};

use super::{READ, events, metadata, named, role_ref, rule, service_account, user};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const AUTHENTICATION_READER: &str = "extension-apiserver-authentication-reader";
const BOOTSTRAP_SIGNER: &str = "system:controller:bootstrap-signer";
const TOKEN_CLEANER: &str = "system:controller:token-cleaner";
const CLOUD_PROVIDER: &str = "system:controller:cloud-provider";
const CONTROLLER_MANAGER_LOCK: &str = "system::leader-locking-kube-controller-manager";
const SCHEDULER_LOCK: &str = "system::leader-locking-kube-scheduler";

/// The default roles.
#[must_use]
pub fn roles() -> Vec<Role> {
    let authentication = ["extension-apiserver-authentication"];
    vec![
        role(
            SYSTEM,
            AUTHENTICATION_READER,
            vec![named(&[""], &["configmaps"], &authentication, &READ)],
        ),
        role(SYSTEM, BOOTSTRAP_SIGNER, vec![rule(&[""], &["secrets"], &READ)]),
        role(
            SYSTEM,
            CLOUD_PROVIDER,
            vec![rule(&[""], &["configmaps"], &["create", "get", "list", "watch"])],
        ),
        role(
            SYSTEM,
            TOKEN_CLEANER,
            vec![rule(&[""], &["secrets"], &["delete", "get", "list", "watch"]), events()],
        ),
        role(SYSTEM, CONTROLLER_MANAGER_LOCK, locks()),
        role(SYSTEM, SCHEDULER_LOCK, locks()),
        role(
            PUBLIC,
            BOOTSTRAP_SIGNER,
            vec![
                rule(&[""], &["configmaps"], &READ),
                named(&[""], &["configmaps"], &["cluster-info"], &["update"]),
                events(),
            ],
        ),
    ]
}

/// The default role bindings.
#[must_use]
pub fn role_bindings() -> Vec<RoleBinding> {
    let (manager, scheduler) = ("kube-controller-manager", "kube-scheduler");
    let both = |name: &str| vec![user(&format!("system:{name}")), service_account(name)];
    let readers = vec![user("system:kube-controller-manager"), user("system:kube-scheduler")];
    let extension = RoleBinding {
        metadata: metadata(Some(SYSTEM), "system::extension-apiserver-authentication-reader"),
        ..binding(SYSTEM, AUTHENTICATION_READER, readers)
    };
    vec![
        extension,
        binding(SYSTEM, BOOTSTRAP_SIGNER, vec![service_account("bootstrap-signer")]),
        binding(SYSTEM, CLOUD_PROVIDER, vec![service_account("cloud-provider")]),
        binding(SYSTEM, TOKEN_CLEANER, vec![service_account("token-cleaner")]),
        binding(SYSTEM, CONTROLLER_MANAGER_LOCK, both(manager)),
        binding(SYSTEM, SCHEDULER_LOCK, both(scheduler)),
        binding(PUBLIC, BOOTSTRAP_SIGNER, vec![service_account("bootstrap-signer")]),
    ]
}

/// What it takes to be elected leader.
fn locks() -> Vec<PolicyRule> {
    let verbs = ["create", "get", "list", "update", "watch"];
    ["leases", "leasecandidates"]
        .into_iter()
        .map(|resource| rule(&["coordination.k8s.io"], &[resource], &verbs))
        .collect()
}

fn role(namespace: &str, name: &str, rules: Vec<PolicyRule>) -> Role {
    Role { metadata: metadata(Some(namespace), name), rules: Some(rules) }
}

/// Named as its role.
fn binding(namespace: &str, role: &str, subjects: Vec<Subject>) -> RoleBinding {
    RoleBinding {
        metadata: metadata(Some(namespace), role),
        role_ref: role_ref("Role", role),
        subjects: Some(subjects),
    }
}
