//! Which of an index's images this machine can run, and which of those it runs best.
//!
//! Names are Go's, with the variants of the OCI image specification ("image-index.md"). Nothing here
//! reads a document.

use serde::Deserialize;

/// A platform as an index or a configuration names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// What a machine runs: its architecture, and the variants of it, the best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    architecture: &'static str,
    variants: &'static [&'static str],
}

const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
const AMD64: [&str; 4] = ["v4", "v3", "v2", "v1"];

impl Host {
    /// This machine.
    pub(crate) fn this() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self { architecture: "amd64", variants: from(&AMD64, amd64_level()) },
            "arm" => {
                let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                Self { architecture: "arm", variants: from(&ARM, arm_level(&processors)) }
            }
            "aarch64" => Self { architecture: "arm64", variants: &["v8"] },
            "riscv64" => Self { architecture: "riscv64", variants: &[""] },
            "powerpc64" => Self { architecture: "ppc64le", variants: &[""] },
            "x86" => Self { architecture: "386", variants: &[""] },
            other => Self { architecture: other, variants: &[""] },
        }
    }

    /// How well an image of this platform runs here, 0 best; `None` when it does not.
    pub(crate) fn rank(&self, platform: &Platform) -> Option<usize> {
        let (architecture, variant) = normal(platform);
        if platform.os != "linux" || architecture != self.architecture {
            return None;
        }
        self.variants.iter().position(|known| *known == variant)
    }

    /// Whether an image whose configuration says this can run here. What it leaves out is no obstacle:
    /// old tools write no platform at all.
    pub(crate) fn fits(&self, platform: &Platform) -> bool {
        let linux = matches!(platform.os.as_str(), "" | "linux");
        let (architecture, variant) = normal(platform);
        let variant_fits = platform.variant.as_deref().is_none_or(str::is_empty)
            || self.variants.contains(&variant);
        linux && (architecture.is_empty() || (architecture == self.architecture && variant_fits))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        match self.architecture {
            "arm" => write!(f, "/{}", self.variants.first().copied().unwrap_or_default()),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

/// Architecture and variant in one spelling; a variant left out is the one that everybody has.
fn normal(platform: &Platform) -> (&str, &str) {
    let variant = platform.variant.as_deref().unwrap_or_default();
    match (platform.architecture.as_str(), variant) {
        ("amd64" | "x86_64" | "x86-64", "") => ("amd64", "v1"),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("arm64" | "aarch64", "" | "8") => ("arm64", "v8"),
        ("aarch64", variant) => ("arm64", variant),
        ("arm", "" | "7") | ("armhf", _) => ("arm", "v7"),
        ("arm", "8") => ("arm", "v8"),
        ("arm", "6") | ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("i386", variant) => ("386", variant),
        other => other,
    }
}

/// The list from this variant on; all of it is lower.
fn from(variants: &'static [&'static str], best: &str) -> &'static [&'static str] {
    let at = variants.iter().position(|variant| *variant == best).unwrap_or(variants.len() - 1);
    variants.get(at..).unwrap_or_default()
}

/// Of `/proc/cpuinfo`. Version 6 is told there as 7, and right in the model's name.
fn arm_level(processors: &str) -> &'static str {
    let value = |key: &str| {
        let line = processors.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    if value("model name").is_some_and(|name| name.starts_with("ARMv6")) {
        return "v6";
    }
    match value("CPU architecture") {
        Some("8" | "AArch64") => "v8",
        Some("7") => "v7",
        Some("6") => "v6",
        _ => "v5",
    }
}

/// The x86-64 psABI's levels, by the features that make them.
fn amd64_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let second = has!("sse4.2") && has!("ssse3") && has!("popcnt") && has!("cmpxchg16b");
        let third = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("lzcnt");
        let fourth = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        if second && third && fourth {
            return "v4";
        }
        if second && third {
            return "v3";
        }
        if second {
            return "v2";
        }
    }
    "v1"
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI: &str = "model name\t: ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7\n";

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut next = || parts.next().map(str::to_owned);
        Platform { os: next().unwrap(), architecture: next().unwrap(), variant: next() }
    }

    #[test]
    fn the_best_variant_wins_and_a_higher_one_is_none() {
        let v7 =
            Host { architecture: "arm", variants: from(&ARM, arm_level("CPU architecture: 7\n")) };
        let rank = |text: &str| v7.rank(&platform(text));
        assert_eq!(rank("linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm"), Some(0));
        assert_eq!(rank("linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v5"), Some(2));
        for other in ["linux/arm/v8", "linux/arm64", "linux/amd64", "windows/arm/v7"] {
            assert_eq!(rank(other), None, "{other}");
        }
        assert_eq!(v7.to_string(), "linux/arm/v7");
        let v6 = Host { architecture: "arm", variants: from(&ARM, arm_level(PI)) };
        assert_eq!(v6.rank(&platform("linux/arm")), None);
        let arm64 = Host { architecture: "arm64", variants: &["v8"] };
        for own in ["linux/arm64", "linux/arm64/v8", "linux/aarch64"] {
            assert_eq!(arm64.rank(&platform(own)), Some(0), "{own}");
        }
        let amd64 = Host { architecture: "amd64", variants: from(&AMD64, "v2") };
        assert_eq!(amd64.rank(&platform("linux/amd64/v2")), Some(0));
        assert_eq!(amd64.rank(&platform("linux/amd64")), Some(1));
        assert_eq!(amd64.rank(&platform("linux/amd64/v3")), None);
    }

    #[test]
    fn a_configuration_may_leave_its_platform_out() {
        let host = Host { architecture: "arm64", variants: &["v8"] };
        for (text, fits) in [
            ("/", true),
            ("linux/", true),
            ("linux/arm64", true),
            ("linux/arm64/v8", true),
            ("linux/arm64/v9", false),
            ("linux/amd64", false),
            ("windows/arm64", false),
        ] {
            assert_eq!(host.fits(&platform(text)), fits, "{text}");
        }
    }

    #[test]
    fn this_machine_runs_its_own_kind() {
        let host = Host::this();
        let own = Platform {
            os: "linux".into(),
            architecture: host.architecture.into(),
            variant: host.variants.last().map(|it| (*it).to_owned()),
        };
        assert!(host.fits(&own) && host.rank(&own).is_some());
    }
}
