//! What every cluster has from its first start: four namespaces, two priority classes, the range of
//! Services' addresses, and the Services by which pods reach the server and the cluster's DNS.

use std::net::SocketAddr;

use serde_json::{Value, json};
use toono_api::{
    ApiError, BuiltIn, UserInfo,
    allocation::ServiceRange,
    kinds::{
        core::NAMESPACE, discovery::ENDPOINT_SLICE, networking::SERVICE_CIDR,
        scheduling::PRIORITY_CLASS, service::SERVICE,
    },
};
use toono_mvcc::{Expect, Op, Owner, Txn};
use toono_store::CommitError;

use crate::{
    encode,
    query::{FieldValidation, WriteOptions},
    server::{ApiServer, StartError, key},
    verbs,
};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The name of the server's Service, of its endpoints and of the range that it is in.
const SERVER: &str = "kubernetes";
/// The name of the Service of the cluster's DNS, whatever serves it.
const DNS: &str = "kube-dns";
const DNS_PORT: u16 = 53;
const HTTPS_PORT: u16 = 443;
/// The port behind the Service when the server does not say where it is.
const SERVER_PORT: u16 = 6443;

/// Priority classes of what a node or the cluster cannot be without: name, value, description.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

impl ApiServer {
    /// Objects that no client may make, past the rules for clients.
    pub(crate) async fn create_priority_classes(&self) -> Result<(), StartError> {
        let resource = self.built_in(&PRIORITY_CLASS);
        for (name, value, description) in PRIORITY_CLASSES {
            let key = key(&resource, "", name);
            let object = json!({
                "kind": "PriorityClass",
                "apiVersion": resource.api_version(),
                "metadata": {
                    "name": name,
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "generation": 1,
                    "creationTimestamp": verbs::whole_seconds(Self::now()),
                },
                "value": value,
                "description": description,
                "preemptionPolicy": "PreemptLowerPriority",
            });
            let value = encode::draft(&resource, &object);
            let op = Op::Put { key, value, owner: Owner::PLATFORM };
            match self.inner.store.commit(Txn::of(Expect::Absent, op)).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(source) => return Err(StartError::PriorityClass { name, source }),
            }
        }
        Ok(())
    }

    pub(crate) async fn create_what_every_cluster_has(&self) -> Result<(), StartError> {
        for name in NAMESPACES {
            let object = json!({"metadata": {"name": name}});
            self.ensure(&NAMESPACE, "", name, object).await?;
        }
        let range = self.inner.config.service_range;
        let cidr = json!({"metadata": {"name": SERVER}, "spec": {"cidrs": [range.to_string()]}});
        self.ensure(&SERVICE_CIDR, "", SERVER, cidr).await?;
        let advertise = self.inner.config.advertise;
        let port = advertise.map_or(SERVER_PORT, |address| address.port());
        let service = json!({
            "metadata": {"name": SERVER,
                         "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": range.first().to_string(),
                "ports": [{"name": "https", "protocol": "TCP", "port": HTTPS_PORT,
                           "targetPort": port}],
            },
        });
        self.ensure(&SERVICE, "default", SERVER, service).await?;
        self.ensure_dns(range).await?;
        match advertise.filter(|address| !address.ip().is_loopback()) {
            Some(address) => self.publish(address).await,
            None => Ok(()),
        }
    }

    /// The Service of the cluster's DNS. Nodes answer what is sent there themselves, so it selects no pods.
    async fn ensure_dns(&self, range: ServiceRange) -> Result<(), StartError> {
        let service = |address: Value| {
            json!({
                "metadata": {"name": DNS, "labels": {"k8s-app": DNS,
                             "kubernetes.io/cluster-service": "true",
                             "kubernetes.io/name": "CoreDNS"}},
                "spec": {
                    "clusterIP": address,
                    "ports": [{"name": "dns", "protocol": "UDP", "port": DNS_PORT},
                              {"name": "dns-tcp", "protocol": "TCP", "port": DNS_PORT}],
                },
            })
        };
        let usual = range.dns().map(|address| json!(address.to_string()));
        let made = self.ensure(&SERVICE, "kube-system", DNS, service(json!(usual))).await;
        let Err(error) = made else { return Ok(()) };
        // A cluster from before may have given the usual address away; any other will do.
        tracing::warn!(%error, "the cluster's DNS does not get its usual address");
        self.ensure(&SERVICE, "kube-system", DNS, service(Value::Null)).await
    }

    /// Says where the server is. Several servers are so many endpoints.
    async fn publish(&self, address: SocketAddr) -> Result<(), StartError> {
        let kind = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let name = format!("{SERVER}-{}", address.ip().to_string().replace(['.', ':'], "-"));
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": SERVER}},
            "addressType": kind,
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "protocol": "TCP", "port": address.port()}],
        });
        self.ensure(&ENDPOINT_SLICE, "default", &name, slice).await
    }

    /// Creates an object unless it is there.
    async fn ensure(
        &self,
        row: &'static BuiltIn,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<(), StartError> {
        let user = UserInfo::component("system:apiserver");
        let options = WriteOptions {
            dry_run: false,
            field_validation: FieldValidation::Strict,
            repeated: &[],
            record: verbs::Record::Changes("kube-apiserver"),
        };
        let resource = self.built_in(row);
        // Asked first: after a restart, admission would refuse what is there (its address is taken).
        if self.existing(&resource, namespace, name).is_ok() {
            return Ok(());
        }
        match verbs::create_object(self, &user, &resource, namespace, object, options).await {
            Ok(_) | Err(ApiError::AlreadyExists { .. }) => Ok(()),
            // Another server was faster.
            Err(_) if self.existing(&resource, namespace, name).is_ok() => Ok(()),
            Err(source) => {
                let name = format!("{} {name:?}", row.singular);
                Err(StartError::Bootstrap { name, source })
            }
        }
    }
}
