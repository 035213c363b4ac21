//! Schedules of CronJobs: the five fields of cron, and the names that stand for common ones.
//!
//! Errors are those of the parser that Kubernetes uses, since users read them.

/// When something is due, as sets of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither days nor weekdays are restricted by `*`; then either of them may match.
    days_are_any: bool,
    weekdays_are_any: bool,
    /// `@every`: seconds between two times.
    every_seconds: Option<i64>,
}

/// Bounds of a field, and the names of its values.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds =
    Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// A minute of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 1 to 31.
    pub day: u32,
    /// 1 to 12.
    pub month: u32,
    /// 0 (Sunday) to 6.
    pub weekday: u32,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if text.starts_with('@') {
            return Self::named(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        let (days, days_are_any) = field(days, &DAYS)?;
        let (weekdays, weekdays_are_any) = field(weekdays, &WEEKDAYS)?;
        Ok(Self {
            minutes: field(minutes, &MINUTES)?.0,
            hours: field(hours, &HOURS)?.0,
            days,
            months: field(months, &MONTHS)?.0,
            weekdays,
            days_are_any,
            weekdays_are_any,
            every_seconds: None,
        })
    }

    fn named(text: &str) -> Result<Self, String> {
        match text {
            "@yearly" | "@annually" => Self::parse("0 0 1 1 *"),
            "@monthly" => Self::parse("0 0 1 * *"),
            "@weekly" => Self::parse("0 0 * * 0"),
            "@daily" | "@midnight" => Self::parse("0 0 * * *"),
            "@hourly" => Self::parse("0 * * * *"),
            _ => match text.strip_prefix("@every ") {
                Some(duration) => {
                    let seconds = duration_seconds(duration).ok_or_else(|| {
                        format!(
                            "failed to parse duration {text}: time: invalid duration {duration:?}"
                        )
                    })?;
                    Ok(Self { every_seconds: Some(seconds.max(1)), ..Self::parse("* * * * *")? })
                }
                None => Err(format!("unrecognized descriptor: {text}")),
            },
        }
    }

    /// Whether something is due at the beginning of that minute.
    #[must_use]
    pub fn matches(&self, at: Minute) -> bool {
        let has = |set: u64, value: u32| set & (1 << value) != 0;
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        let on_day = if self.days_are_any || self.weekdays_are_any {
            day && weekday
        } else {
            day || weekday
        };
        on_day
            && has(self.minutes, at.minute)
            && has(self.hours, at.hour)
            && has(self.months, at.month)
    }

    /// Seconds between two times, of an `@every` schedule.
    #[must_use]
    pub fn every_seconds(&self) -> Option<i64> {
        self.every_seconds
    }
}

/// The set of a field, and whether it is not restricted.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let mut set = 0;
    let mut any = false;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (bits, star) = range(part, bounds)?;
        set |= bits;
        any |= star;
    }
    Ok((set, any))
}

/// `*`, `n`, `n-m`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (span, step) = match text.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((span, step)) => (span, Some(number(step)?)),
        None => (text, None),
    };
    let (low, high, star) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (bounds.low, bounds.high, step.unwrap_or(1) == 1),
        Some((_, high)) if high.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some((low, high)) => (value(low, bounds)?, value(high, bounds)?, false),
        None => {
            let low = value(span, bounds)?;
            (low, if step.is_some() { bounds.high } else { low }, false)
        }
    };
    let step = step.unwrap_or(1);
    if low < bounds.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.low));
    }
    if high > bounds.high {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", bounds.high));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let mut set = 0;
    let mut at = low;
    while at <= high {
        set |= 1 << at;
        at = at.saturating_add(step);
    }
    Ok((set, star))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let name = text.to_lowercase();
    match bounds.names.iter().position(|known| *known == name) {
        Some(position) => Ok(bounds.low + u32::try_from(position).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(number) => u32::try_from(number)
            .map_err(|_| format!("negative number ({number}) not allowed: {text}")),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

/// `1h30m10s` in seconds.
fn duration_seconds(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, after) = rest.split_at(end);
        let count: i64 = digits.parse().ok()?;
        let (unit, after) = [("h", 3600), ("m", 60), ("s", 1)]
            .iter()
            .find_map(|(unit, seconds)| Some((*seconds, after.strip_prefix(unit)?)))?;
        total = total.checked_add(count.checked_mul(unit)?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_or_refused_in_the_known_words() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan MON-fri",
            "@hourly",
            "@every 1h30m",
            "0 0 31 2 ?",
            "5/15 * * * *",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("@fortnightly", "unrecognized descriptor: @fortnightly"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(Schedule::parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn either_day_may_match_when_both_are_restricted() {
        let at = |day, weekday| Minute { minute: 0, hour: 0, day, month: 1, weekday };
        let both = Schedule::parse("0 0 13 * 5").unwrap();
        assert!(both.matches(at(13, 1)) && both.matches(at(1, 5)) && !both.matches(at(1, 1)));
        let one = Schedule::parse("0 0 * * 5").unwrap();
        assert!(one.matches(at(1, 5)) && !one.matches(at(13, 1)));
    }
}
