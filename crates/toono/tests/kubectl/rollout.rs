//! `kubectl rollout …` of deployments, daemon sets and stateful sets.

use serde_json::json;

use crate::harness::Kubectl;

/// Revisions need no pods, so this one has none.
const EMPTY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {kubernetes.io/change-cause: first}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: 'web:1'}]}
";

const STATEFUL: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 0
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: 'db:1'}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: main, image: 'agent:1'}]}
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("roll");
    revisions(k);
    pauses(k);
    progress(k);
    sets(k);
}

fn revisions(k: &Kubectl<'_>) {
    k.fed("create -f -", EMPTY, &["deployment.apps/web created"]);
    k.says(
        "rollout status deployment/web --timeout=30s",
        &["deployment \"web\" successfully rolled out"],
    );
    k.is("set image deployment/web main=web:2", "deployment.apps/web image updated");
    k.says(
        "annotate deployment web kubernetes.io/change-cause=second --overwrite",
        &["deployment.apps/web annotate"],
    );
    k.until(
        "rollout history deployment/web",
        &["deployment.apps/web", "REVISION CHANGE-CAUSE\n1 first\n2 second"],
    );
    k.says(
        "rollout history deployment/web --revision=1",
        &["deployment.apps/web with revision #1", "Image: web:1"],
    );
    k.says(
        "rollout undo deployment/web --dry-run=server",
        &["deployment.apps/web rolled back (server dry run)"],
    );
    k.is("rollout undo deployment/web", "deployment.apps/web rolled back");
    k.is("get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'", "web:1");
    k.until("rollout history deployment web", &["REVISION CHANGE-CAUSE\n2 second\n3 first"]);
    k.is("rollout undo deployment/web --to-revision=2", "deployment.apps/web rolled back");
    k.until("get deployment web -o jsonpath='{.spec.template.spec.containers[0].image} {.metadata.annotations.deployment\\.kubernetes\\.io/revision}'", &["web:2 4"]);
    k.fails(
        "rollout undo deployment/web --to-revision=9",
        &["unable to find specified revision 9 in history"],
    );
    k.is("get replicasets -o jsonpath='{.items[*].spec.replicas}'", "0 0");
}

fn pauses(k: &Kubectl<'_>) {
    k.is("rollout pause deployment/web", "deployment.apps/web paused");
    k.fails("rollout pause deployment/web", &["deployments.apps \"web\" is already paused"]);
    k.fails("rollout restart deployment/web", &["can't restart paused deployment"]);
    k.is("rollout resume deployment/web", "deployment.apps/web resumed");
    k.is("rollout restart deployment/web", "deployment.apps/web restarted");
    k.says(
        "get deployment web -o jsonpath='{.spec.template.metadata.annotations}'",
        &["kubectl.kubernetes.io/restartedAt"],
    );
    k.until("get replicasets -l app=web -o jsonpath='{.items[*].metadata.annotations.deployment\\.kubernetes\\.io/revision}'", &["5"]);
}

/// The pods of this one become ready by what the test writes, as a node would.
fn progress(k: &Kubectl<'_>) {
    k.is("create deployment live --image=live:1 --replicas=2", "deployment.apps/live created");
    k.until("get deployment live", &["live 0/2 2 0"]);
    k.says("rollout status deployment/live --watch=false", &["Waiting for deployment \"live\" rollout to finish: 0 of 2 updated replicas are available..."]);
    k.fails(
        "rollout status deployment/live --timeout=1s",
        &["timed out waiting for the condition"],
    );
    k.fails(
        "wait deployment/live --for=condition=Available --timeout=1s",
        &["timed out waiting for the condition on deployments/live"],
    );
    k.make_ready("app=live");
    k.says("rollout status deployment/live", &["deployment \"live\" successfully rolled out"]);
    k.is(
        "wait deployment/live --for=condition=Available --timeout=30s",
        "deployment.apps/live condition met",
    );
    k.is(
        "wait deployment live --for=jsonpath='{.status.readyReplicas}'=2 --timeout=30s",
        "deployment.apps/live condition met",
    );
    k.holds(
        "get deployment live",
        &[
            ("/status/availableReplicas", json!(2)),
            ("/status/updatedReplicas", json!(2)),
            ("/status/observedGeneration", json!(1)),
        ],
    );
    k.says("get pods -l app=live", &["1/1 Running 0"]);
    k.says(
        "describe deployment live",
        &[
            "Replicas: 2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
            "NewReplicaSetAvailable",
            "ScalingReplicaSet",
        ],
    );
    k.says(
        "get all -l app=live",
        &["pod/live-", "deployment.apps/live 2/2 2 2", "replicaset.apps/live-"],
    );
    k.until(
        "events --for deployment/live",
        &[
            "LAST SEEN TYPE REASON OBJECT MESSAGE",
            "Normal ScalingReplicaSet Deployment/live Scaled up replica set live-",
        ],
    );
    k.until("events --types=Normal", &["ScalingReplicaSet", "SuccessfulCreate"]);
    k.says(
        "get events --field-selector reason=ScalingReplicaSet,involvedObject.name=live",
        &["deployment/live Scaled up replica set live-"],
    );
    k.is("scale deployment/live --replicas=1", "deployment.apps/live scaled");
    k.until("get deployment live", &["live 1/1 1 1"]);
}

fn sets(k: &Kubectl<'_>) {
    k.fed("apply -f -", STATEFUL, &["statefulset.apps/db created", "daemonset.apps/agent created"]);
    k.until("rollout history statefulset/db", &["statefulset.apps/db", "1 <none>"]);
    k.is(
        "set image statefulset/db daemonset/agent main=next:2",
        "statefulset.apps/db image updated\ndaemonset.apps/agent image updated",
    );
    k.until("rollout history daemonset/agent", &["1 <none>\n2 <none>"]);
    k.says("rollout history daemonset/agent --revision=1", &["Image: agent:1"]);
    k.is("rollout undo daemonset/agent", "daemonset.apps/agent rolled back");
    k.until("rollout history daemonset agent", &["2 <none>\n3 <none>"]);
    k.is("get daemonset agent -o jsonpath='{.spec.template.spec.containers[0].image}'", "agent:1");
    k.says(
        "rollout status daemonset/agent --timeout=30s",
        &["daemon set \"agent\" successfully rolled out"],
    );
    k.until("rollout history statefulset db", &["1 <none>\n2 <none>"]);
    k.is("rollout undo statefulset/db --to-revision=1", "statefulset.apps/db rolled back");
    k.is("get statefulset db -o jsonpath='{.spec.template.spec.containers[0].image}'", "db:1");
    k.is(
        "rollout restart statefulset/db daemonset/agent",
        "statefulset.apps/db restarted\ndaemonset.apps/agent restarted",
    );
    k.says(
        "get controllerrevisions",
        &["NAME CONTROLLER REVISION AGE", "statefulset.apps/db 4", "daemonset.apps/agent"],
    );
}
