//! Pull, verify, unpack and collect OCI images.
//!
//! A store is one directory: unpacked layers named by their digests, and one record per image
//! name. Whatever is there under its final name is complete. Nothing here runs an image or knows
//! who needs it.

mod auth;
mod digest;
mod error;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

pub use digest::{BadDigest, Digest};
pub use error::{PullError, StoreError};
pub use manifest::{ImageConfig, parse as parse_manifest};
pub use pull::DOWNLOAD_ATTEMPTS;
pub use reference::{
    BadImageRef, DEFAULT_REGISTRY, DEFAULT_TAG, ImageRef, MAX_NAME_BYTES, MAX_TAG_BYTES,
};
pub use registry::{
    BadRegistry, IDLE_TIMEOUT, MAX_DOCUMENT_BYTES, MAX_REDIRECTS, RESPONSE_TIMEOUT, RegistryConfig,
};
pub use store::{Image, ImageStore, MAX_PULLS};
pub use unpack::{MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_PATH_DEPTH, UnpackError, unpack};
