//! Requests and limits as the kernel takes them, by the kubelet's formulas.

use k8s_openapi::api::core::v1::{Container, Pod};
use toono_api::Quantity;
use toono_sandbox::Resources;

use super::ConfigError;

/// The kernel's least weight.
const MIN_SHARES: i64 = 2;
/// The kernel's least quota, in microseconds.
const MIN_QUOTA_US: i64 = 1000;
/// The length of a quota's period, in microseconds.
const PERIOD_US: i64 = 100_000;

/// The limits of a container.
pub(super) fn of(
    pod: &Pod,
    container: &Container,
    memory_capacity: u64,
) -> Result<Resources, ConfigError> {
    let amount = |limits: bool, name: &str| -> Result<Option<Quantity>, ConfigError> {
        let Some(resources) = &container.resources else { return Ok(None) };
        let list = if limits { &resources.limits } else { &resources.requests };
        let Some(text) = list.as_ref().and_then(|list| list.get(name)) else { return Ok(None) };
        let bad = |_| ConfigError(format!("{name}: {:?} is not a quantity", text.0));
        text.0.parse().map(Some).map_err(bad)
    };
    let cpu_limit = amount(true, "cpu")?.map(|it: Quantity| it.millis()).filter(|it| *it > 0);
    let cpu_request = amount(false, "cpu")?.map(|it: Quantity| it.millis());
    let memory_limit = amount(true, "memory")?.map(|it: Quantity| it.units()).filter(|it| *it > 0);
    let memory_request = amount(false, "memory")?.map(|it: Quantity| it.units());
    let weight = cpu_request.or(cpu_limit).unwrap_or(0);
    let shares = weight.saturating_mul(1024).checked_div(1000).unwrap_or(0).max(MIN_SHARES);
    let quota = cpu_limit.map(|millis| (millis.saturating_mul(PERIOD_US) / 1000).max(MIN_QUOTA_US));
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    Ok(Resources {
        cpu_shares: u64::try_from(shares).ok(),
        cpu_quota_us: quota,
        memory_bytes: memory_limit,
        pids: None,
        oom_score_adj: Some(oom_score(class, memory_request.or(memory_limit), memory_capacity)),
    })
}

/// Who dies first when the node's memory runs out.
fn oom_score(class: Option<&str>, request: Option<i64>, capacity: u64) -> i32 {
    match class {
        Some("Guaranteed") => -997,
        Some("Burstable") => {
            let request = u64::try_from(request.unwrap_or(0)).unwrap_or(0);
            let share = request.saturating_mul(1000).checked_div(capacity).unwrap_or(0);
            i32::try_from(1000u64.saturating_sub(share)).unwrap_or(1000).clamp(3, 999)
        }
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas() {
        for (resources, shares, quota, memory) in [
            (serde_json::json!({}), 2, None, None),
            (serde_json::json!({"requests": {"cpu": "250m"}}), 256, None, None),
            (
                serde_json::json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}),
                1536,
                Some(150_000),
                Some(64 << 20),
            ),
            (
                serde_json::json!({"limits": {"cpu": "1m"}, "requests": {"cpu": "1m"}}),
                2,
                Some(1000),
                None,
            ),
        ] {
            let container = serde_json::json!({"name": "c", "resources": resources});
            let container: Container = serde_json::from_value(container).unwrap();
            let made = of(&Pod::default(), &container, 1 << 30).unwrap();
            assert_eq!(made.cpu_shares, Some(shares), "{resources}");
            assert_eq!((made.cpu_quota_us, made.memory_bytes), (quota, memory), "{resources}");
        }
    }

    #[test]
    fn the_greediest_dies_first() {
        let gib = 1 << 30;
        assert_eq!(oom_score(Some("Guaranteed"), Some(1), gib), -997);
        assert_eq!(oom_score(Some("BestEffort"), None, gib), 1000);
        assert_eq!(oom_score(Some("Burstable"), Some(1 << 29), gib), 500);
        assert_eq!(oom_score(Some("Burstable"), None, gib), 999);
        assert_eq!(oom_score(Some("Burstable"), Some(1 << 30), gib), 3);
    }
}
