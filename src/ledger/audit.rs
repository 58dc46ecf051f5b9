//! The audit log: who changed what, from where, and what came of it.
//!
//! What people ask for is recorded by the API: an entry before anything is done, completed with what was answered. What
//! nobody asked for is recorded by [`super::facts::audit`] in the transaction of the change. An entry of a request
//! without a result is one the agent did not live to answer.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use super::Result;
use super::rows::{from_json, json, micros, parse, time};
use crate::domain::{Actor, AppKey};

/// An entry about to be made.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Who asks.
    pub actor: Actor,
    /// How they are known.
    pub via: &'static str,
    /// Where they ask from.
    pub address: Option<String>,
    /// What for.
    pub action: String,
    /// The app it is about.
    pub app: Option<AppKey>,
    /// What exactly.
    pub detail: serde_json::Value,
    /// How the app stands.
    pub before: Option<serde_json::Value>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the order of all.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// How they were known.
    pub via: Option<String>,
    /// Where they asked from.
    pub address: Option<String>,
    /// What was done.
    pub action: String,
    /// The app it was done to.
    pub app: Option<AppKey>,
    /// What exactly.
    pub detail: serde_json::Value,
    /// How the app stood before.
    pub before: Option<serde_json::Value>,
    /// How it stood then.
    pub after: Option<serde_json::Value>,
    /// What was answered.
    pub result: Option<serde_json::Value>,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only about this app.
    pub app: Option<AppKey>,
    /// Only by whoever has this name, or a token of this name.
    pub actor: Option<String>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Makes an entry of what is about to be done. Answers its number.
pub fn begin(connection: &Connection, entry: &NewEntry, at: Timestamp) -> Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at, actor, action, environment, app, detail, address, via, before)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            micros(at),
            json(&entry.actor)?,
            entry.action,
            entry.app.as_ref().map(|key| key.environment.as_str()),
            entry.app.as_ref().map(|key| key.app.as_str()),
            json(&entry.detail)?,
            entry.address,
            entry.via,
            entry.before.as_ref().map(json).transpose()?,
        ])?;
    Ok(connection.last_insert_rowid())
}

/// Completes an entry. `app` is the one it turned out to be about.
pub fn end(
    connection: &Connection,
    id: i64,
    app: Option<&AppKey>,
    after: Option<&serde_json::Value>,
    result: &serde_json::Value,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE audit SET after = ?2, result = ?3, environment = coalesce(environment, ?4), app = coalesce(app, ?5)
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            after.map(json).transpose()?,
            json(result)?,
            app.map(|key| key.environment.as_str()),
            app.map(|key| key.app.as_str()),
        ])?;
    Ok(())
}

/// Removes entries made before `before`; answers how many. That they were removed is an entry itself.
pub fn trim(connection: &Connection, before: Timestamp, now: Timestamp) -> Result<usize> {
    let removed = connection.prepare_cached("DELETE FROM audit WHERE at < ?1")?.execute([micros(before)])?;
    if removed > 0 {
        let detail = serde_json::json!({"entries": removed, "before": before});
        super::facts::audit(connection, &Actor::Agent, "audit.trim", None, &detail, now)?;
    }
    Ok(removed)
}

/// Entries, newest first.
pub fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Entry>> {
    let mut conditions = vec!["1 = 1"];
    let mut values: Vec<(&str, Value)> = vec![(":limit", Value::from(filter.limit))];
    if let Some(app) = &filter.app {
        conditions.push("environment = :environment AND app = :app");
        values.push((":environment", Value::from(app.environment.to_string())));
        values.push((":app", Value::from(app.app.to_string())));
    }
    if let Some(actor) = &filter.actor {
        conditions.push(
            ":actor IN (actor ->> '$.name', actor ->> '$.token', actor ->> '$.source',
             CASE WHEN actor ->> '$.kind' = 'agent' THEN 'agent' END)",
        );
        values.push((":actor", Value::from(actor.clone())));
    }
    if let Some(since) = filter.since {
        conditions.push("at >= :since");
        values.push((":since", Value::from(micros(since))));
    }
    if let Some(before) = filter.before {
        conditions.push("id < :before");
        values.push((":before", Value::from(before)));
    }
    let sql = format!(
        "SELECT id, at, actor, via, address, action, environment, app, detail, before, after, result FROM audit
         WHERE {} ORDER BY id DESC LIMIT :limit",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let named: Vec<(&str, &dyn rusqlite::ToSql)> =
        values.iter().map(|(name, value)| (*name, value as &dyn rusqlite::ToSql)).collect();
    let mut rows = statement.query(named.as_slice())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Entry> {
    let value = |at: usize| {
        let text = row.get::<_, Option<String>>(at)?;
        text.map(|text| from_json("entry of the audit log", &text)).transpose()
    };
    let app = match (row.get::<_, Option<String>>(6)?, row.get::<_, Option<String>>(7)?) {
        (Some(environment), Some(app)) => {
            Some(AppKey::new(parse("environment", environment)?, parse("app name", app)?))
        }
        (_, _) => None,
    };
    Ok(Entry {
        id: row.get(0)?,
        at: time(row.get(1)?)?,
        actor: from_json("actor", &row.get::<_, String>(2)?)?,
        via: row.get(3)?,
        address: row.get(4)?,
        action: row.get(5)?,
        app,
        detail: value(8)?.unwrap_or_default(),
        before: value(9)?,
        after: value(10)?,
        result: value(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{facts, in_memory};
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn old_entries_go_and_that_they_went_is_on_record() {
        let ledger = in_memory();
        for second in 1..=5 {
            facts::audit(&ledger, &Actor::Agent, "rollback", None, &(), at(second)).expect("recorded");
        }
        assert_eq!(trim(&ledger, at(4), at(9)).expect("trimmed"), 3);
        assert_eq!(trim(&ledger, at(4), at(9)).expect("trimmed"), 0);
        let left = list(&ledger, &Filter { limit: 10, ..Filter::default() }).expect("read");
        let shown: Vec<(i64, &str)> = left.iter().map(|entry| (entry.id, entry.action.as_str())).collect();
        assert_eq!(shown, [(6, "audit.trim"), (5, "rollback"), (4, "rollback")]);
        assert_eq!(left[0].detail["entries"], 3);
    }

    #[test]
    fn entries_are_found_by_app_actor_and_time_newest_first() {
        let ledger = in_memory();
        let shop = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        let ada = Actor::Token { token: "laptop".into(), name: "ada".into() };
        let entry = |actor: &Actor, app: Option<&AppKey>| NewEntry {
            actor: actor.clone(),
            via: "token",
            address: Some("192.0.2.1".into()),
            action: "app.rollback".into(),
            app: app.cloned(),
            detail: json!({"version": 3}),
            before: Some(json!({"live_version": 4})),
        };
        let first = begin(&ledger, &entry(&ada, Some(&shop)), at(1)).expect("begun");
        end(&ledger, first, None, Some(&json!({"live_version": 5})), &json!({"status": 200})).expect("completed");
        begin(&ledger, &entry(&Actor::User { name: "root".into() }, None), at(2)).expect("begun");
        facts::audit(&ledger, &Actor::Agent, "rollback", Some(&shop), &(), at(3)).expect("recorded");
        facts::audit(&ledger, &ada, "rollback", Some(&shop), &(), at(3)).expect("what was asked for is there already");
        let ids = |filter: Filter| -> Vec<i64> {
            let filter = Filter { limit: 10, ..filter };
            list(&ledger, &filter).expect("read").iter().map(|entry| entry.id).collect()
        };
        assert_eq!(ids(Filter::default()), [3, 2, 1]);
        assert_eq!(ids(Filter { app: Some(shop.clone()), ..Filter::default() }), [3, 1]);
        for (actor, wanted) in
            [("ada", vec![1]), ("laptop", vec![1]), ("root", vec![2]), ("agent", vec![3]), ("a", vec![])]
        {
            assert_eq!(ids(Filter { actor: Some(actor.into()), ..Filter::default() }), wanted, "{actor}");
        }
        assert_eq!(ids(Filter { since: Some(at(2)), ..Filter::default() }), [3, 2]);
        assert_eq!(ids(Filter { before: Some(3), ..Filter::default() }), [2, 1]);
        let whole = list(&ledger, &Filter { before: Some(2), limit: 1, ..Filter::default() }).expect("read").remove(0);
        assert_eq!((whole.actor, whole.app, whole.result), (ada, Some(shop), Some(json!({"status": 200}))));
        assert_eq!((whole.before, whole.after), (Some(json!({"live_version": 4})), Some(json!({"live_version": 5}))));
    }
}
