//! What all servers of one cluster must have alike: the CA, the key of service accounts' tokens, the
//! cluster secret, the token that nodes join with. They find it in the store that they share, sealed with
//! the token that the operator gives to each of them. All but the secret, which has epochs, is written once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use toono_pki::SealError;
use toono_store::{CommitError, Draft, Entry, Expect, Key, Op, Owner, Rev, Store, Txn};

use crate::{
    cloud::{kubeconfig, secret},
    failure::Failure,
};

/// Texts by the names of [`FILES`].
pub(crate) type Files = BTreeMap<String, String>;

/// The files, below the data directory. A CA's certificate comes last: it means that the pair is whole.
const FILES: [&str; 5] =
    [secret::FILE_NAME, "node-token", "pki/sa.key", "pki/ca.key", "pki/ca.crt"];
/// A passphrase that can be guessed protects nothing.
pub(crate) const TOKEN_MIN_BYTES: usize = 16;
const ENTRY: &str = "sealed";

/// Where they are kept: no kind can have this group, so no client of the API sees it.
fn key() -> Key {
    Key::new("_toono", "shared", "", "credentials")
}

/// The files that this server has or that `make` makes become the cluster's, or the cluster's become this
/// server's. Without a token only a server whose cluster shares nothing may go on.
pub(crate) async fn settle(
    store: &Store,
    dir: &Path,
    token: Option<&str>,
    make: impl Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(token) = token else {
        return match found(store).await? {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                "token-needed",
                "the servers of this cluster share their credentials, sealed with a token",
                "give the same token as the other servers have, with --token or --token-file",
            )),
        };
    };
    if let Some(entry) = found(store).await? {
        return adopt(dir, &unsealed(&entry, token)?);
    }
    let new: Vec<PathBuf> =
        FILES.iter().map(|file| dir.join(file)).filter(|path| !path.exists()).collect();
    make()?;
    if publish(store, dir, token).await? {
        tracing::info!("this server's credentials are now the cluster's");
        return Ok(());
    }
    // Another server was quicker: what was made a moment ago was never used.
    for path in new {
        fs::remove_file(&path).map_err(|error| unusable(&path, &error))?;
    }
    match found(store).await? {
        Some(entry) => adopt(dir, &unsealed(&entry, token)?),
        None => Err(store_failure(&"another server wrote the credentials, and they are not there")),
    }
}

async fn found(store: &Store) -> Result<Option<Entry>, Failure> {
    store.current().await.map_err(|error| store_failure(&error))?;
    store.get(&key(), None).map_err(|error| store_failure(&error))
}

/// Writes this server's files into the store; whether no other server did.
async fn publish(store: &Store, dir: &Path, token: &str) -> Result<bool, Failure> {
    let mut files = Files::new();
    for file in FILES {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).map_err(|error| unusable(&path, &error))?;
        files.insert(file.to_owned(), text);
    }
    Ok(write(store, token, &files, Expect::Absent).await?.is_some())
}

/// Which version of the files the store has, if any: a look into memory.
pub(crate) fn version(store: &Store) -> Result<Option<Rev>, Failure> {
    let entry = store.get(&key(), None).map_err(|error| store_failure(&error))?;
    Ok(entry.map(|entry| entry.modified))
}

/// The files that the store has, and their version. To unseal them takes a tenth of a second.
pub(crate) fn read(store: &Store, token: &str) -> Result<Option<(Rev, Files)>, Failure> {
    let entry = store.get(&key(), None).map_err(|error| store_failure(&error))?;
    let Some(entry) = entry else { return Ok(None) };
    let files = tokio::task::block_in_place(|| unsealed(&entry, token))?;
    Ok(Some((entry.modified, files)))
}

/// Writes them in place of that version; the new one, or none when another server was quicker.
pub(crate) async fn replace(
    store: &Store,
    token: &str,
    files: &Files,
    version: Rev,
) -> Result<Option<Rev>, Failure> {
    write(store, token, files, Expect::At(version)).await
}

async fn write(
    store: &Store,
    token: &str,
    files: &Files,
    expect: Expect,
) -> Result<Option<Rev>, Failure> {
    let text = json!(files).to_string();
    let sealed = tokio::task::block_in_place(|| toono_pki::seal(token, text.as_bytes()));
    let sealed = STANDARD.encode(sealed.map_err(seal_failure)?);
    let value = Draft::new(
        "{\"metadata\":{\"resourceVersion\":\"".to_owned(),
        format!("\"}},\"{ENTRY}\":\"{sealed}\"}}"),
    );
    let op = Op::Put { key: key(), value, owner: Owner::PLATFORM };
    let txn = Txn { guards: Vec::new(), ops: vec![(expect, op)] };
    match store.commit(txn).await {
        Ok(written) => Ok(Some(written.rev)),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(error) => Err(store_failure(&error)),
    }
}

fn unsealed(entry: &Entry, token: &str) -> Result<Files, Failure> {
    let value: Option<Value> = serde_json::from_slice(&entry.value).ok();
    let sealed = value.as_ref().and_then(|value| value.get(ENTRY)).and_then(Value::as_str);
    let sealed = sealed.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let plain = toono_pki::unseal(token, &sealed).map_err(seal_failure)?;
    serde_json::from_slice(&plain).map_err(|_| seal_failure(SealError::Form))
}

/// Puts the cluster's files in place. A server that has others is one of another cluster; the secret alone may
/// have had another epoch since this server was here last.
fn adopt(dir: &Path, files: &Files) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for file in FILES {
        let path = dir.join(file);
        let text = files.get(file).ok_or_else(|| seal_failure(SealError::Form))?;
        match fs::read_to_string(&path) {
            Ok(own) if own == *text => {}
            Ok(_) if file == secret::FILE_NAME => missing.push((path, text)),
            Ok(_) => {
                return Err(Failure::new(
                    "other-cluster",
                    format!("{} is not that of the cluster in this store", path.display()),
                    "give an empty directory with --data, or the store of this server's cluster",
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                missing.push((path, text));
            }
            Err(error) => return Err(unusable(&path, &error)),
        }
    }
    for (path, text) in missing {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| kubeconfig::write(&path, text))
            .map_err(|error| unusable(&path, &error))?;
    }
    Ok(())
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        "data-dir",
        format!("cannot use {}: {error}", path.display()),
        "check the directory's permissions and free space",
    )
}

fn store_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "store-failed",
        format!("cannot share the cluster's credentials: {error}"),
        "look at the store",
    )
}

fn seal_failure(error: SealError) -> Failure {
    let hint = match error {
        SealError::NoRandomness => "is /dev/urandom there?",
        _ => "give the token that the cluster's first server had, with --token or --token-file",
    };
    Failure::new("token-wrong", format!("cannot read the cluster's credentials: {error}"), hint)
}
