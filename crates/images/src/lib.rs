//! Pull, verify, unpack, import and collect OCI images.
//!
//! A store is one directory: unpacked layers named by their digests, and one record per image
//! name. Whatever is there under its final name is complete. Nothing here runs an image or knows
//! who needs it.

mod archive;
mod auth;
mod collect;
mod compression;
mod digest;
mod download;
mod error;
mod import;
mod kept;
mod keyring;
mod layer;
mod manifest;
mod neighbours;
mod platform;
mod pull;
mod reference;
mod registries;
mod registry;
mod space;
mod store;
mod tls;
mod unpack;

pub use archive::MAX_ARCHIVE_ENTRIES;
pub use collect::{Collected, Collector, InUse, PARTIAL_AGE, UNUSED_AGE, Watermarks};
pub use compression::{MAX_ZSTD_WINDOW_BYTES, decompressed};
pub use digest::{BadDigest, Digest};
pub use download::DOWNLOAD_ATTEMPTS;
pub use error::{ImportError, PullError, StoreError};
pub use kept::{BlobReader, KEPT_AGE, KEPT_BYTES};
pub use keyring::{BadPullSecret, Credentials, Keyring};
pub use manifest::{ImageConfig, parse as parse_manifest};
pub use neighbours::{Answer, Found, NEIGHBOUR_PATIENCE, Neighbours, NotServed};
pub use reference::{
    BadImageRef, DEFAULT_REGISTRY, DEFAULT_TAG, ImageRef, MAX_NAME_BYTES, MAX_TAG_BYTES,
};
pub use registries::{BadRegistry, BadRegistryFile, RegistryConfig};
pub use registry::{IDLE_TIMEOUT, MAX_DOCUMENT_BYTES, MAX_REDIRECTS, RESPONSE_TIMEOUT};
pub use space::{RESERVE_BYTES, Space};
pub use store::{Image, ImageStore, MAX_PULLS};
pub use tls::BadTlsFile;
pub use unpack::{MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_PATH_DEPTH, UnpackError, unpack};
