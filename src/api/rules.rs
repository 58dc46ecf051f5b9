//! What each route needs: one table, from which the guard decides and `docs/access.md` is written.
//!
//! Invariant: a route that is not in the table is answered to nobody.

use crate::domain::Verb;

/// What a route is about, and so what a scope for some apps has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The app in its path.
    App,
    /// All apps: whoever may see some of them gets those.
    Apps,
    /// A list that `?app=` narrows to one app: whoever may see only some has to name one.
    Named,
    /// The app whose deployment, call or instance its path names.
    Owner,
    /// The app in the uploaded archive.
    Upload,
    /// The agent as a whole.
    Agent,
    /// Nothing that needs a name: it proves itself in another way, or is the same for everybody.
    Open,
}

/// What one route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// `GET` stands for `HEAD`, too.
    pub method: &'static str,
    /// As the router knows it.
    pub path: &'static str,
    /// Any of these will do.
    pub verbs: &'static [Verb],
    /// What it is about.
    pub over: Over,
}

impl Rule {
    /// Whether the audit log tells of it by itself: every change but calls, which have records of their own, and commands
    /// in instances, which are recorded with what was run and how it ended.
    pub fn is_recorded(&self) -> bool {
        let is_call = ["/call", "/spawn", "/map", "/exec"].iter().any(|end| self.path.ends_with(end));
        self.method != "GET" && self.over != Over::Open && !is_call
    }

    /// What the audit log calls it: `app.rollback`, `token.create`.
    pub fn action(&self) -> String {
        let words: Vec<&str> = self
            .path
            .split('/')
            .filter(|word| !word.is_empty() && !word.starts_with('{') && !matches!(*word, "v1" | "ui"))
            .collect();
        let singular = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
        match words.as_slice() {
            [.., noun, verb] => format!("{}.{verb}", singular(noun)),
            [noun] if noun.ends_with('s') => format!("{}.create", singular(noun)),
            [verb] => (*verb).to_owned(),
            [] => self.path.to_owned(),
        }
    }
}

const READ: &[Verb] = &[Verb::Read];
const CALL: &[Verb] = &[Verb::Call];
/// Whoever makes a call gets to know what became of it.
const READ_OR_CALL: &[Verb] = &[Verb::Read, Verb::Call];
const DEPLOY: &[Verb] = &[Verb::Deploy];
const ADMIN: &[Verb] = &[Verb::Admin];

const fn get(path: &'static str, verbs: &'static [Verb], over: Over) -> Rule {
    Rule { method: "GET", path, verbs, over }
}

const fn post(path: &'static str, verbs: &'static [Verb], over: Over) -> Rule {
    Rule { method: "POST", path, verbs, over }
}

/// All routes.
pub const RULES: &[Rule] = &[
    get("/metrics", READ, Over::Agent),
    get("/v1/openapi.json", &[], Over::Open),
    get("/v1/status", READ, Over::Agent),
    get("/v1/apps", READ, Over::Apps),
    get("/v1/apps/{app}", READ, Over::App),
    get("/v1/apps/{app}/versions", READ, Over::App),
    get("/v1/apps/{app}/versions/{from}/diff/{to}", READ, Over::App),
    get("/v1/apps/{app}/deployments", READ, Over::App),
    get("/v1/apps/{app}/logs", READ, Over::App),
    post("/v1/apps/{app}/rollback", DEPLOY, Over::App),
    post("/v1/apps/{app}/release", DEPLOY, Over::App),
    post("/v1/apps/{app}/rollover", DEPLOY, Over::App),
    post("/v1/apps/{app}/suspend", DEPLOY, Over::App),
    post("/v1/apps/{app}/resume", DEPLOY, Over::App),
    post("/v1/apps/{app}/stop", DEPLOY, Over::App),
    post("/v1/apps/{app}/scale", DEPLOY, Over::App),
    get("/v1/apps/{app}/requests", READ, Over::App),
    get("/v1/apps/{app}/services", READ, Over::App),
    get("/v1/apps/{app}/functions", READ, Over::App),
    get("/v1/apps/{app}/functions/{function}", READ, Over::App),
    post("/v1/apps/{app}/functions/{function}/call", CALL, Over::App),
    post("/v1/apps/{app}/functions/{function}/spawn", CALL, Over::App),
    post("/v1/apps/{app}/functions/{function}/map", CALL, Over::App),
    get("/v1/calls", READ, Over::Named),
    get("/v1/calls/{call}", READ_OR_CALL, Over::Owner),
    get("/v1/calls/{call}/result", READ_OR_CALL, Over::Owner),
    get("/v1/calls/{call}/logs", READ, Over::Owner),
    post("/v1/calls/{call}/cancel", CALL, Over::Owner),
    post("/v1/calls/{call}/redrive", CALL, Over::Owner),
    get("/v1/schedules", READ, Over::Named),
    get("/v1/apps/{app}/schedules/{function}", READ, Over::App),
    get("/v1/apps/{app}/schedules/{function}/runs", READ, Over::App),
    get("/v1/apps/{app}/schedules/{function}/output", READ, Over::App),
    post("/v1/apps/{app}/schedules/{function}/run", CALL, Over::App),
    post("/v1/apps/{app}/schedules/{function}/pause", DEPLOY, Over::App),
    post("/v1/apps/{app}/schedules/{function}/resume", DEPLOY, Over::App),
    get("/v1/secrets", ADMIN, Over::Agent),
    post("/v1/secrets", ADMIN, Over::Agent),
    post("/v1/secrets/remove", ADMIN, Over::Agent),
    post("/v1/secrets/rotate-key", ADMIN, Over::Agent),
    post("/v1/deploy", DEPLOY, Over::Upload),
    get("/v1/deployments/{deployment}", READ, Over::Owner),
    get("/v1/deployments/{deployment}/events", READ, Over::Owner),
    get("/v1/instances", READ, Over::Named),
    post("/v1/instances/{instance}/exec", ADMIN, Over::Owner),
    post("/v1/instances/{instance}/stop", DEPLOY, Over::Owner),
    get("/v1/events", READ, Over::Apps),
    get("/v1/sources", READ, Over::Agent),
    get("/v1/sources/{source}", READ, Over::Agent),
    post("/v1/sources/{source}/sync", DEPLOY, Over::Agent),
    post("/v1/sources/{source}/approve", DEPLOY, Over::Agent),
    post("/v1/sources/{source}/suspend", DEPLOY, Over::Agent),
    post("/v1/sources/{source}/resume", DEPLOY, Over::Agent),
    post("/v1/hooks/{source}", &[], Over::Open),
    get("/v1/certificates", READ, Over::Agent),
    get("/v1/channels", READ, Over::Agent),
    post("/v1/channels/{channel}/test", ADMIN, Over::Agent),
    get("/v1/plan", READ, Over::Agent),
    get("/v1/audit", ADMIN, Over::Agent),
    get("/v1/tokens", ADMIN, Over::Agent),
    post("/v1/tokens", ADMIN, Over::Agent),
    post("/v1/tokens/{token}/revoke", ADMIN, Over::Agent),
    post("/login", &[], Over::Open),
    post("/logout", &[], Over::Open),
    get("/", READ, Over::Apps),
    get("/apps/{app}", READ, Over::App),
    get("/apps/{app}/versions", READ, Over::App),
    get("/apps/{app}/diff", READ, Over::App),
    get("/apps/{app}/logs", READ, Over::App),
    get("/apps/{app}/schedules/{function}", READ, Over::App),
    get("/apps/{app}/functions/{function}", READ, Over::App),
    get("/deployments/{deployment}", READ, Over::Owner),
    get("/calls", READ, Over::Named),
    get("/calls/{call}", READ, Over::Owner),
    get("/schedules", READ, Over::Apps),
    get("/sources", READ, Over::Agent),
    get("/sources/{source}", READ, Over::Agent),
    get("/activity", READ, Over::Apps),
    get("/notifications", READ, Over::Agent),
    get("/settings", READ, Over::Agent),
    get("/certificates", READ, Over::Agent),
    get("/secrets", ADMIN, Over::Agent),
    get("/audit", ADMIN, Over::Agent),
    post("/ui/secrets", ADMIN, Over::Agent),
    get("/ui/secrets/remove", ADMIN, Over::Agent),
    post("/ui/secrets/remove", ADMIN, Over::Agent),
    get("/ui/live", READ, Over::Apps),
    get("/ui/apps/{app}/logs", READ, Over::App),
    get("/ui/apps/{app}/rollback", DEPLOY, Over::App),
    post("/ui/apps/{app}/rollback", DEPLOY, Over::App),
    get("/ui/apps/{app}/release", DEPLOY, Over::App),
    post("/ui/apps/{app}/release", DEPLOY, Over::App),
    get("/ui/apps/{app}/rollover", DEPLOY, Over::App),
    post("/ui/apps/{app}/rollover", DEPLOY, Over::App),
    get("/ui/apps/{app}/suspend", DEPLOY, Over::App),
    post("/ui/apps/{app}/suspend", DEPLOY, Over::App),
    get("/ui/apps/{app}/resume", DEPLOY, Over::App),
    post("/ui/apps/{app}/resume", DEPLOY, Over::App),
    get("/ui/apps/{app}/stop", DEPLOY, Over::App),
    post("/ui/apps/{app}/stop", DEPLOY, Over::App),
    get("/ui/apps/{app}/scale", DEPLOY, Over::App),
    post("/ui/apps/{app}/scale", DEPLOY, Over::App),
    post("/ui/apps/{app}/schedules/{function}/run", CALL, Over::App),
    post("/ui/apps/{app}/schedules/{function}/pause", DEPLOY, Over::App),
    post("/ui/apps/{app}/schedules/{function}/resume", DEPLOY, Over::App),
    post("/ui/calls/{call}/cancel", CALL, Over::Owner),
    post("/ui/calls/{call}/redrive", CALL, Over::Owner),
    post("/ui/sources/{source}/sync", DEPLOY, Over::Agent),
    post("/ui/sources/{source}/approve", DEPLOY, Over::Agent),
    post("/ui/sources/{source}/suspend", DEPLOY, Over::Agent),
    post("/ui/sources/{source}/resume", DEPLOY, Over::Agent),
    post("/ui/channels/{channel}/test", ADMIN, Over::Agent),
    post("/ui/tokens/{token}/revoke", ADMIN, Over::Agent),
    get("/login", &[], Over::Open),
    get("/login/oidc", &[], Over::Open),
    get("/login/oidc/callback", &[], Over::Open),
    get("/ui/theme", &[], Over::Open),
    get("/ui/assets/{name}", &[], Over::Open),
];

/// The rule of a route. `HEAD` is `GET` without its body.
pub fn rule(method: &str, path: &str) -> Option<&'static Rule> {
    let method = if method == "HEAD" { "GET" } else { method };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}

/// Whether any method has a rule at this path.
pub fn is_known(path: &str) -> bool {
    RULES.iter().any(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a readable directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_some_and(|name| name != "tests" && name != "rules")
            {
                found.push(path);
            }
        }
    }

    /// Method and path of every `.route("…", get(…).post(…))` in the code of the API, without that of its tests.
    fn routes() -> BTreeSet<(String, String)> {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"), &mut files);
        let mut found = BTreeSet::new();
        for file in files {
            let text = fs::read_to_string(&file).expect("a readable file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in code.split(".route(").skip(1) {
                let path = call.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (path, rest) = path.unwrap_or_else(|| panic!("{}: a route without a literal path", file.display()));
                let handlers = rest.split(".route(").next().unwrap_or_default();
                let handlers = handlers.split_once('\n').map_or(handlers, |(line, more)| {
                    if line.trim_end().ends_with(',') {
                        more.split_once('\n').map_or(more, |(next, _)| next)
                    } else {
                        line
                    }
                });
                let all = ["get", "post", "put", "delete", "patch"];
                let methods: Vec<_> = all.iter().filter(|method| handlers.contains(&format!("{method}("))).collect();
                assert!(!methods.is_empty(), "{}: {path} has no method", file.display());
                found.extend(methods.iter().map(|method| (method.to_ascii_uppercase(), path.to_owned())));
            }
        }
        found
    }

    #[test]
    fn every_route_of_the_router_has_a_rule_and_every_rule_a_route() {
        let rules: BTreeSet<(String, String)> =
            RULES.iter().map(|rule| (rule.method.to_owned(), rule.path.to_owned())).collect();
        assert_eq!(rules.len(), RULES.len(), "a route has two rules");
        let routes = routes();
        let without: Vec<_> = routes.difference(&rules).collect();
        assert!(without.is_empty(), "routes without a rule in api/rules.rs: {without:?}");
        let dead: Vec<_> = rules.difference(&routes).collect();
        assert!(dead.is_empty(), "rules in api/rules.rs without a route: {dead:?}");
    }

    /// The table as the documentation shows it.
    fn table() -> String {
        let mut text = String::from("\n| route | verb | concerns |\n|---|---|---|\n");
        for rule in RULES {
            let verbs: Vec<String> = rule.verbs.iter().map(|verb| format!("`{verb}`")).collect();
            let verbs = if verbs.is_empty() { "none".to_owned() } else { verbs.join(" or ") };
            let over = match rule.over {
                Over::App => "the app",
                Over::Apps => "all apps: shows those of the scope",
                Over::Named => "all apps: a scope for some names one with `app=`",
                Over::Owner => "the app it belongs to",
                Over::Upload => "the app in the archive",
                Over::Agent => "the agent",
                Over::Open => "nobody: proves itself otherwise",
            };
            text.push_str(&format!("| `{} {}` | {verbs} | {over} |\n", rule.method, rule.path));
        }
        text
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md");
        let text = fs::read_to_string(&path).expect("docs/access.md");
        let (before, rest) = text.split_once("<!-- routes -->").expect("a place for the table");
        let (_, after) = rest.split_once("<!-- /routes -->").expect("the end of the table");
        let wanted = format!("{before}<!-- routes -->\n{}\n<!-- /routes -->{after}", table());
        if std::env::var_os("LANDFALL_UPDATE_DOCS").is_some() {
            fs::write(&path, &wanted).expect("written");
        }
        let now = fs::read_to_string(&path).expect("docs/access.md");
        assert!(now == wanted, "docs/access.md is out of date; run the tests once with LANDFALL_UPDATE_DOCS=1");
    }

    #[test]
    fn changes_have_names_in_the_audit_log_and_calls_are_none() {
        let named: Vec<String> = RULES.iter().filter(|rule| rule.is_recorded()).map(Rule::action).collect();
        for name in [
            "app.rollback",
            "app.stop",
            "schedule.run",
            "call.cancel",
            "source.approve",
            "token.create",
            "token.revoke",
            "deploy",
        ] {
            assert!(named.iter().any(|known| known == name), "{name} is missing in {named:?}");
        }
        assert!(!named.iter().any(|name| name.starts_with("function.")), "{named:?}");
    }

    #[test]
    fn what_looks_changes_nothing_and_what_is_about_an_app_names_it() {
        for rule in RULES {
            if rule.verbs.contains(&Verb::Read) {
                assert_eq!(rule.method, "GET", "{}: `read` must not be enough for a change", rule.path);
            }
            assert_eq!(rule.verbs.is_empty(), rule.over == Over::Open, "{}", rule.path);
            assert_eq!(rule.path.contains("{app}"), rule.over == Over::App, "{}", rule.path);
            if rule.over == Over::Owner {
                assert!(["{deployment}", "{call}", "{instance}"].iter().any(|name| rule.path.contains(name)));
            }
        }
    }
}
