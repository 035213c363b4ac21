//! The server, the pools with their nodes, and the set.

use std::time::Duration;

use k8s_openapi::serde::Serialize;
use kube::{
    Api, Client, Config, Resource,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use toono_openyurt::{NodePool, YurtAppSet};
use toono_pki::NodeKey;

use super::{AppsetArgs, LIMIT};
use crate::{
    Failure,
    access::Access,
    fleet::{NETWORK, drive::Load, join, watch::Readiness},
    server::Server,
};

/// Heartbeats leave from so many addresses.
const SOCKETS: usize = 8;
const LOOK: Duration = Duration::from_millis(20);
/// The set's name.
pub(super) const SET: &str = "web";
/// The audit log, in the data directory.
pub(super) const AUDIT: &str = "audit.log";

pub(super) struct Scene {
    pub(super) server: Server,
    pub(super) client: Client,
    /// The nodes' heartbeats.
    pub(super) load: Load,
}

/// As join requests name it.
fn pool(number: usize) -> String {
    format!("pool-{number:05}")
}

impl Scene {
    pub(super) async fn set_up(args: &AppsetArgs) -> Result<Self, Failure> {
        let audit = args.data.join(AUDIT);
        let audit = audit.to_str().ok_or("--data is no text")?;
        let own = ["--audit-log-path", audit];
        let server = Server::start(&args.toono, &args.data, &[&NETWORK[..], &own].concat()).await?;
        let access = Access::read(&args.data, server.port)?;
        let file = Kubeconfig::read_from(args.data.join("admin.kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let key = NodeKey::generate("sim")?;
        let token = std::fs::read_to_string(args.data.join("node-token"))?;
        let mut connection = access.connect_anonymously().await?;
        let (mut joined, csr) = (Vec::new(), &key.csr_pem);
        for number in 0..args.pools * args.nodes {
            let one = join::one_of(&mut connection, token.trim(), number, args.nodes, csr).await?;
            joined.push(one);
        }
        let readiness = Readiness::follow(&access, joined.len()).await?;
        let load = Load::start(&joined, SOCKETS, None)?;
        let began = Instant::now();
        while readiness.ready()? < joined.len() {
            if began.elapsed() > LIMIT {
                let (ready, all) = (readiness.ready()?, joined.len());
                return Err(format!("{ready} of {all} nodes are ready").into());
            }
            sleep(LOOK).await;
        }
        let pools: Api<NodePool> = Api::all(client.clone());
        for number in 0..args.pools {
            let object = json!({"metadata": {"name": pool(number), "labels": {"sim": "all"}}});
            create(&pools, object).await?;
        }
        Ok(Self { server, client, load })
    }

    fn sets(&self) -> Api<YurtAppSet> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Over all pools, with three tweaks.
    pub(super) async fn create_set(&self, args: &AppsetArgs) -> Result<(), Failure> {
        let set = json!({"metadata": {"name": SET}, "spec": {
            "nodepoolSelector": {"matchLabels": {"sim": "all"}},
            "workload": {
                "workloadTemplate": {"deploymentTemplate": {"spec": {
                    "replicas": args.replicas,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "c", "image": "web:1"}]},
                    },
                }}},
                "workloadTweaks": tweaks("web:2"),
            },
        }});
        create(&self.sets(), set).await
    }

    /// Another image for the first pool.
    pub(super) async fn tweak_first(&self, _: &AppsetArgs) -> Result<(), Failure> {
        let patch = json!({"spec": {"workload": {"workloadTweaks": tweaks("web:3")}}});
        self.sets().patch(SET, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

fn tweaks(image: &str) -> Value {
    json!([
        {"pools": [pool(0)], "tweaks": {"containerImages": [{"name": "c", "targetImage": image}]}},
        {"nodepoolSelector": {"matchLabels": {"sim": "all"}}, "tweaks": {"patches": [
            {"operation": "add", "path": "/spec/template/metadata/labels/place",
                "value": "{{nodepool-name}}"}]}},
        {"pools": [pool(0)], "tweaks": {"patches": [
            {"operation": "add", "path": "/metadata/annotations/first", "value": "yes"}]}},
    ])
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<(), Failure>
where
    K: Resource + Clone + Serialize + k8s_openapi::serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}
