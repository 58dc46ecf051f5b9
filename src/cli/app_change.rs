//! Verbs that change what an app runs: rollback, release, rollover, suspend, resume, scale, stop.

use jiff::Timestamp;

use crate::domain::{AppName, ObjectName};
use crate::wire::api::{ReasonRequest, ReleaseRequest, RollbackRequest, ScaleRequest, SuspendRequest};

use super::exit::{CliError, Exit, Outcome};
use super::follow::{self, Waiting};
use super::when::{When, stamp};
use super::{Context, terminal};

/// `app rollback`
pub async fn rollback(context: &Context, app: &AppName, request: &RollbackRequest, waiting: Waiting) -> Outcome {
    let accepted = context.client.rollback(context.environment(), app, request).await?;
    follow::accepted(context, accepted, waiting).await
}

/// `app release`
pub async fn release(
    context: &Context,
    app: &AppName,
    force: bool,
    reason: Option<String>,
    waiting: Waiting,
) -> Outcome {
    let request = ReleaseRequest { force, reason };
    let accepted = context.client.release(context.environment(), app, &request).await?;
    follow::accepted(context, accepted, waiting).await
}

/// `app rollover`
pub async fn rollover(context: &Context, app: &AppName, reason: Option<String>, waiting: Waiting) -> Outcome {
    let accepted = context.client.rollover(context.environment(), app, &ReasonRequest { reason }).await?;
    follow::accepted(context, accepted, waiting).await
}

/// `app suspend`
pub async fn suspend(context: &Context, app: &AppName, reason: Option<String>, until: Option<When>) -> Outcome {
    let request = SuspendRequest { reason, until: until.map(ahead) };
    let answer = context.client.suspend(context.environment(), app, &request).await?;
    if context.json {
        terminal::json(&answer)?;
        return Ok(Exit::Ok);
    }
    let end = match answer.suspension.as_ref().and_then(|suspension| suspension.until) {
        Some(until) => format!("until {}", stamp(until)),
        None => format!("until `landfall app resume {app}`"),
    };
    terminal::line(format!("{app} is suspended {end}: it runs on, nothing is deployed to it"))?;
    Ok(Exit::Ok)
}

/// `app scale`
pub async fn scale(context: &Context, app: &AppName, object: &ObjectName, to: Option<(u32, u32)>) -> Outcome {
    let (min, max) = to.unzip();
    let request = ScaleRequest { object: object.clone(), min, max };
    let scaled = context.client.scale(context.environment(), app, &request).await?;
    if context.json {
        terminal::json(&scaled)?;
        return Ok(Exit::Ok);
    }
    let count =
        if scaled.min == scaled.max { scaled.min.to_string() } else { format!("{}-{}", scaled.min, scaled.max) };
    let how_long = if to.is_some() { " until the next deployment" } else { ", as its manifest says" };
    terminal::line(format!("{app} {object} runs {count} instances{how_long}"))?;
    Ok(Exit::Ok)
}

/// `app resume`
pub async fn resume(context: &Context, app: &AppName) -> Outcome {
    let answer = context.client.resume(context.environment(), app).await?;
    if context.json {
        terminal::json(&answer)?;
    } else {
        terminal::line(format!("{app} follows its source again ({})", answer.state.as_str()))?;
    }
    Ok(Exit::Ok)
}

/// `app stop`: asks first, because it takes the app off the air.
pub async fn stop(context: &Context, app: &AppName, reason: Option<String>, yes: bool) -> Outcome {
    if !yes {
        if !terminal::can_ask() {
            return Err(CliError::hinted(
                Exit::Failed,
                format!("{app} is not stopped: there is no terminal to ask on"),
                format!("say so at once: `landfall app stop {app} -y`"),
            ));
        }
        let now = context.client.app(context.environment(), app).await?;
        // The agent says who stopped it already and when; there is nothing to ask for.
        if now.stopped.is_none() && !terminal::ask(&question(app, now.instances))? {
            return Err(CliError::new(Exit::Failed, format!("{app} is not stopped")));
        }
    }
    let accepted = context.client.stop(context.environment(), app, &ReasonRequest { reason }).await?;
    if context.json {
        terminal::json(&accepted)?;
    } else {
        terminal::line(&accepted.message)?;
    }
    Ok(Exit::Ok)
}

fn question(app: &AppName, instances: u32) -> String {
    match instances {
        0 => format!("Stop {app}? No instance of it runs."),
        1 => format!("Stop {app} and its 1 running instance?"),
        many => format!("Stop {app} and its {many} running instances?"),
    }
}

pub fn ahead(when: When) -> Timestamp {
    when.ahead(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_number_of_running_instances() {
        let app: AppName = "shop".parse().unwrap();
        assert_eq!(question(&app, 1), "Stop shop and its 1 running instance?");
        assert_eq!(question(&app, 3), "Stop shop and its 3 running instances?");
    }
}
