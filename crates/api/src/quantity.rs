//! Resource quantities: parse, compare, print in canonical form.
//!
//! The grammar is that of Kubernetes' `resource.Quantity`: a decimal number and a suffix, which is
//! a binary multiple (`Ki`…`Ei`), a decimal one (`n u m k M G T P E`) or an exponent (`e3`).

use std::{cmp::Ordering, fmt, str::FromStr};

/// Finest step that is kept; what is finer is rounded up.
const NANO: i128 = 1_000_000_000;
/// Longest text that is parsed: no amount that means something is longer.
const MAX_TEXT_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// An amount of a resource, kept in billionths. Equality and order are by amount alone.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// This many thousandths, as cpu is counted.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * 1_000_000, format: Format::DecimalSi }
    }

    /// This many bytes; prints with binary suffixes.
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// The amount in thousandths, rounded up (cpu).
    #[must_use]
    pub fn millis(self) -> i64 {
        saturate(div_up(self.nanos, 1_000_000))
    }

    /// The amount in whole units, rounded up (bytes, pods).
    #[must_use]
    pub fn units(self) -> i64 {
        saturate(div_up(self.nanos, NANO))
    }

    /// Whether the amount is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The sum; keeps this amount's way of printing.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), format: self.format }
    }

    /// The difference; keeps this amount's way of printing.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), format: self.format }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
}

fn saturate(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as Kubernetes rounds what it cannot represent.
fn div_up(amount: i128, by: i128) -> i128 {
    let whole = amount / by;
    if amount % by == 0 { whole } else { whole + amount.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// What a suffix multiplies by: a factor and a power of ten.
fn multiplier(suffix: &str) -> Option<(i128, i32, Format)> {
    let binary = |shift: u32| Some((1i128 << shift, 0, Format::BinarySi));
    let decimal = |exponent: i32| Some((1, exponent, Format::DecimalSi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            (exponent.abs() <= 18).then_some((1, exponent, Format::DecimalExponent))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParseQuantityError);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end =
            unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (factor, exponent, format) = multiplier(suffix).ok_or(ParseQuantityError)?;
        // amount in nanos = digits × factor × 10^(exponent - fraction digits + 9)
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| ParseQuantityError)?;
        let scaled = digits.checked_mul(factor).ok_or(ParseQuantityError)?;
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_| ParseQuantityError)?;
        let power = exponent + 9 - fraction_digits;
        let ten = 10i128.checked_pow(power.unsigned_abs()).ok_or(ParseQuantityError)?;
        let nanos = if power >= 0 {
            scaled.checked_mul(ten).ok_or(ParseQuantityError)?
        } else {
            div_up(scaled, ten)
        };
        let nanos = if text.starts_with('-') { -nanos } else { nanos };
        Ok(Self { nanos, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        match self.format {
            Format::BinarySi if !small => self.write_binary(f),
            Format::DecimalExponent => self.write_decimal(f, &EXPONENTS),
            _ => self.write_decimal(f, &DECIMALS),
        }
    }
}

const DECIMALS: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const EXPONENTS: [&str; 10] = ["e-9", "e-6", "e-3", "", "e3", "e6", "e9", "e12", "e15", "e18"];
const BINARIES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// The largest suffix that leaves a whole number.
    fn write_decimal(self, f: &mut fmt::Formatter<'_>, suffixes: &[&str; 10]) -> fmt::Result {
        write_reduced(f, self.nanos, 1000, suffixes)
    }

    fn write_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_reduced(f, div_up(self.nanos, NANO), 1024, &BINARIES)
    }
}

fn write_reduced(
    f: &mut fmt::Formatter<'_>,
    mut amount: i128,
    base: i128,
    suffixes: &[&str],
) -> fmt::Result {
    let mut steps = suffixes.iter().peekable();
    while let Some(suffix) = steps.next() {
        if amount % base != 0 || steps.peek().is_none() {
            return write!(f, "{amount}{suffix}");
        }
        amount /= base;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100Mi", "100Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000k", "1M"),
            ("512", "512"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("128974848", "128974848"),
            ("-1Mi", "-1Mi"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("2048Ki", "2Mi"),
            ("100", "100"),
            ("110", "110"),
        ] {
            assert_eq!(
                text.parse::<Quantity>().map(|q| q.to_string()),
                Ok(canonical.to_owned()),
                "{text}"
            );
        }
        for bad in ["", "m", "1x", "1.2.3", "--1", "1 Gi", "1e99", "1Kib", "NaN"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn order_is_by_amount() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("1Gi"), parse("1073741824"));
        assert!(parse("1G") < parse("1Gi"));
        assert!(parse("999m") < parse("1"));
        assert_eq!(parse("1.0001").millis(), 1001);
        assert_eq!(parse("2Ki").units(), 2048);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(whole in 0u32.., fraction in 0u32..1000, suffix in
            prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "e3"])) {
            let text = format!("{whole}.{fraction:03}{suffix}");
            let first: Quantity = text.parse().unwrap();
            let again: Quantity = first.to_string().parse().unwrap();
            // Binary forms round up to whole units, and one that has no binary suffix reads as a decimal
            // one: compare amounts after the first print.
            let third: Quantity = again.to_string().parse().unwrap();
            prop_assert_eq!(third, again);
            prop_assert!(again >= first);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
