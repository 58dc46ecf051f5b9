//! What people and programs ask about the requests of web objects: how many, answered how, how quickly.
//!
//! Counted by the proxies, kept with the figures of functions ([`super::caller::Tallies`]).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Result;
use super::caller::minute_of;
use super::functions::{RECENT, spread};
use super::handle::Engine;
use crate::decide::tally::{KEPT, Sum};
use crate::domain::{AnswerClass, AppKey, FunctionKey, ObjectName};
use crate::wire::api::App;
use crate::wire::traffic::{Answered, AnsweredMinute, ObjectTraffic};

impl Engine {
    /// The requests of each web object of an app's live version.
    pub async fn traffic(&self, app: AppKey) -> Result<Vec<ObjectTraffic>> {
        let app = self.app(app).await?;
        Ok(self.traffic_of(&app).into_iter().map(|(view, _)| view).collect())
    }

    /// The same of an app that was looked up, each with how many requests got which answer since this controller started.
    pub(super) fn traffic_of(&self, app: &App) -> Vec<(ObjectTraffic, BTreeMap<AnswerClass, u64>)> {
        let key = AppKey::new(app.environment.clone(), app.app.clone());
        let objects: BTreeSet<&ObjectName> = app.urls.iter().map(|url| &url.object).collect();
        objects.into_iter().map(|object| self.one(FunctionKey::new(key.clone(), object.clone()))).collect()
    }

    fn one(&self, key: FunctionKey) -> (ObjectTraffic, BTreeMap<AnswerClass, u64>) {
        let (tally, now) = (self.parts.caller.tallies().of(&key), minute_of(Timestamp::now()));
        let minute = |(at, sum): &(i64, Sum)| {
            let at = Timestamp::from_second(at * 60).unwrap_or(Timestamp::UNIX_EPOCH);
            AnsweredMinute { at, answers: sum.answers.clone(), head: spread(&sum.head) }
        };
        let view = ObjectTraffic {
            app: key.app.app,
            environment: key.app.environment,
            object: key.function,
            recent: window(tally.last(now, RECENT), RECENT),
            hour: window(tally.last(now, KEPT), KEPT),
            minutes: tally.minutes(now).filter(|(_, sum)| !sum.answers.is_empty()).map(minute).collect(),
        };
        (view, tally.ever_answered)
    }
}

fn window(sum: Sum, minutes: i64) -> Answered {
    let seconds = u64::try_from(minutes * 60).unwrap_or_default();
    let requests: u64 = sum.answers.values().sum();
    Answered { seconds, per_second: requests as f64 / seconds as f64, head: spread(&sum.head), answers: sum.answers }
}
