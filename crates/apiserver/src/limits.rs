//! What one request may cost: every limit of the server, with its reason.

use std::time::Duration;

/// Most bytes of a request body; Kubernetes' own limit.
pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Most memory that a body of YAML may become, aliases repeated: some times what a body of that size
/// is without aliases.
pub const YAML_MAX_BYTES: usize = 16 * BODY_MAX_BYTES;
/// Most brackets that may be open at once in a body of YAML, and lists that may begin on one line. Objects
/// nest 128 deep at most; a text in one may well have a bracket that nothing closes.
pub const YAML_MAX_NESTING: usize = 1000;
/// A body must have arrived within this time; a slow link moves 3 MiB in it at 50 KB/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Most watches at once. Nodes do not watch, so these are people, controllers and whatever runs in pods.
/// Each costs some 10 KB, and one over the network a file descriptor, of which there are fewer on most
/// machines.
pub const WATCHES_MAX: usize = 50_000;
/// A watch without `timeoutSeconds` ends after this long, as Kubernetes ends them after 30 to 60
/// minutes, so that clients spread over restarted servers again.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// The longest `timeoutSeconds` of a watch that is granted.
pub const WATCH_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a watch that asked for bookmarks gets one at most; Kubernetes sends them each minute.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(55);
/// How many stored objects a filtered list looks at before it asks the store again.
pub const LIST_CHUNK: usize = 500;
/// Bytes of a long list that are written before they are sent on.
pub const LIST_CHUNK_BYTES: usize = 128 * 1024;
/// How often a patch or unconditional update is tried anew after another write came first.
pub const CONFLICT_RETRIES: usize = 8;
/// How often a generated name that is taken is replaced by another.
pub const GENERATE_NAME_RETRIES: usize = 8;
/// How often the objects of a custom kind that is going away are looked at again.
pub const CUSTOM_KIND_SWEEP: Duration = Duration::from_millis(500);
