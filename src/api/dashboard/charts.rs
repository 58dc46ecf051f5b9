//! Charts, drawn here as SVG without any style of their own: the style sheet colours them, light or dark.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{hour, parts};
use crate::wire::api::Version;
use crate::wire::call_views::CallView;

/// Bars of a chart.
const BARS: usize = 60;
/// The chart's width and height in its own units.
const WIDTH: usize = 720;
const HEIGHT: usize = 84;
/// Lengths of time a chart may stand for, in minutes: the first that holds all calls.
const SPANS: [i64; 5] = [60, 360, 1440, 10_080, 43_200];

/// What one bar stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bar {
    good: usize,
    bad: usize,
}

/// Calls over time, with a mark for each version that became live.
pub(super) fn calls(calls: &[CallView], versions: &[Version], now: Timestamp) -> Markup {
    let Some(oldest) = calls.iter().map(|call| call.created_at).min() else { return html! {} };
    let minutes = SPANS.into_iter().find(|minutes| oldest >= ago(now, *minutes)).unwrap_or(SPANS[4]);
    let begin = ago(now, minutes);
    let bars = bars(calls, begin, now);
    let most = bars.iter().map(|bar| bar.good + bar.bad).max().unwrap_or(0).max(1);
    let (total, bad) = bars.iter().fold((0, 0), |(all, bad), bar| (all + bar.good + bar.bad, bad + bar.bad));
    let step = WIDTH / BARS;
    let marks: Vec<(&Version, i64)> = versions
        .iter()
        .filter(|version| version.created_at >= begin)
        .filter_map(|version| Some((version, i64::try_from(place(version.created_at, begin, now, WIDTH)).ok()?)))
        .collect();
    let tall = |count: usize| (count * (HEIGHT - 14)).div_ceil(most);
    let words = format!("{total} call{} in {}, {bad} failed", parts::plural(total as u64), span(minutes));
    html! {
        section.chart aria-labelledby="calls" {
            h2 #calls { "Calls " span.muted { (words) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="chart-title chart-desc" preserveAspectRatio="none" {
                title #chart-title { "Calls over time" }
                desc #chart-desc { (words) "; " (marks.len()) " deployment" (parts::plural(marks.len() as u64)) " in that time." }
                line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (index, bar) in bars.iter().enumerate() {
                    @if bar.good + bar.bad > 0 {
                        g {
                            title { (bar.good + bar.bad) " calls, " (bar.bad) " failed" }
                            rect.good x=(index * step + 1) width=(step - 2) y=(HEIGHT - tall(bar.good + bar.bad)) height=(tall(bar.good)) {}
                            @if bar.bad > 0 { rect.bad x=(index * step + 1) width=(step - 2) y=(HEIGHT - tall(bar.bad)) height=(tall(bar.bad)) {} }
                        }
                    }
                }
                (hour::deployments(&marks))
            }
            p.axis { span { (span(minutes)) " ago" } span.legend { span.key.good {} "answered " span.key.bad {} "failed " span.key.deploy {} "deployment" } span { "now" } }
            (numbers(&bars, begin, now))
        }
    }
}

/// The same in numbers, for whoever does not see the chart.
fn numbers(bars: &[Bar], begin: Timestamp, now: Timestamp) -> Markup {
    let each = now.duration_since(begin).as_secs() / BARS as i64;
    let at = |index: usize| begin.saturating_add(SignedDuration::from_secs(each * index as i64)).unwrap_or(now);
    html! {
        div.quiet { table {
            caption { "Calls over time, in numbers" }
            thead { tr { th scope="col" { "From" } th scope="col" { "Answered" } th scope="col" { "Failed" } } }
            tbody { @for (index, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.good + bar.bad > 0) {
                tr { th scope="row" { (parts::stamp(at(index))) } td { (bar.good) } td { (bar.bad) } }
            } }
        } }
    }
}

fn ago(now: Timestamp, minutes: i64) -> Timestamp {
    now.saturating_sub(SignedDuration::from_mins(minutes)).unwrap_or(Timestamp::MIN)
}

fn span(minutes: i64) -> String {
    match minutes {
        0..=59 => format!("{minutes} min"),
        60 => "1 h".to_owned(),
        61..=1440 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

/// Where an instant lies between two others, in steps.
fn place(at: Timestamp, begin: Timestamp, end: Timestamp, steps: usize) -> usize {
    let whole = end.duration_since(begin).as_millis().max(1);
    let part = at.duration_since(begin).as_millis().clamp(0, whole);
    usize::try_from(part * steps as i128 / whole).unwrap_or(0)
}

fn bars(calls: &[CallView], begin: Timestamp, end: Timestamp) -> [Bar; BARS] {
    let mut bars = [Bar::default(); BARS];
    for call in calls.iter().filter(|call| call.created_at >= begin) {
        let bar = &mut bars[place(call.created_at, begin, end, BARS).min(BARS - 1)];
        if call.outcome.is_some_and(crate::domain::CallOutcome::is_failure) { bar.bad += 1 } else { bar.good += 1 }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_its_place_between_two_others() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        assert_eq!(place(at(0), at(0), at(100), 50), 0);
        assert_eq!(place(at(50), at(0), at(100), 50), 25);
        assert_eq!(place(at(200), at(0), at(100), 50), 50);
        assert_eq!(place(at(5), at(10), at(10), 50), 0);
    }

    #[test]
    fn spans_read_as_people_say_them() {
        assert_eq!(SPANS.map(span), ["1 h", "6 h", "24 h", "7 d", "30 d"]);
    }
}
