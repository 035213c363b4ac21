//! Tokens of service accounts: made, used, reviewed, and refused when they are not what they seem.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use serde_json::{Value, json};
use toono_apiserver::{ApiConfig, tokens::ISSUER};
use toono_http::client::Connection;
use toono_pki::TokenKey;

use crate::{cluster::Cluster, http::Http};

const KUBECTL: &str = "kubectl";

/// A cluster whose key the test knows, with the account `bot` in `default`.
struct World {
    cluster: Cluster,
    key: Arc<TokenKey>,
    admin: Http,
}

impl World {
    async fn start() -> Self {
        let key = Arc::new(TokenKey::generate().unwrap());
        let config = ApiConfig { token_key: Some(key.clone()), ..ApiConfig::default() };
        let cluster = Cluster::start_with(config).await;
        let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
        let admin = Http::connect(&cluster, Some(&own)).await;
        let mut world = Self { cluster, key, admin };
        world
            .create(
                "/api/v1/namespaces/default/serviceaccounts",
                json!({"metadata": {"name": "bot"}}),
            )
            .await;
        world
    }

    async fn create(&mut self, path: &str, object: Value) -> Value {
        let (code, made) = self.admin.post(path, &object).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    /// A token for `bot` by a spec.
    async fn token(&mut self, spec: Value) -> Value {
        let path = "/api/v1/namespaces/default/serviceaccounts/bot/token";
        self.create(path, json!({"spec": spec})).await
    }

    async fn pod(&mut self, name: &str, account: &str) -> Value {
        let pod = json!({"metadata": {"name": name}, "spec": {"serviceAccountName": account,
            "containers": [{"name": "c", "image": "i"}]}});
        self.create("/api/v1/namespaces/default/pods", pod).await
    }

    /// The code that a token gets on a path that every user may read.
    async fn code(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let mut http = Http::connect(&self.cluster, None).await;
        http.get("/apis", &[("authorization", &bearer)]).await.0
    }

    async fn review(&mut self, token: &str, audiences: &[&str]) -> Value {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        self.create(path, review).await["status"].clone()
    }

    async fn delete(&mut self, path: &str) {
        let (code, said) = self.admin.ask(&Method::DELETE, path, &[], &Value::Null).await;
        assert_eq!(code, 200, "{said}");
    }
}

fn claims_of(token: &str) -> Value {
    let middle = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).expect(pointer)
}

#[tokio::test]
async fn a_token_that_kubectl_made_is_a_service_account() {
    let world = World::start().await;
    let cluster = &world.cluster;
    let make = ["create", "token", "bot", "--duration=20m", "--audience", ISSUER];
    let token = cluster.kubectl(KUBECTL, &make).await;
    let claims = claims_of(token.trim());
    assert_eq!(claims["sub"], "system:serviceaccount:default:bot");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 20 * 60);
    cluster.write_kubeconfig("bot", None, Some(token.trim()));
    let who = cluster.run(KUBECTL, "bot.kubeconfig", &["auth", "whoami", "-o", "json"]).await;
    let who: Value = serde_json::from_slice(&who.stdout).unwrap();
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(user["uid"], claims["kubernetes.io"]["serviceaccount"]["uid"]);
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let id = format!("JTI={}", text(&claims, "/jti"));
    assert_eq!(user["extra"]["authentication.kubernetes.io/credential-id"], json!([id]));
    let refused = cluster.run(KUBECTL, "bot.kubeconfig", &["get", "pods"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("User \"system:serviceaccount:default:bot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""), "{said}");
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_token_is_asked_for_within_bounds() {
    let mut world = World::start().await;
    world.pod("web", "bot").await;
    world.pod("other", "default").await;
    let path = "/api/v1/namespaces/default/serviceaccounts/bot/token";
    for (body, code, message) in [
        (
            json!({"spec": {"expirationSeconds": 599}}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"spec": {"expirationSeconds": 4_294_967_297_i64}}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (
            json!({"metadata": {"name": "x"}, "spec": {}}),
            422,
            "TokenRequest.authentication.k8s.io \"bot\" is invalid: metadata.name: Invalid value: \"x\": must match the service account name if specified",
        ),
        (
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "other"}}}),
            400,
            "cannot bind token for serviceaccount \"bot\" to pod running with different serviceaccount name.",
        ),
        (
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "gone"}}}),
            404,
            "pods \"gone\" not found",
        ),
        (
            json!({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}),
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
        (
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u"}}}),
            409,
            "Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated",
        ),
    ] {
        let (answered, said) = world.admin.post(path, &body).await;
        assert_eq!((answered, text(&said, "/message")), (code, message), "{body}");
    }
    let (code, _) = world
        .admin
        .post("/api/v1/namespaces/default/serviceaccounts/nobody/token", &json!({"spec": {}}))
        .await;
    assert_eq!(code, 404);
    let made = world.token(json!({})).await;
    assert_eq!(made["spec"]["expirationSeconds"], 3600);
    assert_eq!(made["spec"]["audiences"], json!([ISSUER]));
    // The time that the kubelet asks for on behalf of old programs is stretched, with a warning kept.
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web"});
    let made = world.token(json!({"expirationSeconds": 3607, "boundObjectRef": bound})).await;
    let claims = claims_of(text(&made, "/status/token"));
    let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!(ends - issued, 365 * 24 * 3600);
    assert_eq!(claims["kubernetes.io"]["warnafter"], issued + 3607);
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    let mut world = World::start().await;
    let base = "/api/v1/namespaces/default";
    let pod = world.pod("web", "bot").await;
    world.create(&format!("{base}/secrets"), json!({"metadata": {"name": "s"}})).await;
    world.create("/api/v1/nodes", json!({"metadata": {"name": "edge-1"}})).await;
    let bind = |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let mut tokens = Vec::new();
    for (kind, name) in [("Pod", "web"), ("Secret", "s"), ("Node", "edge-1")] {
        let made = world.token(bind(kind, name)).await;
        tokens.push(text(&made, "/status/token").to_owned());
    }
    let free = text(&world.token(json!({})).await, "/status/token").to_owned();
    for token in tokens.iter().chain([&free]) {
        assert_eq!(world.code(token).await, 200);
    }
    let status = world.review(&tokens[0], &[]).await;
    assert_eq!(status["authenticated"], true);
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
    for (at, path) in [
        (0, format!("{base}/pods/web")),
        (1, format!("{base}/secrets/s")),
        (2, "/api/v1/nodes/edge-1".to_owned()),
    ] {
        world.delete(&path).await;
        assert_eq!(world.code(&tokens[at]).await, 401, "{path}");
    }
    // One of the same name is another one.
    world.pod("web", "bot").await;
    assert_eq!(world.code(&tokens[0]).await, 401);
    assert_eq!(world.code(&free).await, 200);
    world.delete(&format!("{base}/serviceaccounts/bot")).await;
    assert_eq!(world.code(&free).await, 401);
    world.create(&format!("{base}/serviceaccounts"), json!({"metadata": {"name": "bot"}})).await;
    assert_eq!(world.code(&free).await, 401);
    let status = world.review(&free, &[]).await;
    assert_eq!(
        text(&status, "/error"),
        "[invalid bearer token, service account token has been invalidated]"
    );
    world.cluster.stop().await;
}

#[tokio::test]
async fn what_is_no_token_of_ours_lets_nobody_in() {
    let mut world = World::start().await;
    let good = text(&world.token(json!({})).await, "/status/token").to_owned();
    assert_eq!(world.code(&good).await, 200);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let signed = |world: &World, change: &dyn Fn(&mut Value)| {
        let mut claims = claims_of(&good);
        change(&mut claims);
        world.key.sign(&claims).unwrap()
    };
    let unchanged = signed(&world, &|_| {});
    assert_eq!(world.code(&unchanged).await, 200, "the test signs as the server does");
    let (_, rest) = good.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let stranger = TokenKey::generate().unwrap().sign(&claims_of(&good)).unwrap();
    let mut flipped = good.clone().into_bytes();
    flipped[60] ^= 1;
    for (what, token) in [
        ("expired", signed(&world, &|claims| claims["exp"] = (now - 61).into())),
        ("early", signed(&world, &|claims| claims["nbf"] = (now + 120).into())),
        ("for others", signed(&world, &|claims| claims["aud"] = json!(["vault"]))),
        ("of another issuer", signed(&world, &|claims| claims["iss"] = "https://x".into())),
        ("of another account", signed(&world, &|claims| claims["sub"] = "system:admin".into())),
        ("without claims", signed(&world, &|claims| *claims = json!({}))),
        ("unsigned", format!("{none}.{claims}.")),
        ("unsigned with a signature", format!("{none}.{rest}")),
        ("of a stranger", stranger),
        ("changed", String::from_utf8(flipped).unwrap()),
        ("cut", good[..good.len() - 1].to_owned()),
        ("twice", format!("{good}.{good}")),
        ("huge", "a".repeat(20_000)),
        ("a word", "hello".to_owned()),
        ("a bootstrap token that is not there", "abcdef.0123456789abcdef".to_owned()),
    ] {
        assert_eq!(world.code(&token).await, 401, "{what}");
        assert_eq!(world.review(&token, &[]).await["authenticated"], Value::Null, "{what}");
    }
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_review_tells_for_whom_a_token_is() {
    let mut world = World::start().await;
    let made = world.token(json!({"audiences": ["vault", "backup"]})).await;
    let token = text(&made, "/status/token").to_owned();
    assert_eq!(world.code(&token).await, 401, "it is not for this server");
    let status = world.review(&token, &["backup", "other"]).await;
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["backup"]))
    );
    let status = world.review(&token, &[]).await;
    assert!(text(&status, "/error").contains("is invalid for the target audiences"), "{status}");
    let (code, keys) = world.admin.get("/openid/v1/jwks", &[]).await;
    assert_eq!((code, &keys["keys"]), (200, &json!([world.key.public_jwk()])));
    let (code, document) = world.admin.get("/.well-known/openid-configuration", &[]).await;
    assert_eq!((code, &document["issuer"]), (200, &json!(ISSUER)));
    assert_eq!(text(&document, "/jwks_uri"), format!("{ISSUER}/openid/v1/jwks"));
    world.cluster.stop().await;
}

/// A controller in a pod: kube-rs with nothing but a token.
#[tokio::test]
async fn a_program_works_with_its_token() {
    let mut world = World::start().await;
    let token = text(&world.token(json!({})).await, "/status/token").to_owned();
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list", "get"]}]);
    world
        .create(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}]});
    world.create(&format!("{rbac}/rolebindings"), binding).await;
    let can = ["auth", "can-i", "list", "configmaps", "--as=system:serviceaccount:default:bot"];
    world.cluster.until(KUBECTL, &can, "yes").await;
    let tls = toono_pki::client_config(world.cluster.ca().cert_pem(), None).unwrap();
    let endpoint: toono_http::client::Endpoint =
        format!("https://{}", world.cluster.address).parse().unwrap();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let (tls, endpoint, bearer) = (tls.clone(), endpoint.clone(), format!("Bearer {token}"));
        async move {
            request.headers_mut().insert("authorization", bearer.parse().unwrap());
            let mut connection = Connection::connect_tls(&endpoint, &tls).await.unwrap();
            let request =
                request.map(|body| body.map_err(toono_http::BoxError::from).boxed_unsync());
            Ok::<_, std::convert::Infallible>(connection.send(request).await.unwrap())
        }
    });
    let client = kube::Client::new(service, "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map =
        ConfigMap { data: Some([("a".to_owned(), "b".to_owned())].into()), ..ConfigMap::default() };
    let map = ConfigMap {
        metadata: kube::core::ObjectMeta { name: Some("m".to_owned()), ..Default::default() },
        ..map
    };
    maps.create(&Default::default(), &map).await.unwrap();
    assert_eq!(maps.list(&Default::default()).await.unwrap().items.len(), 1);
    let pods: Api<Pod> = Api::default_namespaced(client);
    let refused = pods.list(&Default::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    world.cluster.stop().await;
}
