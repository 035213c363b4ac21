//! `kubectl create …`, `run` and `expose`: what each makes.

use serde_json::json;

use crate::harness::Kubectl;

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("make");
    plain(k);
    services(k);
    work(k);
    policies(k);
    k.is(
        "create configmap dry --from-literal=a=b --dry-run=server",
        "configmap/dry created (server dry run)",
    );
    k.fails("get configmap dry", &["(NotFound)"]);
    k.fails(
        "create configmap literal --from-literal=a=b",
        &["configmaps \"literal\" already exists"],
    );
    k.fails(
        "create configmap Upper",
        &["ConfigMap \"Upper\" is invalid: metadata.name: Invalid value: \"Upper\""],
    );
    k.fails("create configmap late -n nowhere", &["namespaces \"nowhere\" not found"]);
}

fn plain(k: &Kubectl<'_>) {
    k.file("poem.txt", "roses\nviolets\n");
    k.is("create configmap literal --from-literal=a=b", "configmap/literal created");
    k.is("create configmap files --from-file=poem.txt", "configmap/files created");
    k.is("get configmap files -o jsonpath='{.data.poem\\.txt}'", "roses\nviolets");
    k.is("create secret generic login --from-literal=user=ada", "secret/login created");
    k.holds("get secret login", &[("/type", json!("Opaque")), ("/data/user", json!("YWRh"))]);
    k.is("create secret docker-registry pull --docker-server=r.example --docker-username=u --docker-password=p", "secret/pull created");
    k.holds("get secret pull", &[("/type", json!("kubernetes.io/dockerconfigjson"))]);
    k.is("create serviceaccount robot", "serviceaccount/robot created");
    k.is(
        "create priorityclass high --value=1000 --description=first",
        "priorityclass.scheduling.k8s.io/high created",
    );
    k.says("get priorityclass high", &["high 1000 false"]);
}

fn services(k: &Kubectl<'_>) {
    k.is("create service clusterip front --tcp=80:8080", "service/front created");
    k.holds(
        "get service front",
        &[
            ("/spec/type", json!("ClusterIP")),
            ("/spec/ports/0/targetPort", json!(8080)),
            ("/spec/selector", json!({"app": "front"})),
            ("/spec/ipFamilyPolicy", json!("SingleStack")),
        ],
    );
    k.is("create service nodeport out --tcp=80 --node-port=30123", "service/out created");
    k.says("get service out", &["out NodePort", "80:30123/TCP"]);
    k.is("create service externalname away --external-name=example.com", "service/away created");
    k.says("get service away", &["away ExternalName <none> example.com <none>"]);
    k.is("create service clusterip headless --clusterip=None", "service/headless created");
    k.says("get service headless", &["headless ClusterIP None <none> <none>"]);
    k.is(
        "create ingress web --rule=shop.example/cart*=front:80",
        "ingress.networking.k8s.io/web created",
    );
    k.says("get ingress web", &["NAME CLASS HOSTS ADDRESS PORTS AGE\nweb <none> shop.example 80"]);
    k.says("describe ingress web", &["shop.example", "/cart front:80"]);
}

fn work(k: &Kubectl<'_>) {
    k.is(
        "run one --image=busybox:1 --port=80 --env=A=b --labels=app=one -- sleep 60",
        "pod/one created",
    );
    k.holds(
        "get pod one",
        &[
            ("/spec/containers/0/args", json!(["sleep", "60"])),
            ("/spec/containers/0/env/0/value", json!("b")),
            ("/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
            ("/spec/serviceAccountName", json!("default")),
            ("/spec/tolerations/0/key", json!("node.kubernetes.io/not-ready")),
            ("/status/phase", json!("Pending")),
            ("/status/qosClass", json!("BestEffort")),
        ],
    );
    k.says("get pod one", &["NAME READY STATUS RESTARTS AGE\none 0/1 Pending 0"]);
    k.says(
        "describe pod one",
        &["Name: one", "Image: busybox:1", "QoS Class: BestEffort", "kube-api-access-"],
    );
    k.is("expose pod one --port=80 --name=one", "service/one exposed");
    k.is("get service one -o jsonpath='{.spec.selector.app} {.spec.ports[0].port}'", "one 80");
    k.is(
        "create deployment shop --image=busybox:1 --replicas=2 --port=80",
        "deployment.apps/shop created",
    );
    k.until("get deployment shop -o wide", &["shop 0/2 2 0", "busybox busybox:1 app=shop"]);
    k.is(
        "expose deployment shop --port=80 --target-port=http --type=NodePort",
        "service/shop exposed",
    );
    k.is("create job once --image=busybox:1 -- true", "job.batch/once created");
    k.holds(
        "get job once",
        &[
            ("/spec/completions", json!(1)),
            ("/spec/backoffLimit", json!(6)),
            ("/spec/template/spec/restartPolicy", json!("Never")),
        ],
    );
    k.is(
        "create cronjob tick --image=busybox:1 --schedule='*/5 * * * *' -- date",
        "cronjob.batch/tick created",
    );
    k.says("get cronjob tick", &["tick */5 * * * * <none> False 0 <none>"]);
    k.is("create job now --from=cronjob/tick", "job.batch/now created");
    k.holds(
        "get job now",
        &[
            ("/metadata/ownerReferences/0/kind", json!("CronJob")),
            ("/metadata/annotations/cronjob.kubernetes.io~1instantiate", json!("manual")),
        ],
    );
    k.fails(
        "create cronjob bad --image=x --schedule=never",
        &["spec.schedule: Invalid value: \"never\""],
    );
}

fn policies(k: &Kubectl<'_>) {
    k.is(
        "create poddisruptionbudget keep --selector=app=shop --min-available=1",
        "poddisruptionbudget.policy/keep created",
    );
    k.says(
        "get pdb keep",
        &["NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE\nkeep 1 N/A 0"],
    );
    k.is("create quota small --hard=configmaps=50,pods=40", "resourcequota/small created");
    k.until(
        "get quota small -o jsonpath='{.status.hard}'",
        &["\"configmaps\":\"50\"", "\"pods\":\"40\""],
    );
    k.says("describe quota small", &["Resource Used Hard", "configmaps", " 50"]);
}
