//! Kubernetes quantities (`500m`, `1.5Gi`, `1e3`) as integers, rounded up as the API does.

/// A quantity that does not parse.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{text}\" is not a quantity")]
pub struct InvalidQuantity {
    text: String,
}

/// The quantity in whole units, rounded up: bytes of memory, numbers of pods.
///
/// # Errors
/// When `text` is no quantity or exceeds 64 bits.
pub fn units(text: &str) -> Result<i64, InvalidQuantity> {
    scaled(text, 1)
}

/// The quantity in thousandths, rounded up: CPU.
///
/// # Errors
/// When `text` is no quantity or exceeds 64 bits.
pub fn milli_units(text: &str) -> Result<i64, InvalidQuantity> {
    scaled(text, 1000)
}

/// Value as a fraction of two 128-bit integers, so that no suffix loses precision.
fn scaled(text: &str, scale: i128) -> Result<i64, InvalidQuantity> {
    parse(text, scale).ok_or_else(|| InvalidQuantity { text: text.to_owned() })
}

fn parse(text: &str, scale: i128) -> Option<i64> {
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '+' || *c == '-'))))
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at_checked(end)?;
    let (multiplier, divisor) = suffix_factor(suffix)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let below = 10_i128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(divisor)?;
    let above = mantissa.checked_mul(multiplier)?.checked_mul(scale)?;
    let rounded_up = above.checked_add(below - 1)? / below;
    i64::try_from(if negative { -rounded_up } else { rounded_up }).ok()
}

fn suffix_factor(suffix: &str) -> Option<(i128, i128)> {
    let power = |exponent: u32| 1_i128 << (10 * exponent);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (power(1), 1),
        "Mi" => (power(2), 1),
        "Gi" => (power(3), 1),
        "Ti" => (power(4), 1),
        "Pi" => (power(5), 1),
        "Ei" => (power(6), 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, factor) } else { (factor, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_in_kubernetes() {
        for (text, expected) in [
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.5", 1500),
            ("100u", 1),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("-1", -1000),
        ] {
            assert_eq!(milli_units(text), Ok(expected), "{text}");
        }
        assert_eq!(units("64Mi"), Ok(64 << 20));
        assert_eq!(units("1.5Gi"), Ok(3 << 29));
        assert_eq!(units("128974848"), Ok(128_974_848));
        assert_eq!(units("100m"), Ok(1));
        for text in ["", "x", "1.2.3", "1 Gi", "1KiB", "--1", "1e", "9999999999999Ei", "é"] {
            assert!(units(text).is_err(), "{text}");
        }
    }
}
