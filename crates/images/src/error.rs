//! Why an image could not be had.

use std::{io, path::PathBuf, sync::Arc};

use toono_http::client::ClientError;

use crate::{digest::Digest, reference::ImageRef, unpack::UnpackError};

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
    /// The registry wants credentials, or refuses the anonymous ones.
    #[error("{image}: {endpoint} does not let anonymous clients pull it")]
    Denied {
        /// The image.
        image: Box<ImageRef>,
        /// The registry's address.
        endpoint: String,
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
    #[error("{image}: there is no linux/{wanted} image, only {}", found.join(", "))]
    NoSuchPlatform {
        /// The image.
        image: Box<ImageRef>,
        /// This machine's architecture.
        wanted: &'static str,
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

/// Why the store's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the image store {}", path.display())]
pub struct StoreError {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}
