//! Moments as users write them, in nanoseconds of a trace's clock.

use anyhow::{Context as _, Result, bail};
use jiff::{Timestamp, Zoned, civil, tz::TimeZone};

use crate::read::trace::Trace;

/// A moment of the trace: `1.5s` after its start, `-2s` before its end, or before `now` while it is being recorded, `@123.456` as relayd print shows it, or the time of the day or the
/// date, in the local time zone unless another is given.
///
/// # Errors
/// When it is none of these.
pub fn parse(text: &str, trace: &Trace, now: Option<u64>) -> Result<u64> {
    let clock = &trace.session.clock;
    if let Some(seconds) = text.strip_prefix('@') {
        return parse_seconds(seconds).with_context(|| format!("'{text}' is no time in seconds, like @123.456"));
    }
    if let Some(before) = text.strip_prefix('-')
        && let Some(before) = parse_span(before)
    {
        let end = clock.end.map(|end| end.monotonic).or(now);
        let end = end.context("the recording was not ended in order: its end is not known")?;
        return Ok(end.saturating_sub(before));
    }
    if let Some(after) = parse_span(text.strip_prefix('+').unwrap_or(text)) {
        return Ok(clock.start.monotonic.saturating_add(after));
    }
    let Some(wall) = parse_wall(text, clock.start.realtime) else {
        bail!(
            "'{text}' is no time: give one from the trace's start (1.5s, 300ms), before its end (-2s), as relayd print shows it \
             (@123.456), or of the clock (13:31:25.5, '2026-01-02 13:31:25', 2026-01-02T12:31:25Z)"
        );
    };
    let epoch = i128::from(clock.start.realtime) - i128::from(clock.start.monotonic);
    Ok(u64::try_from((wall - epoch).max(0)).unwrap_or(u64::MAX))
}

fn parse_span(text: &str) -> Option<u64> {
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return parse_seconds(text);
    }
    // humantime takes whole numbers alone.
    if let Some(seconds) = text.strip_suffix('s').and_then(parse_seconds) {
        return Some(seconds);
    }
    humantime::parse_duration(text).ok().and_then(|span| u64::try_from(span.as_nanos()).ok())
}

/// Seconds with up to nine digits after the point.
fn parse_seconds(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > 9 || (whole.is_empty() && rest.is_empty()) {
        return None;
    }
    let nanoseconds: u64 = format!("{rest:0<9}").parse().ok()?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Nanoseconds since 1970. A time without a date is of the day on which the trace began.
fn parse_wall(text: &str, start: u64) -> Option<i128> {
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.as_nanosecond());
    }
    let zone = TimeZone::system();
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return time.to_zoned(zone).ok().map(|zoned: Zoned| zoned.timestamp().as_nanosecond());
    }
    let time = text.parse::<civil::Time>().ok()?;
    let day = Timestamp::from_nanosecond(start.into()).ok()?.to_zoned(zone.clone()).date();
    day.to_datetime(time).to_zoned(zone).ok().map(|zoned| zoned.timestamp().as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_seconds_with_a_point_or_have_units() {
        for (text, nanoseconds) in [
            ("1.5s", Some(1_500_000_000)),
            ("0.000000001", Some(1)),
            ("2", Some(2_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1m 2s", Some(62_000_000_000)),
            (".5s", Some(500_000_000)),
            ("", None),
            (".", None),
            ("1.0000000001", None),
            ("99999999999999999999", None),
            ("x", None),
        ] {
            assert_eq!(parse_span(text), nanoseconds, "{text}");
        }
    }

    #[test]
    fn the_time_of_the_day_is_of_the_day_of_the_trace() {
        assert_eq!(parse_wall("2026-01-02T12:31:25Z", 0), Some(1_767_357_085_000_000_000));
        let start = 1_767_357_085_000_000_000;
        let time = parse_wall("2026-01-02 00:00:01.5", start).unwrap();
        assert_eq!(parse_wall("00:00:01.5", start).unwrap() - time, parse_wall("00:00:01.5", start).unwrap() - time);
        assert!(parse_wall("25:00", start).is_none() && parse_wall("yesterday", start).is_none());
    }
}
