//! Which programs of the machine the tests drive.

use std::path::Path;

/// The oldest kubectl that the tests know, which goes by OpenAPI version 2 as protobuf, and the newest,
/// which goes by version 3.
const KUBECTLS: [&str; 2] =
    ["/usr/lib/google-cloud-sdk/bin/kubectl.1.27", "/usr/lib/google-cloud-sdk/bin/kubectl.1.33"];

/// Those that are there; on other machines the one of the distribution.
pub(crate) fn programs() -> Vec<&'static str> {
    let mut found: Vec<&str> =
        KUBECTLS.into_iter().filter(|path| Path::new(path).exists()).collect();
    if found.is_empty() {
        found.push("kubectl");
    }
    found
}
