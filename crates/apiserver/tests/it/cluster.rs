//! A server for one test: a store in a temporary directory, TLS on a free port, kubectl against it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, sync::oneshot, task::JoinHandle, time::timeout};
use toono_api::UserInfo;
use toono_apiserver::{ApiConfig, ApiServer, LinkError, NodeLink};
use toono_http::{Body, server::Limits};
use toono_pki::{ClusterCa, Issued};
use toono_store::{Store, StoreConfig};

/// Longer than any command of these tests takes on a busy machine.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// No node is there.
struct NoNodes;

impl NodeLink for NoNodes {
    fn send(
        &self,
        node: &str,
        _request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>> {
        let node = node.to_owned();
        async move { Err(LinkError::Unknown { node }) }.boxed()
    }
}

/// A running server.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) address: SocketAddr,
    ca: ClusterCa,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(ApiConfig::default()).await
    }

    pub(crate) async fn start_with(config: ApiConfig) -> Self {
        Self::over(config, TempDir::new().unwrap(), ClusterCa::generate().unwrap()).await
    }

    /// Ends the server and begins another over the same store, at another address.
    pub(crate) async fn restart(mut self) -> Self {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
        let Self { api, ca, dir, .. } = self;
        drop(api);
        Self::over(ApiConfig::default(), dir, ca).await
    }

    async fn over(config: ApiConfig, dir: TempDir, ca: ClusterCa) -> Self {
        let stored = StoreConfig::new(dir.path().join("store"));
        // A server that has just ended gives its store back in a moment.
        let opened = async {
            loop {
                match Store::open(stored.clone()) {
                    Ok((store, _)) => return store,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let store = timeout(COMMAND_TIMEOUT, opened).await.expect("the store can be opened");
        let api = ApiServer::start(store, config, Arc::new(NoNodes)).await.unwrap();
        let own = ca.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let tls = toono_pki::server_config(&ca, &own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
        let handler = api.handler();
        let serving = tokio::spawn(async move {
            toono_http::server::serve(listener, Some(tls), handler, limits, stopped.map(drop))
                .await;
        });
        let cluster = Self { api, address, ca, dir, stop: Some(stop), serving: Some(serving) };
        let admin = cluster.ca.issue_client("kubernetes-admin", &["system:masters"]).unwrap();
        cluster.write_kubeconfig("admin", Some(&admin), None);
        cluster
    }

    /// Writes a kubeconfig for a client certificate or a token; returns its path.
    pub(crate) fn write_kubeconfig(
        &self,
        name: &str,
        own: Option<&Issued>,
        token: Option<&str>,
    ) -> PathBuf {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let encode = |text: &str| STANDARD.encode(text);
        let mut user = serde_json::json!({});
        if let Some(own) = own {
            user["client-certificate-data"] = encode(&own.cert_pem).into();
            user["client-key-data"] = encode(&own.key_pem).into();
        }
        if let Some(token) = token {
            user["token"] = token.into();
        }
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": encode(self.ca.cert_pem())}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        let path = self.dir.path().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) fn ca(&self) -> &ClusterCa {
        &self.ca
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.api.client(UserInfo::component("system:test"))
    }

    /// A kubectl command as the administrator, with a cache of its own.
    pub(crate) fn command(&self, program: &str, config: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg(format!("--kubeconfig={}", self.dir.path().join(config).display()))
            .arg(format!("--cache-dir={}", self.dir.path().join("cache").display()))
            .args(args)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl to its end.
    pub(crate) async fn run(&self, program: &str, config: &str, args: &[&str]) -> Output {
        let output = self.command(program, config, args).output();
        timeout(COMMAND_TIMEOUT, output).await.expect("kubectl ends in time").unwrap()
    }

    /// Runs kubectl, which must succeed without a word on stderr; returns what it printed.
    pub(crate) async fn kubectl(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, "admin.kubeconfig", args).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {stderr}");
        assert!(stderr.is_empty(), "kubectl {args:?} said: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl, which must fail; returns what it said.
    pub(crate) async fn kubectl_fails(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, "admin.kubeconfig", args).await;
        assert!(!output.status.success(), "kubectl {args:?} must fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs kubectl until it prints this: roles take effect a moment after they are written.
    pub(crate) async fn until(&self, program: &str, args: &[&str], expected: &str) {
        let settled = async {
            while String::from_utf8_lossy(&self.run(program, "admin.kubeconfig", args).await.stdout)
                .trim()
                != expected
            {}
        };
        timeout(COMMAND_TIMEOUT, settled).await.expect("it says so in time");
    }

    /// Asks without any credential; the answer's code.
    pub(crate) async fn anonymous_status(&self, path: &str) -> u16 {
        let tls = toono_pki::client_config(self.ca.cert_pem(), None).unwrap();
        let endpoint = format!("https://{}", self.address).parse().unwrap();
        let mut connection =
            toono_http::client::Connection::connect_tls(&endpoint, &tls).await.unwrap();
        let request = Request::builder().uri(path).body(toono_http::empty()).unwrap();
        connection.send(request).await.unwrap().status().as_u16()
    }

    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
    }
}
