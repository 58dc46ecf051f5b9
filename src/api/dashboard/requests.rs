//! The requests of a web object: how many got which answer and how quickly, minute by minute, with what was deployed when.
//!
//! Two charts over the same hour and a table that says the same in numbers. Drawn here, without script or style of its own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::functions::micros;
use super::hour::{HEIGHT, Hour, STEP, WIDTH, deployments, tall};
use super::parts;
use crate::domain::AnswerClass;
use crate::wire::api::Version;
use crate::wire::traffic::{AnsweredMinute, ObjectTraffic};

/// Answers as they are stacked, from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stack {
    server_errors: u64,
    client_errors: u64,
    good: u64,
}

impl Stack {
    fn of(answers: &BTreeMap<AnswerClass, u64>) -> Self {
        let mut stack = Self { server_errors: 0, client_errors: 0, good: 0 };
        for (class, count) in answers {
            match class {
                AnswerClass::Informational | AnswerClass::Successful | AnswerClass::Redirected => stack.good += count,
                AnswerClass::ClientError => stack.client_errors += count,
                AnswerClass::ServerError => stack.server_errors += count,
            }
        }
        stack
    }

    fn all(self) -> u64 {
        self.server_errors + self.client_errors + self.good
    }
}

/// A minute where it is drawn.
struct Bar<'a> {
    x: i64,
    minute: &'a AnsweredMinute,
    stack: Stack,
}

/// Both charts and the numbers; nothing while there was no request in the last hour.
pub(super) fn charts<'a>(one: &'a ObjectTraffic, versions: &[Version], now: Timestamp) -> Markup {
    let last = Hour::until(now);
    let bar =
        |minute: &'a AnsweredMinute| Some(Bar { x: last.bar(minute.at)?, minute, stack: Stack::of(&minute.answers) });
    let bars: Vec<Bar<'_>> = one.minutes.iter().filter_map(bar).collect();
    if bars.is_empty() {
        return html! {};
    }
    let marks = last.marks(versions);
    let hour = Stack::of(&one.hour.answers);
    let words = format!(
        "{} in the last hour, {} answered with 4xx, {} with 5xx",
        hour.all(),
        hour.client_errors,
        hour.server_errors
    );
    let title = format!("requests-{}", one.object);
    html! {
        section.chart aria-labelledby=(title) {
            h2 #(title) { "Requests of " (one.object) " " span.muted { (words) } }
            (answers(&bars, &marks, &format!("{words}. {}", deployed(marks.len()))))
            (times(&bars, &marks))
            p.axis { span { "1 h ago" } span.legend {
                span.key.good {} "2xx, 3xx " span.key.warn {} "4xx " span.key.bad {} "5xx; time: " span.key.good {} "p50 " span.key.faint {} "p95 " span.key.deploy {} "deployment"
            } span { "now" } }
            (numbers(one, &bars))
        }
    }
}

fn deployed(count: usize) -> String {
    format!("{count} deployment{} in that time.", parts::plural(count as u64))
}

/// Requests by minute, stacked by class of status.
fn answers(bars: &[Bar<'_>], marks: &[(&Version, i64)], words: &str) -> Markup {
    let most = bars.iter().map(|bar| bar.stack.all()).max().unwrap_or(0);
    let parts = |stack: Stack| {
        let edges = [0, stack.server_errors, stack.server_errors + stack.client_errors, stack.all()];
        let tall = edges.map(|edge| tall(edge, most));
        [("bad", tall[0], tall[1]), ("warn", tall[1], tall[2]), ("good", tall[2], tall[3])]
    };
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ "Requests by minute: " (words) } preserveAspectRatio="none" {
            line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for bar in bars { @for (class, from, to) in parts(bar.stack) { @if to > from {
                rect.(class) x=(bar.x) width=(STEP - 2) y=(HEIGHT - to) height=(to - from) {}
            } } }
            (deployments(marks))
        }
    }
}

/// Time until the answer's head by minute: half were quicker, and nineteen of twenty.
fn times(bars: &[Bar<'_>], marks: &[(&Version, i64)]) -> Markup {
    let longest = bars.iter().filter_map(|bar| bar.minute.head.p95_us).max();
    let words = format!("Time until the answers began, by minute; p95 at most {}", micros(longest));
    let height = |micros: Option<u64>| tall(micros.unwrap_or(0), longest.unwrap_or(0));
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(words) preserveAspectRatio="none" {
            line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for bar in bars { @for (class, tall) in [("faint", height(bar.minute.head.p95_us)), ("good", height(bar.minute.head.p50_us))] { @if tall > 0 {
                rect.(class) x=(bar.x) width=(STEP - 2) y=(HEIGHT - tall) height=(tall) {}
            } } }
            (deployments(marks))
        }
    }
}

/// The same in numbers, for whoever does not see the charts.
fn numbers(one: &ObjectTraffic, bars: &[Bar<'_>]) -> Markup {
    html! {
        div.quiet { table {
            caption { "Requests of " (one.object) " by minute, the newest first" }
            thead { tr {
                th scope="col" { "Minute" } th scope="col" { "2xx, 3xx" } th scope="col" { "4xx" } th scope="col" { "5xx" } th scope="col" { "p50" } th scope="col" { "p95" }
            } }
            tbody { @for Bar { minute, stack, .. } in bars {
                tr {
                    th scope="row" { time datetime=(minute.at) { (minute.at.strftime("%H:%M UTC")) } }
                    td { (stack.good) } td { (stack.client_errors) } td { (stack.server_errors) }
                    td { (micros(minute.head.p50_us)) } td { (micros(minute.head.p95_us)) }
                }
            } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::functions::Spread;
    use crate::wire::traffic::Answered;

    fn drawn(answers: &[(AnswerClass, u64)], at: &str) -> String {
        let answers: BTreeMap<_, _> = answers.iter().copied().collect();
        let head = Spread { p50_us: Some(1500), p95_us: Some(4000), p99_us: None };
        let window = || Answered { seconds: 3600, per_second: 0.0, answers: answers.clone(), head };
        let one = ObjectTraffic {
            app: "shop".parse().expect("a name"),
            environment: "main".parse().expect("a name"),
            object: "main".parse().expect("a name"),
            recent: window(),
            hour: window(),
            minutes: vec![AnsweredMinute { at: at.parse().expect("a time"), answers: answers.clone(), head }],
        };
        charts(&one, &[], "2026-11-28T12:00:30Z".parse().expect("a time")).into_string()
    }

    #[test]
    fn a_minute_is_stacked_by_answer_and_told_in_numbers() {
        let answers = [(AnswerClass::Successful, 20), (AnswerClass::ClientError, 10), (AnswerClass::ServerError, 10)];
        let text = drawn(&answers, "2026-11-28T12:00:00Z");
        for part in [
            "<rect class=\"bad\" x=\"709\" width=\"10\" y=\"64\" height=\"20\">",
            "<rect class=\"warn\" x=\"709\" width=\"10\" y=\"44\" height=\"20\">",
            "<rect class=\"good\" x=\"709\" width=\"10\" y=\"4\" height=\"40\">",
            "40 in the last hour, 10 answered with 4xx, 10 with 5xx",
            "<td>20</td><td>10</td><td>10</td><td>1.5 ms</td><td>4.0 ms</td>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_an_hour_without_requests() {
        assert_eq!(drawn(&[(AnswerClass::Successful, 1)], "2026-11-28T10:00:00Z"), "");
    }
}
