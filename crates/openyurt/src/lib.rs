//! OpenYurt's objects: the documents that define them ([`crd`]), a type for each kind, and the keys of the labels,
//! annotations and finalizers that go with them ([`keys`]).
//!
//! Types read what the schemas of their kind let pass, so one odd object never hides the others from a watch; what a
//! schema leaves open is a [`serde_json::Value`] here. Fields that are not known are passed over: what is
//! written are patches.

pub mod crd;
pub mod gateway;
pub mod keys;
pub mod node_bucket;
pub mod node_pool;
mod object;
pub mod pool_service;
pub mod yurt_app_set;
pub mod yurt_static_set;

pub use gateway::Gateway;
pub use node_bucket::NodeBucket;
pub use node_pool::NodePool;
pub use pool_service::PoolService;
pub use yurt_app_set::YurtAppSet;
pub use yurt_static_set::YurtStaticSet;
