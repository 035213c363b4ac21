//! Whose credentials a pull shows, and to whom.

use std::sync::atomic::Ordering;

use toono_images::{Keyring, PullError};

use crate::{
    archive::Tar,
    registry::{Contents, HOST, Registry, image},
};

fn keyring(host: &str, password: &str) -> Keyring {
    let mut keyring = Keyring::default();
    let json = serde_json::json!({"auths": {host: {"username": "u", "password": password}}});
    keyring.add_docker_config(json.to_string().as_bytes()).unwrap();
    keyring
}

async fn registry() -> Registry {
    let registry = Registry::start().await;
    let layers = ["one", "two", "three"].map(|name| Tar::new().file(name, name).finish());
    registry.push("secret", &Contents::of(layers.into()));
    registry.state.wants_token.store(true, Ordering::Relaxed);
    registry.state.wants_user.store(true, Ordering::Relaxed);
    registry
}

#[tokio::test]
async fn tokens_are_for_users_where_the_registry_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry().await;
    let store = registry.store(dir.path());
    let denied = |keyring: Keyring| {
        let store = store.clone();
        async move {
            let error = store.pull(&image("secret"), &keyring).await.unwrap_err();
            let PullError::Denied { user, .. } = &error else { panic!("{error}") };
            (user.clone(), error.hint())
        }
    };
    let (user, hint) = denied(Keyring::default()).await;
    assert!(user.is_none() && hint.contains("imagePullSecrets"), "{hint}");
    assert_eq!(denied(keyring(HOST, "wrong")).await.0.as_deref(), Some("u"));
    assert_eq!(denied(keyring("other.test", "p")).await.0, None, "not this registry's");
    // Of several, the one that is right.
    let mut several = keyring(HOST, "wrong");
    several.add_docker_cfg(format!(r#"{{"{HOST}":{{"auth":"dTpw"}}}}"#).as_bytes()).unwrap();
    store.pull(&image("secret"), &several).await.unwrap();
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry().await;
    registry.state.token_uses.store(2, Ordering::Relaxed);
    let store = registry.store(dir.path());
    store.pull(&image("secret"), &keyring(HOST, "p")).await.unwrap();
    // A manifest, a configuration and three layers.
    assert_eq!(registry.state.tokens.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_failed_pull_is_not_shared_with_who_has_other_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry().await;
    let store = registry.store(dir.path());
    let (name, right, none) = (image("secret"), keyring(HOST, "p"), Keyring::default());
    let (without, with) = tokio::join!(store.pull(&name, &none), store.pull(&name, &right));
    assert!(matches!(without, Err(PullError::Denied { .. })));
    with.unwrap();
}
