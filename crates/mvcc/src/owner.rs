//! Who an object belongs to. It must not decide what an owner may do.

use std::fmt;
use std::sync::Arc;

const PLATFORM: &str = "platform";

/// The tenant that an object belongs to; `platform` for all that the platform itself made. Set when
/// the object is created, kept beside its key, never changed by a later write.
///
/// One word in memory, as every version of every object holds one. `None` is the platform, which
/// therefore costs no allocation and no shared counter; [`Table`](crate::Table) makes the objects of
/// one tenant share one text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Option<Arc<Box<str>>>);

impl Owner {
    /// The platform itself.
    pub const PLATFORM: Self = Self(None);

    /// The tenant of this name; `""` and `"platform"` are the platform.
    #[must_use]
    pub fn new(name: &str) -> Self {
        match name {
            "" | PLATFORM => Self::PLATFORM,
            name => Self(Some(Arc::new(name.into()))),
        }
    }

    /// The name of the tenant, or `platform`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or(PLATFORM, |name| name)
    }

    /// Whether this is the platform itself.
    #[must_use]
    pub fn is_platform(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
