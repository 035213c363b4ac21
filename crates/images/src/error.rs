//! Why an image could not be had.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use toono_http::client::ClientError;

use crate::{
    digest::Digest, reference::ImageRef, registries::BadRegistryFile, tls::BadTlsFile,
    unpack::UnpackError,
};

/// Why a pull failed. Callers that joined one pull get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The registry does not have it.
    #[error("{image}: not found in {endpoint}")]
    NotFound {
        /// The image.
        image: Box<ImageRef>,
        /// The registry's address.
        endpoint: String,
    },
    /// The registry wants credentials, or refuses those that it was given.
    #[error("{image}: {endpoint} does not let {} pull it", who(user.as_deref()))]
    Denied {
        /// The image.
        image: Box<ImageRef>,
        /// The registry's address.
        endpoint: String,
        /// The user that was named, if any was.
        user: Option<String>,
    },
    /// The registry answered, but not with what was asked for.
    #[error("{image}: {endpoint} answered {status}")]
    Status {
        /// The image.
        image: Box<ImageRef>,
        /// The registry's address.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// The registry cannot be reached.
    #[error("{image}: the registry cannot be reached")]
    Unreachable {
        /// The image.
        image: Box<ImageRef>,
        /// The connection's reason.
        source: Arc<ClientError>,
    },
    /// The transfer broke more often than it was tried again.
    #[error("{image}: the transfer from {endpoint} broke: {reason}")]
    Interrupted {
        /// The image.
        image: Box<ImageRef>,
        /// The registry's address.
        endpoint: String,
        /// What broke it.
        reason: String,
    },
    /// What arrived is not what its digest says.
    #[error("{image}: {wanted} has the digest {got}: the registry or the way to it is broken")]
    Corrupted {
        /// The image.
        image: Box<ImageRef>,
        /// What was asked for.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// It exists for other machines only.
    #[error("{image}: there is no {wanted} image, only {}", found.join(", "))]
    NoSuchPlatform {
        /// The image.
        image: Box<ImageRef>,
        /// This machine's platform.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// A document of it cannot be understood.
    #[error("{image}: its {document} is invalid: {reason}")]
    Invalid {
        /// The image.
        image: Box<ImageRef>,
        /// Which.
        document: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A layer is no archive that may be unpacked.
    #[error("{image}: layer {layer} cannot be unpacked")]
    Layer {
        /// The image.
        image: Box<ImageRef>,
        /// Which.
        layer: Digest,
        /// Why.
        source: Arc<UnpackError>,
    },
    /// The disk has no room for it.
    #[error(
        "{image}: no space left for images in {}: {available} bytes may still be taken, {needed} are needed",
        path.display()
    )]
    NoSpace {
        /// The image.
        image: Box<ImageRef>,
        /// The store.
        path: PathBuf,
        /// What images may still take, in bytes.
        available: u64,
        /// What the next step needs at least, in bytes.
        needed: u64,
    },
    /// The node's file of registries.
    #[error("{image}: the node's registries are not set up right")]
    Registries {
        /// The image.
        image: Box<ImageRef>,
        /// What is wrong.
        source: BadRegistryFile,
    },
    /// A certificate or key of the node for a registry.
    #[error("{image}: the node's registries are not set up right")]
    Tls {
        /// The image.
        image: Box<ImageRef>,
        /// What is wrong.
        source: BadTlsFile,
    },
    /// The disk.
    #[error("{image}: cannot write {}", path.display())]
    Disk {
        /// The image.
        image: Box<ImageRef>,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: Arc<io::Error>,
    },
}

impl PullError {
    /// What a person can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the name and the tag, and that it was pushed",
            Self::Denied { user: None, .. } => {
                "check the name, or give the pod imagePullSecrets for this registry"
            }
            Self::Denied { user: Some(_), .. } => {
                "check the name, and the user and password in the pod's imagePullSecrets"
            }
            Self::Status { .. } => "look at the registry's own log",
            Self::Unreachable { .. } => {
                "check the node's link, DNS and certificates; plain HTTP, mirrors and authorities are set in \
                 registries.yaml in the node's data directory"
            }
            Self::Interrupted { .. } => "what has arrived is kept; the next attempt goes on there",
            Self::Corrupted { .. } => "push the image again, or see what changes bytes on the way",
            Self::NoSuchPlatform { .. } => "build and push it for this platform as well",
            Self::Invalid { .. } | Self::Layer { .. } => "build and push the image again",
            Self::NoSpace { .. } => {
                "free the disk: `toono node image ls` lists images, `toono node image rm` removes them"
            }
            Self::Registries { .. } | Self::Tls { .. } => {
                "correct the file; it is read at each pull"
            }
            Self::Disk { .. } => "check the disk and the permissions of the node's data directory",
        }
    }

    /// Whether nothing that a registry could answer would have helped.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Disk { .. } | Self::Registries { .. })
    }

    /// An error of the disk; one that has no room left is told as that.
    pub(crate) fn disk(image: &ImageRef, path: &Path, error: io::Error) -> Self {
        let image = Box::new(image.clone());
        if is_full(&error) {
            return Self::NoSpace { image, path: path.to_owned(), available: 0, needed: 1 };
        }
        Self::Disk { image, path: path.to_owned(), source: Arc::new(error) }
    }
}

/// Whether the disk, or the user's share of it, has no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn who(user: Option<&str>) -> String {
    user.map_or_else(|| "anonymous clients".to_owned(), |user| format!("the user {user:?}"))
}

/// Why the store's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the image store {}", path.display())]
pub struct StoreError {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Why an archive could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither of the two kinds.
    #[error("{} is neither an OCI image layout nor what `docker save` writes", path.display())]
    Unknown {
        /// The archive.
        path: PathBuf,
    },
    /// An image in it has no name.
    #[error("an image in {} has no name", path.display())]
    Nameless {
        /// The archive.
        path: PathBuf,
    },
    /// Layers are being deleted.
    #[error("the image store is being cleared up")]
    Busy,
    /// An image of it.
    #[error(transparent)]
    Image(#[from] PullError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImportError {
    /// What a person can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Archive { source, .. } if is_full(source) => {
                "free the disk of the node's data directory"
            }
            Self::Archive { .. } | Self::Unknown { .. } => {
                "write it with `docker save`, or `skopeo copy ... oci-archive:FILE`"
            }
            Self::Nameless { .. } => "give one with --name",
            Self::Busy => "try again in a moment",
            Self::Image(error) => error.hint(),
            Self::Store(_) => "check the disk and the permissions of the node's data directory",
        }
    }
}
