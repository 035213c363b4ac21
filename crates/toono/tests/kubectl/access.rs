//! Who may do what: roles, bindings, `auth …`, tokens, impersonation.

use serde_json::json;

use crate::harness::Kubectl;

const READERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: access}
rules: [{apiGroups: [''], resources: [pods, configmaps], verbs: [get, list]}]
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("access");
    roles(k);
    questions(k);
    tokens(k);
}

fn roles(k: &Kubectl<'_>) {
    k.is(
        "create role reader --verb=get,list --resource=pods",
        "role.rbac.authorization.k8s.io/reader created",
    );
    k.is(
        "create rolebinding readers --role=reader --user=ada --serviceaccount=access:robot",
        "rolebinding.rbac.authorization.k8s.io/readers created",
    );
    k.is(
        "create clusterrole scaler --verb=update --resource=deployments.apps/scale",
        "clusterrole.rbac.authorization.k8s.io/scaler created",
    );
    k.holds(
        "get clusterrole scaler",
        &[(
            "/rules/0",
            json!({"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["update"]}),
        )],
    );
    k.is(
        "create clusterrolebinding scalers --clusterrole=scaler --group=team",
        "clusterrolebinding.rbac.authorization.k8s.io/scalers created",
    );
    k.is(
        "set subject rolebinding readers --user=eve",
        "rolebinding.rbac.authorization.k8s.io/readers subjects updated",
    );
    k.says(
        "get rolebindings -o wide",
        &[
            "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS\nreaders Role/reader",
            "ada, eve access/robot",
        ],
    );
    k.says("describe role reader", &["pods [] [] [get list]"]);
    k.ends(
        "auth reconcile -f -",
        0,
        READERS,
        &["role.rbac.authorization.k8s.io/reader reconciled"],
    );
    k.is("auth can-i list configmaps --as=ada", "yes");
    k.is(
        "create clusterrole all-scalers --aggregation-rule=scales=yes",
        "clusterrole.rbac.authorization.k8s.io/all-scalers created",
    );
    k.is(
        "label clusterrole scaler scales=yes",
        "clusterrole.rbac.authorization.k8s.io/scaler labeled",
    );
    k.until(
        "get clusterrole all-scalers -o jsonpath='{.rules[0].resources}'",
        &["[\"deployments/scale\"]"],
    );
    k.says(
        "get clusterrole all-scalers -o jsonpath='{.aggregationRule.clusterRoleSelectors}'",
        &["{\"matchLabels\":{\"scales\":\"yes\"}}"],
    );
    k.fails(
        "patch rolebinding readers -p '{\"roleRef\":{\"name\":\"other\"}}'",
        &["cannot change roleRef"],
    );
    k.fails("create clusterrolebinding root --clusterrole=cluster-admin --user=ada --as=ada", &["User \"ada\" cannot create resource \"clusterrolebindings\" in API group \"rbac.authorization.k8s.io\" at the cluster scope"]);
}

fn questions(k: &Kubectl<'_>) {
    k.is("auth can-i '*' '*'", "yes");
    k.is("auth can-i get pods --as=ada", "yes");
    k.ends("auth can-i delete pods --as=ada", 1, "", &["no"]);
    k.ends("auth can-i get pods --as=ada -n default", 1, "", &["no"]);
    k.ends(
        "auth can-i update deployments.apps --subresource=scale --as=bob --as-group=team",
        0,
        "",
        &["yes"],
    );
    k.ends("auth can-i get /metrics --as=ada", 1, "", &["no"]);
    k.says(
        "auth can-i --list --as=ada",
        &[
            "Resources Non-Resource URLs Resource Names Verbs",
            "pods [] [] [get list]",
            "configmaps [] [] [get list]",
        ],
    );
    k.lacks(
        "auth can-i --list --as=bob",
        "selfsubjectaccessreviews.authorization.k8s.io [] [] [create]",
        &["pods"],
    );
    k.fails("get secrets --as=ada", &["Error from server (Forbidden): secrets is forbidden: User \"ada\" cannot list resource \"secrets\" in API group \"\" in the namespace \"access\""]);
    k.ends("get pods --as=ada", 0, "", &["No resources found in access namespace."]);
    if k.minor() >= 28 {
        k.says(
            "auth whoami -o jsonpath='{.status.userInfo.groups}'",
            &["system:masters", "system:authenticated"],
        );
        k.says(
            "auth whoami --as=ada --as-group=team",
            &["ATTRIBUTE VALUE\nUsername ada\nGroups [team system:authenticated]"],
        );
    }
}

fn tokens(k: &Kubectl<'_>) {
    k.is("create serviceaccount robot", "serviceaccount/robot created");
    let token = k.says("create token robot --duration=1h", &["eyJ"]);
    k.says(
        "create token robot --audience=other -o jsonpath='{.spec.audiences[0]} {.status.token}'",
        &["other eyJ"],
    );
    k.fails("create token nobody", &["serviceaccounts \"nobody\" not found"]);
    // A kubeconfig without the administrator's certificate, so that the token alone says who asks.
    let config = k.says("config view --raw --minify --flatten -o jsonpath='{.clusters[0].cluster.certificate-authority-data}'", &["LS0t"]);
    let address = k.address();
    k.file("robot.kubeconfig", &format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: '{address}', certificate-authority-data: {config}}}}}], \
         users: [{{name: u, user: {{token: {token}}}}}]}}"
    ));
    k.ends("get pods --kubeconfig=robot.kubeconfig", 0, "", &["No resources found"]);
    k.fails(
        "get secrets --kubeconfig=robot.kubeconfig",
        &["User \"system:serviceaccount:access:robot\" cannot list resource \"secrets\""],
    );
    k.is("auth can-i get pods --kubeconfig=robot.kubeconfig", "yes");
    k.fails(
        "get pods --kubeconfig=robot.kubeconfig --as=ada",
        &["cannot impersonate resource \"users\""],
    );
    k.says("delete serviceaccount robot", &["serviceaccount \"robot\" deleted"]);
    k.fails("get pods --kubeconfig=robot.kubeconfig --request-timeout=10s", &["Unauthorized"]);
}
