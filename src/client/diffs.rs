//! The call about differences between versions.

use super::query::Route;
use super::{Client, ClientError};
use crate::domain::{AppName, EnvironmentName, VersionNumber};
use crate::wire::diffs::VersionDiff;

impl Client {
    /// How `to` differs from `from`; with `stat` without the text of files.
    pub async fn diff(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        (from, to): (VersionNumber, VersionNumber),
        stat: bool,
    ) -> Result<VersionDiff, ClientError> {
        let (from, to) = (from.to_string(), to.to_string());
        let route = Route::new(&["apps", app.as_str(), "versions", &from, "diff", &to]);
        self.get(route.with("environment", environment).with("stat", stat.then_some(true))).await
    }
}
