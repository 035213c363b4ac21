//! Keys of labels, annotations, finalizers, and the values that are fixed. Each says on what it is and what it means.

// --- Nodes and pools ---

/// Label of a node: the pool it is in.
pub const NODE_POOL: &str = "apps.openyurt.io/nodepool";
/// Label of a node, from a join: the pool it is to be in. Becomes [`NODE_POOL`].
pub const DESIRED_NODE_POOL: &str = "apps.openyurt.io/desired-nodepool";
/// Annotation of a node: what its pool gave it, so that it can be taken back.
pub const PREVIOUS_ATTRIBUTES: &str = "nodepool.openyurt.io/previous-attributes";
/// Label of a pool: its type in small letters.
pub const NODE_POOL_TYPE: &str = "nodepool.openyurt.io/type";
/// Label of a node: its pool has the network of hosts only. The value is `"true"`.
pub const NODE_POOL_HOST_NETWORK: &str = "nodepool.openyurt.io/hostnetwork";
/// Finalizer of a pool: it stays until it has no nodes.
pub const NODE_POOL_FINALIZER: &str = "nodepool.openyurt.io/nodes";
/// Label of a node: it is at the edge. The value is `"true"`.
pub const IS_EDGE_WORKER: &str = "openyurt.io/is-edge-worker";
/// Label of what is made for a pool (NodeBuckets, PoolServices): the pool's name.
pub const POOL_OF_OBJECT: &str = "openyurt.io/pool-name";
/// Label of the ConfigMap that says who leads a pool: the ConfigMap's name.
pub const HUB_LEADER_CONFIG: &str = "openyurt.io/configmap-name";
/// Names of those ConfigMaps: this and the pool's name.
pub const HUB_LEADER_CONFIG_PREFIX: &str = "leader-hub-";
/// The ClusterRole of nodes that lead.
pub const HUB_LEADER_ROLE: &str = "yurt-hub-multiplexer";

// --- Autonomy ---

/// Annotation of a node: for how long its pods stay when it is silent, as Go writes durations; `0` is for ever.
pub const AUTONOMY_DURATION: &str = "node.openyurt.io/autonomy-duration";
/// Annotation of a node, the older one: `"true"` is for ever.
pub const AUTONOMY: &str = "node.beta.openyurt.io/autonomy";
/// Annotation of a node, the oldest one: `"true"` is for ever.
pub const BINDING: &str = "apps.openyurt.io/binding";
/// Annotation of a pod: `tolerationSeconds` for not-ready nodes before autonomy changed it.
pub const ORIGINAL_NOT_READY_TOLERATION: &str =
    "apps.openyurt.io/original-not-ready-toleration-duration";
/// Annotation of a pod: `tolerationSeconds` for unreachable nodes before autonomy changed it.
pub const ORIGINAL_UNREACHABLE_TOLERATION: &str =
    "apps.openyurt.io/original-unreachable-toleration-duration";
/// Annotation of a pod: it stays off the nodes of pools with the network of hosts only.
pub const EXCLUDE_HOST_NETWORK_POOL: &str = "apps.openyurt.io/exclude-host-network-pool";

// --- Workloads ---

/// Label of a YurtAppSet's workloads and their pods: the pool's name.
pub const POOL_NAME: &str = "apps.openyurt.io/pool-name";
/// Annotation of a YurtAppSet's workloads: the pool's name.
pub const REF_NODE_POOL: &str = "apps.openyurt.io/ref-nodepool";
/// Label of a YurtAppSet's workloads: the set's name.
pub const REF_YURT_APP_SET: &str = "apps.openyurt.io/ref-yurtappset";
/// Label of what belongs to a revision.
pub const CONTROLLER_REVISION_HASH: &str = "apps.openyurt.io/controller-revision-hash";
/// Annotation of a DaemonSet: how its pods are replaced, [`ADVANCED_ROLLING_UPDATE`] or [`OTA`].
pub const UPDATE_STRATEGY: &str = "apps.openyurt.io/update-strategy";
/// Annotation of a DaemonSet with [`ADVANCED_ROLLING_UPDATE`]: how many pods may be down at once, a number or a share.
pub const MAX_UNAVAILABLE: &str = "apps.openyurt.io/max-unavailable";
/// Pods are replaced by themselves, passing over nodes that are not ready.
pub const ADVANCED_ROLLING_UPDATE: &str = "AdvancedRollingUpdate";
/// A pod is replaced when its node approves.
pub const OTA: &str = "OTA";
/// Condition of a pod: there is a newer one to approve.
pub const POD_NEED_UPGRADE: &str = "PodNeedUpgrade";
/// Condition of a pod: the images of the newer one are on its node.
pub const POD_IMAGE_READY: &str = "PodImageReady";
/// Annotation of a static pod: the digest of the template it is of.
pub const STATIC_POD_HASH: &str = "openyurt.io/static-pod-hash";

// --- Traffic ---

/// Annotation of a Service: within what its traffic stays.
pub const TOPOLOGY_KEYS: &str = "openyurt.io/topologyKeys";
/// A value of [`TOPOLOGY_KEYS`]: within the node.
pub const TOPOLOGY_NODE: &str = "kubernetes.io/hostname";
/// A value of [`TOPOLOGY_KEYS`]: within the pool.
pub const TOPOLOGY_NODE_POOL: &str = "openyurt.io/nodepool";
/// A value of [`TOPOLOGY_KEYS`]: within the pool, by its older name.
pub const TOPOLOGY_ZONE: &str = "kubernetes.io/zone";
/// Annotation of EndpointSlices: the topology of their Service changed then.
pub const UPDATE_TRIGGER: &str = "openyurt.io/update-trigger";
/// Annotation of a Service: in which pools its node ports are open, such as `pool1,-pool2,*`.
pub const NODE_PORT_LISTEN: &str = "nodeport.openyurt.io/listen";
/// Annotation of a Service: with `"true"`, nodes ignore it when it is of type LoadBalancer.
pub const DISCARD_SERVICE: &str = "svc.openyurt.io/discard";
/// Annotation of a Service of type LoadBalancer: selects the pools in which it is to be.
pub const SERVICE_POOL_SELECTOR: &str = "service.openyurt.io/nodepool-labelselector";
/// Label of a PoolService: its Service's name.
pub const SERVICE_NAME: &str = "openyurt.io/service-name";
/// Label of a PoolService: who made it.
pub const POOL_SERVICE_MANAGED_BY: &str = "poolservice.openyurt.io/managed-by";
/// Finalizer of a PoolService.
pub const POOL_SERVICE_FINALIZER: &str = "poolservice.openyurt.io/resources";
/// Label of a node: its gateway.
pub const GATEWAY: &str = "raven.openyurt.io/gateway";
