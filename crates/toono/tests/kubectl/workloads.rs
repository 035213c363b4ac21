//! Jobs, stateful sets, storage, endpoints: kinds that controllers act on.

use serde_json::json;

use crate::harness::Kubectl;

const STATEFUL: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: 'db:1'}]}
";

const STORAGE: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: slow}
provisioner: example.com/slow
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: slow, hostPath: {path: /disk}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {resources: {requests: {storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: slow}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}}]}
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("work");
    jobs(k);
    stateful(k);
    endpoints(k);
    stored(k);
}

fn jobs(k: &Kubectl<'_>) {
    k.is("create job once --image=busybox:1 -- true", "job.batch/once created");
    k.until("get pods -l job-name=once", &["once-", "0/1 Pending"]);
    k.fails(
        "wait job/once --for=condition=Complete --timeout=1s",
        &["timed out waiting for the condition on jobs/once"],
    );
    k.finish_pods("job-name=once");
    k.is("wait job/once --for=condition=Complete --timeout=30s", "job.batch/once condition met");
    k.says("get job once", &["1/1"]);
    k.holds(
        "get job once",
        &[("/status/succeeded", json!(1)), ("/status/conditions/0/status", json!("True"))],
    );
    k.says("describe job once", &["Pods Statuses: 0 Active (0 Ready) / 1 Succeeded / 0 Failed"]);
    k.says("delete job once", &["job.batch \"once\" deleted"]);
    k.until("get pods -l job-name=once -o jsonpath='{.items}'", &["[]"]);
    k.is(
        "create cronjob tick --image=busybox:1 --schedule='0 0 1 1 *' -- date",
        "cronjob.batch/tick created",
    );
    k.is("patch cronjob tick -p '{\"spec\":{\"suspend\":true}}'", "cronjob.batch/tick patched");
    k.says("get cronjob tick --no-headers", &["tick 0 0 1 1 * <none> True 0 <none>"]);
    k.says(
        "describe cronjob tick",
        &["Schedule: 0 0 1 1 *", "Suspend: True", "Concurrency Policy: Allow"],
    );
}

fn stateful(k: &Kubectl<'_>) {
    k.fed("apply -f -", STATEFUL, &["statefulset.apps/db created"]);
    k.until("get pods -l app=db -o name", &["pod/db-0"]);
    k.lacks("get pods -l app=db", "db-0", &["db-1"]);
    k.make_ready("app=db");
    k.until("get pods -l app=db -o name --sort-by=.metadata.name", &["pod/db-0\npod/db-1"]);
    k.make_ready("app=db,apps.kubernetes.io/pod-index=1");
    k.until("get statefulset db", &["NAME READY AGE\ndb 2/2"]);
    k.is("scale statefulset db --replicas=0", "statefulset.apps/db scaled");
    k.until(
        "get pods -l app=db -o jsonpath='{.items[*].metadata.deletionTimestamp}{.items}'",
        &["[]"],
    );
}

fn endpoints(k: &Kubectl<'_>) {
    k.is("run web --image=web:1 --port=8080 --labels=app=front", "pod/web created");
    k.is("create service clusterip front --tcp=80:8080", "service/front created");
    k.make_ready("app=front");
    k.is("patch pod web --subresource=status -p '{\"status\":{\"podIP\":\"10.1.2.3\",\"podIPs\":[{\"ip\":\"10.1.2.3\"}]}}'", "pod/web patched");
    k.is("get pod web -o jsonpath='{.status.podIP} {.status.phase}'", "10.1.2.3 Running");
    k.says("wait pod/web --for=condition=Ready --timeout=30s", &["pod/web condition met"]);
    k.until(
        "get endpointslices -l kubernetes.io/service-name=front",
        &["NAME ADDRESSTYPE PORTS ENDPOINTS AGE\nfront-", "IPv4"],
    );
    k.until("get endpoints front", &["front 10.1.2.3:8080"]);
    k.says("describe service front", &["Type: ClusterIP", "TargetPort: 8080/TCP"]);
    k.says("delete pod web --grace-period=0 --force", &["pod \"web\" force deleted"]);
    k.until("get endpoints front -o jsonpath='{.subsets}.'", &["."]);
}

fn stored(k: &Kubectl<'_>) {
    k.fed(
        "apply -f -",
        STORAGE,
        &[
            "storageclass.storage.k8s.io/slow created",
            "persistentvolume/disk created",
            "networkpolicy.networking.k8s.io/closed created",
        ],
    );
    k.says("get storageclass slow", &["slow example.com/slow Delete Immediate false"]);
    k.says("get pv disk", &["disk 1Gi RWO Retain", "slow"]);
    k.says(
        "get pvc claim",
        &["NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS", "claim Pending slow"],
    );
    k.says("get networkpolicy closed", &["NAME POD-SELECTOR AGE\nclosed app=db"]);
    k.says("describe networkpolicy closed", &["PodSelector: app=db", "Policy Types: Ingress"]);
    k.is("run small --image=x:1", "pod/small created");
    k.holds(
        "get pod small",
        &[
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}}),
            ),
            ("/status/phase", json!("Pending")),
        ],
    );
    k.says("get pod small --subresource=status -o jsonpath='{.status.phase}'", &["Pending"]);
}
