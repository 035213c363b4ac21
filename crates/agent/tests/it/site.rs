//! The place of one test: a network namespace of its own, a data directory, and nothing left of both.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use toono_agent::{Agent, AgentError, Bootstrap, Config, Room, reset};
use toono_images::RegistryConfig;
use toono_net::{LinkName, Netlink};
use toono_sandbox::KeeperProgram;

use crate::{cloud::Cloud, registry};

thread_local! {
    /// Data directories of failed tests, with their cgroups.
    static LEFT: RefCell<Vec<(TempDir, PathBuf, String)>> = const { RefCell::new(Vec::new()) };
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Site {
    dir: Option<TempDir>,
    pub config: Config,
}

/// A running agent.
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

/// Runs a test on one thread in a network namespace that ends with it.
pub fn in_own_namespace<F: Future<Output = ()>>(test: F) {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let running = runtime();
    let result = catch_unwind(AssertUnwindSafe(|| {
        running.block_on(async {
            Netlink::current().unwrap().set_up(&LinkName::loopback()).await.unwrap();
            test.await;
        });
    }));
    drop(running);
    for (_dir, data, cgroup) in LEFT.take() {
        let _ = runtime().block_on(reset::reset(&data, &cgroup));
    }
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

impl Site {
    pub async fn new(cloud: &Cloud) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut registries = RegistryConfig::default();
        registries.add(&format!("{}=http://{}", registry::HOST, registry::serve().await)).unwrap();
        let config = Config {
            server: format!("https://{}", cloud.address).parse().unwrap(),
            name: "n1".to_owned(),
            pool: None,
            data: dir.path().join("data"),
            bootstrap: Some(Bootstrap { token: cloud.token.clone(), ca_pin: cloud.pin }),
            cgroup_parent: format!("/toono-agent-test-{}-{number}", std::process::id()),
            bridge: LinkName::new("toono0").unwrap(),
            resolv_conf: dir.path().join("resolv.conf"),
            registries,
            keeper: KeeperProgram {
                path: PathBuf::from(env!("CARGO_BIN_EXE_toono-agent-test-keeper")),
                args: vec![],
            },
            // The disk of the machine that runs tests may be as full as it likes.
            room: Room {
                eviction: toono_agent::Rules {
                    hard: "memory.available<100Mi".parse().unwrap(),
                    ..toono_agent::Rules::default()
                },
                ..Room::default()
            },
            manifests: None,
            ota_listen: None,
            neighbour_layers: true,
            version: "test".to_owned(),
        };
        Self { dir: Some(dir), config }
    }

    pub fn start(&self) -> Running {
        let (stop, stopped) = oneshot::channel();
        let config = self.config.clone();
        let task = tokio::spawn(Agent::run(config, async { drop(stopped.await) }));
        Running { stop, task }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data.join("pods").join(uid)
    }

    /// Removes everything and says what was left.
    pub async fn clear(self) {
        let removed = reset::reset(&self.config.data, &self.config.cgroup_parent).await.unwrap();
        assert_eq!(removed.failures, Vec::<String>::new());
        assert!(!self.config.data.exists());
        let links = Netlink::current().unwrap().links().await.unwrap();
        let names: Vec<_> =
            links.iter().map(|it| it.name.to_string()).filter(|it| it != "lo").collect();
        assert_eq!(names, Vec::<String>::new(), "links are left");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.dir.as_ref().unwrap().path().display().to_string();
        assert!(!mounts.contains(&dir), "mounts are left");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a failed test the agent may still run; what it left is cleared when it has ended.
        if let Some(dir) = self.dir.take().filter(|_| self.config.data.exists()) {
            let left = (dir, self.config.data.clone(), self.config.cgroup_parent.clone());
            LEFT.with_borrow_mut(|list| list.push(left));
        }
    }
}

impl Running {
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
    }

    pub async fn end(self) -> AgentError {
        self.task.await.unwrap().unwrap_err()
    }
}
