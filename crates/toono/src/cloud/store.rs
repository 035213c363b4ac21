//! Opening the store that the command line asks for, and saying what is wrong when it does not open.

pub(crate) mod shared;

use std::{fs, path::Path, sync::Arc};

use rustls::ClientConfig;
use toono_http::client::Endpoint;
use toono_pki::Issued;
use toono_store::{EtcdConfig, OpenError, Store, StoreConfig};

use crate::{
    cloud::cli::{StoreArgs, StoreKind},
    failure::Failure,
};

/// Opens it; the journal's directory is `dir`.
pub(crate) async fn open(args: &StoreArgs, dir: &Path) -> Result<Store, Failure> {
    match &args.store {
        StoreKind::Journal => open_journal(args, dir),
        StoreKind::Etcd(endpoints) => connect(args, endpoints).await,
    }
}

fn open_journal(args: &StoreArgs, dir: &Path) -> Result<Store, Failure> {
    let config = StoreConfig { history: args.compaction_interval, ..StoreConfig::new(dir) };
    let opened = tokio::task::block_in_place(|| Store::open(config));
    let (store, recovery) = opened.map_err(|error| {
        let code = match &error {
            OpenError::Taken { .. } => "data-taken",
            OpenError::Damaged { .. } => "store-damaged",
            _ => "store-failed",
        };
        Failure::caused(code, &error, error.hint())
    })?;
    if let Some(cut) = &recovery.tail_cut {
        tracing::warn!(
            file = %cut.file.display(),
            offset = cut.offset,
            bytes = cut.bytes,
            "the journal's end was no whole record and was cut off"
        );
    }
    Ok(store)
}

async fn connect(args: &StoreArgs, endpoints: &[Endpoint]) -> Result<Store, Failure> {
    let defaults = EtcdConfig::new(endpoints.to_vec(), etcd_tls(args)?);
    let config = EtcdConfig { history: args.compaction_interval, ..defaults };
    let (store, recovery) = Store::connect(config)
        .await
        .map_err(|error| Failure::caused("etcd-failed", &error, error.hint()))?;
    tracing::info!(revision = recovery.revision.0, "read everything from etcd");
    Ok(store)
}

fn etcd_tls(args: &StoreArgs) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let Some(ca) = &args.etcd_cafile else { return Ok(None) };
    let own = match (&args.etcd_certfile, &args.etcd_keyfile) {
        (Some(cert), Some(key)) => Some(Issued { cert_pem: read(cert)?, key_pem: read(key)? }),
        _ => None,
    };
    let config = toono_pki::client_config(&read(ca)?, own.as_ref()).map_err(|error| {
        Failure::caused("etcd-tls", &error, "look at the files given with --etcd-cafile and so on")
    })?;
    Ok(Some(config))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::new(
            "etcd-tls",
            format!("cannot read {}: {error}", path.display()),
            "give a PEM file that this user may read",
        )
    })
}
