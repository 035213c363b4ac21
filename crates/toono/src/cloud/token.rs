//! `toono token`: bootstrap tokens, kept as kubeadm keeps them, in Secrets of kube-system.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use toono_pki::BootstrapToken;

use crate::{
    cloud::{
        cli::{ClientArgs, TokenArgs, TokenCommand},
        kubeconfig::{self, unreachable},
    },
    failure::Failure,
    table::Table,
};

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAME_PREFIX: &str = "bootstrap-token-";

pub(crate) async fn run(args: &TokenArgs) -> Result<(), Failure> {
    match &args.command {
        TokenCommand::Create { client, ttl_hours } => create(client, *ttl_hours).await,
        TokenCommand::Ls { client } => list(client).await,
        TokenCommand::Rm { client, token } => remove(client, token).await,
    }
}

async fn create(args: &ClientArgs, ttl_hours: u32) -> Result<(), Failure> {
    let token = BootstrapToken::generate().ok_or_else(no_randomness)?;
    let expires = (ttl_hours > 0)
        .then(|| Timestamp::now() + SignedDuration::from_hours(i64::from(ttl_hours)));
    let client = kubeconfig::client(args).await?;
    ensure(&client, &token, expires).await.map_err(|error| unreachable(&error))?;
    let (url, pin) = kubeconfig::server_and_pin(args)?;
    eprintln!("On the machine that joins, as root:\n");
    println!("toono node --server {url} --token {token} --ca-cert-hash {pin}");
    Ok(())
}

async fn list(args: &ClientArgs) -> Result<(), Failure> {
    let client = kubeconfig::client(args).await?;
    let secrets = Api::<Secret>::namespaced(client, NAMESPACE)
        .list(&ListParams::default())
        .await
        .map_err(|error| unreachable(&error))?;
    let mut table = Table::new(["ID", "EXPIRES"]);
    for secret in secrets.items.iter().filter(|s| s.type_.as_deref() == Some(SECRET_TYPE)) {
        let value = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        table.row([
            value("token-id").unwrap_or_else(|| "-".into()),
            value("expiration").unwrap_or_else(|| "never".into()),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

async fn remove(args: &ClientArgs, token: &str) -> Result<(), Failure> {
    let id = token.split('.').next().unwrap_or_default();
    let client = kubeconfig::client(args).await?;
    Api::<Secret>::namespaced(client, NAMESPACE)
        .delete(&format!("{NAME_PREFIX}{id}"), &DeleteParams::default())
        .await
        .map_err(|error| match &error {
            kube::Error::Api(status) if status.is_not_found() => Failure::new(
                "no-such-token",
                format!("there is no token {id}"),
                "toono token ls shows those that exist",
            ),
            _ => unreachable(&error),
        })?;
    println!("token {id} deleted");
    Ok(())
}

/// Makes the token's Secret unless it exists.
pub(crate) async fn ensure(
    client: &Client,
    token: &BootstrapToken,
    expires: Option<Timestamp>,
) -> Result<(), kube::Error> {
    let mut data = BTreeMap::from([
        ("token-id", token.id().to_owned()),
        ("token-secret", token.secret().to_owned()),
        ("usage-bootstrap-authentication", "true".to_owned()),
    ]);
    if let Some(at) = expires {
        data.insert("expiration", at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    let bytes = |(key, value): (&str, String)| (key.to_owned(), ByteString(value.into_bytes()));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("{NAME_PREFIX}{}", token.id())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(data.into_iter().map(bytes).collect()),
        ..Secret::default()
    };
    let api = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    match api.create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        created => created.map(|_| ()),
    }
}

/// What to say when the system gives no random bytes.
pub(crate) fn no_randomness() -> Failure {
    Failure::new("no-randomness", "the system gives no random bytes", "is /dev/urandom there?")
}
