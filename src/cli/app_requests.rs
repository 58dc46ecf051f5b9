//! `landfall app requests`: what an app's web objects answered, and how quickly.

use std::collections::BTreeMap;

use crate::domain::{AnswerClass, AppName};
use crate::wire::traffic::ObjectTraffic;

use super::app_functions::micros;
use super::exit::{Exit, Outcome};
use super::table::Table;
use super::{Context, terminal};

/// All web objects of an app, a line each.
pub async fn list(context: &Context, app: &AppName) -> Outcome {
    let objects = context.client.requests(context.environment(), app).await?;
    if context.json {
        terminal::json(&objects)?;
    } else if objects.is_empty() {
        terminal::line(format!("{app} has no web objects."))?;
    } else {
        context.terminal.table(&table(&objects))?;
    }
    Ok(Exit::Ok)
}

fn table(objects: &[ObjectTraffic]) -> Table {
    let mut table = Table::new(&["OBJECT", "PER SECOND", "LAST HOUR", "P50", "P95", "P99"]);
    for one in objects {
        let head = one.recent.head;
        table.row([
            one.object.to_string(),
            format!("{:.1}", one.recent.per_second),
            answers(&one.hour.answers),
            micros(head.p50_us),
            micros(head.p95_us),
            micros(head.p99_us),
        ]);
    }
    table
}

fn answers(answers: &BTreeMap<AnswerClass, u64>) -> String {
    let words: Vec<String> = answers.iter().map(|(class, count)| format!("{count} {class}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
