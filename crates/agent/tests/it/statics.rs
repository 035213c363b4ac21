//! Pods that run from files, with no word of them from the cloud.

use std::{fs, path::PathBuf};

use toono_sandbox::{ContainerStatus, Keeper};

use crate::{
    cloud::{Cloud, PATIENCE},
    site::{Site, in_own_namespace},
};

pub fn manifest(word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: fixed\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: images.test/busybox:1\n    \
         command: [/bin/sh, -c, 'echo {word}; exec sleep 1000']\n"
    )
}

/// The directories of pods that have a container running whose log says this.
pub async fn saying(site: &Site, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(site.config.data.join("pods")).into_iter().flatten().flatten() {
        let dir = entry.path();
        let log = fs::read_to_string(dir.join("logs/main/0.log")).unwrap_or_default();
        let Ok(Some(keeper)) = Keeper::adopt(&dir).await else { continue };
        let Ok(snapshot) = keeper.state().await else { continue };
        let runs = |it: &ContainerStatus| matches!(it, ContainerStatus::Running { .. });
        if snapshot.containers.iter().any(|it| runs(&it.status)) && log.contains(word) {
            found.push(dir);
        }
    }
    found
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn a_pod_lives_as_long_as_its_file() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        let dir = tempfile::tempdir().unwrap();
        site.config.manifests = Some(dir.path().to_owned());
        let agent = site.start();
        let file = dir.path().join("fixed.yaml");
        fs::write(&file, manifest("first")).unwrap();
        fs::write(dir.path().join("broken.yaml"), "kind: [").unwrap();
        until("the pod runs", async || saying(&site, "first").await.len() == 1).await;
        let first = saying(&site, "first").await.remove(0);

        fs::write(&file, manifest("second")).unwrap();
        until("the pod is replaced", async || {
            saying(&site, "second").await.len() == 1 && !first.exists()
        })
        .await;
        let second = saying(&site, "second").await.remove(0);

        // It needs no cloud, and outlives the agent.
        let keeper = Keeper::adopt(&second).await.unwrap().unwrap();
        let before = keeper.state().await.unwrap().version;
        agent.stop().await;
        drop(cloud);
        let agent = site.start();
        until("it is there still", async || saying(&site, "second").await == [second.clone()])
            .await;
        assert_eq!(keeper.state().await.unwrap().version, before, "nothing was restarted");

        fs::remove_file(&file).unwrap();
        until("the pod is gone", async || !second.exists()).await;
        agent.stop().await;
        site.clear().await;
    });
}
