//! Configurations as people write them, right and wrong.

use super::*;

const FILE: &str = "/etc/landfall/landfall.yaml";

fn with(text: &str, env: &[(&str, &str)]) -> Result<Config, FileErrors> {
    let mut env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    read_config(Path::new(FILE), text, &mut env)
}

fn read(text: &str) -> Config {
    with(text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The only error of a text.
fn error(text: &str, env: &[(&str, &str)]) -> FileError {
    let errors = with(text, env).map(|config| panic!("accepted: {config:?}")).unwrap_or_else(|errors| errors);
    assert_eq!(errors.len(), 1, "{errors}");
    errors.into_iter().next().expect("one error")
}

const EVERYTHING: &str = r#"
data_dir: ../data
environment: prod
sources:
  - name: fleet
    git:
      url: "https://git.example.com/acme/fleet.git"
      branch: main
      path: apps/
      poll: 30s
      timeout: 20s
      credentials: {username: bot, password_file: secrets/token}
      ca_file: ca.pem
      submodules: true
      submodule_credentials: [{host: "Git.Example.org:8443", password_command: [pass, show, git]}]
      cache_quota: 100MiB
      on_force_push: follow
      webhook: {secret_files: [/run/hook, ./old]}
  - name: here
    directory: {path: ./examples, debounce: 100ms}
  - name: local
    git: {url: ../fleet.git, tag: v1}
  - name: private
    git: {url: "git@github.com:acme/fleet.git", ssh: {key_file: keys/deploy, passphrase_file: /run/p, known_hosts_file: known_hosts}}
proxy: {listen: ["0.0.0.0:80", "[::]:80"], domain: Example.com, trusted_proxies: [10.0.0.0/8], max_connections: 5, access_log: false}
api: {socket: /run/landfall.sock, listen: "127.0.0.1:7171"}
runtime: process
limits: {deployments: 8, builds: 2}
retention: {versions: 20, stopped_apps: 1d, logs: 100MiB}
users: {agent: landfall, apps: apps}
"#;

#[test]
fn every_key_reaches_the_configuration() {
    let config = read(EVERYTHING);
    assert_eq!(config.data_dir, Path::new("/etc/data"));
    assert_eq!(config.environment.as_str(), "prod");
    let [fleet, here, local, private] = config.sources.as_slice() else { panic!("{:?}", config.sources) };
    let expected = GitSource {
        url: "https://git.example.com/acme/fleet.git".into(),
        reference: GitReference::Branch("main".into()),
        paths: vec!["apps".into()],
        poll: Millis::seconds(30),
        timeout: Millis::seconds(20),
        credentials: Some(Credentials {
            username: "bot".into(),
            password: PasswordFrom::File("/etc/landfall/secrets/token".into()),
        }),
        ca_file: Some("/etc/landfall/ca.pem".into()),
        submodules: true,
        submodule_credentials: vec![HostCredentials {
            host: "git.example.org:8443".into(),
            credentials: Credentials {
                username: "git".into(),
                password: PasswordFrom::Command(vec!["pass".into(), "show".into(), "git".into()]),
            },
        }],
        cache_quota: Bytes::mib(100),
        webhook: Some(Webhook { secret_files: vec!["/run/hook".into(), "/etc/landfall/old".into()] }),
        on_force_push: OnForcePush::Follow,
        ssh: None,
        verify: None,
        status: None,
    };
    assert_eq!(fleet.kind, SourceKind::Git(expected));
    let directory = DirectorySource { path: "/etc/landfall/examples".into(), debounce: Millis(100) };
    assert_eq!(here.kind, SourceKind::Directory(directory));
    let SourceKind::Git(git) = &local.kind else { panic!("{local:?}") };
    assert_eq!((git.url.as_str(), &git.reference), ("/etc/fleet.git", &GitReference::Tag("v1".into())));
    let SourceKind::Git(git) = &private.kind else { panic!("{private:?}") };
    let ssh = SshConfig {
        key_file: "/etc/landfall/keys/deploy".into(),
        passphrase_file: Some("/run/p".into()),
        known_hosts_file: Some("/etc/landfall/known_hosts".into()),
    };
    assert_eq!((git.url.as_str(), git.ssh.as_ref()), ("git@github.com:acme/fleet.git", Some(&ssh)));
    assert_eq!(config.proxy.listen.len(), 2);
    assert_eq!((config.proxy.domain.as_str(), config.proxy.max_connections), ("example.com", 5));
    assert!(!config.proxy.access_log);
    assert_eq!(config.proxy.trusted_proxies, ["10.0.0.0/8"]);
    assert_eq!(config.api.socket, Path::new("/run/landfall.sock"));
    assert_eq!(config.api.listen, "127.0.0.1:7171".parse().ok());
    assert_eq!(config.limits, Limits { deployments: 8, builds: 2, disk_free: None, backlog: 1_000_000 });
    assert_eq!((config.retention.versions, config.retention.logs), (20, Bytes::mib(100)));
    assert_eq!(config.users, Some(UsersConfig { agent: "landfall".into(), apps: "apps".into() }));
}

#[test]
fn an_almost_empty_configuration_equals_the_defaults() {
    let config = read("environment: main");
    assert_eq!(config, Config::default_at(Path::new("/etc/landfall/data")));
}

#[test]
fn what_is_followed_has_many_names() {
    let reference = |keys: &str| {
        let config = read(&format!("sources: [{{name: a, git: {{url: /x, {keys}}}}}]"));
        let [SourceConfig { kind: SourceKind::Git(git), .. }] = config.sources.as_slice() else { panic!("{config:?}") };
        (git.reference.clone(), git.paths.clone())
    };
    let id = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(reference("ref: HEAD").0, GitReference::Head);
    assert_eq!(reference("ref: v1").0, GitReference::Named("v1".into()));
    assert_eq!(reference("ref: refs/pull/1/head").0, GitReference::Full("refs/pull/1/head".into()));
    assert_eq!(reference(&format!("ref: {id}")).0, GitReference::Commit(id.parse().expect("a commit")));
    assert_eq!(reference("semver: '>=1.2, <2'").0.to_string(), "tags >=1.2, <2");
    assert_eq!(reference("paths: [b/, a, a/x, b]").1, ["a", "b"]);
}

#[test]
fn variables_win_over_the_text() {
    let env = [
        ("LANDFALL_API__LISTEN", "127.0.0.1:9000"),
        ("LANDFALL_DATA_DIR", "/var/lib/landfall"),
        ("LANDFALL_PROXY__LISTEN", "0.0.0.0:80, [::]:80"),
        ("LANDFALL_PROXY__ACCESS_LOG", "false"),
        ("LANDFALL_LIMITS__BUILDS", "3"),
        ("LANDFALL_SOURCES__0__NAME", "fleet"),
        ("LANDFALL_SOURCES__0__GIT__URL", "https://git.example.com/x"),
        ("LANDFALL_SOURCES__0__GIT__BRANCH", "1.4"),
        ("LANDFALL_AGENT", "/x"),
        ("LANDFALL_LOG", "debug"),
        ("LANDFALL_CONFIG", "x"),
        ("LANDFALL_FDS", "3"),
        ("LANDFALL_APP", "a"),
        ("PATH", "/bin"),
    ];
    let config = with("limits: {builds: 2}\napi:\n", &env).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.api.listen, "127.0.0.1:9000".parse().ok());
    assert_eq!(config.api.socket, Path::new("/var/lib/landfall/landfall.sock"));
    assert_eq!((config.proxy.listen.len(), config.proxy.access_log, config.limits.builds), (2, false, 3));
    let [SourceConfig { kind: SourceKind::Git(git), .. }] = config.sources.as_slice() else { panic!("{config:?}") };
    assert_eq!(git.reference, GitReference::Branch("1.4".into()));
}

#[test]
fn a_misspelt_variable_is_an_error_with_the_right_one() {
    let error_of = |name: &str, value: &str| error("environment: main", &[(name, value)]);
    let listen = error_of("LANDFALL_API__LISTN", "127.0.0.1:1").to_string();
    assert!(
        listen.contains("$LANDFALL_API__LISTN: unknown key `listn`, did you mean `LANDFALL_API__LISTEN`?"),
        "{listen}"
    );
    assert!(error_of("LANDFALL_DATADIR", "x").message.contains("LANDFALL_DATA_DIR"));
    assert!(error_of("LANDFALL_NOTHING__LIKE", "x").message.contains("unknown key"));
    assert!(error_of("LANDFALL_PROXY__LISTEN__3", "127.0.0.1:1").message.contains("needs the entries before it"));
    assert!(error_of("LANDFALL_PROXY__LISTEN__X", "127.0.0.1:1").message.contains("number of a list entry"));
    assert!(error_of("LANDFALL_LIMITS__BUILDS__X", "1").message.contains("no keys of its own"));
    assert_eq!(error_of("LANDFALL_LIMITS__BUILDS", "many").file, "$LANDFALL_LIMITS__BUILDS");
    assert!(with("environment: main", &[("LANDFALL_SOMETHING", "x")]).is_ok());
}

#[test]
fn a_source_says_whom_it_trusts_and_where_it_reports() {
    let git = |more: &str, url: &str| {
        let text = format!("sources: [{{name: a, git: {{url: \"{url}\", {more}}}}}]");
        let config = read(&text);
        let [SourceConfig { kind: SourceKind::Git(git), .. }] = config.sources.as_slice() else { panic!("{config:?}") };
        git.clone()
    };
    let verify = git("tag: v1, verify: {mode: tag, openpgp_keyring_files: [keys.asc]}", "/x").verify.expect("given");
    assert_eq!(verify.mode, SignedObject::Tag);
    assert_eq!(verify.openpgp_keyring_files, [Path::new("/etc/landfall/keys.asc")]);
    for (url, more, kind, api, repository) in [
        ("https://github.com/acme/fleet.git", "", ForgeKind::GitHub, "https://api.github.com", "acme/fleet"),
        ("https://gitlab.com/g/sub/x", "", ForgeKind::GitLab, "https://gitlab.com/api/v4", "g/sub/x"),
        ("https://codeberg.org/a/b", "", ForgeKind::Gitea, "https://codeberg.org/api/v1", "a/b"),
        (
            "https://git.example.com:8443/a/b",
            ", provider: gitea",
            ForgeKind::Gitea,
            "https://git.example.com:8443/api/v1",
            "a/b",
        ),
        (
            "https://ghe.example.com/a/b",
            ", provider: github",
            ForgeKind::GitHub,
            "https://ghe.example.com/api/v3",
            "a/b",
        ),
        (
            "/srv/x.git",
            ", provider: gitlab, api_url: \"http://127.0.0.1:81/api/v4/\", repository: c/d",
            ForgeKind::GitLab,
            "http://127.0.0.1:81/api/v4",
            "c/d",
        ),
    ] {
        let status = git(&format!("status: {{token_file: token{more}}}"), url).status.expect("given");
        assert_eq!(
            (status.provider, status.api_url.as_str(), status.repository.as_str()),
            (kind, api, repository),
            "{url}"
        );
        assert_eq!(status.token_file, Path::new("/etc/landfall/token"));
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    for (text, words) in [
        ("api: {listen: \"7171\"}", "is not an address with a port"),
        ("sources: [{name: a}]", "either `git` or `directory`"),
        ("sources: [{name: a, git: {url: /x}, directory: {path: /x}}]", "either `git` or `directory`"),
        ("sources: [{name: a, git: {url: /x, branch: m, tag: t}}]", "not several"),
        ("sources: [{name: a, git: {url: /x}}, {name: a, git: {url: /y}}]", "two sources are named `a`"),
        ("sources: [{name: a, git: {url: /x, ref: r, semver: '1'}}]", "not several"),
        ("sources: [{name: a, git: {url: /x, semver: latest}}]", "is not a range of versions"),
        ("sources: [{name: a, git: {url: /x, path: a, paths: [b]}}]", "both `path` and `paths`"),
        ("sources: [{name: a, git: {url: 'https://h/x', credentials: {username: b}}}]", "needs one of `password_file`"),
        (
            "sources: [{name: a, git: {url: 'https://h/x', credentials: {password_file: a, password_env: B}}}]",
            "needs one of `password_file`",
        ),
        ("sources: [{name: a, git: {url: /x, submodules: true}}]", "on other machines"),
        ("sources: [{name: a, git: {url: /x, credentials: {password_file: f}}}]", "are for `https://`"),
        (
            "sources: [{name: a, git: {url: 'https://h/x', credentials: {password_command: 'pass git'}}}]",
            "must be a list",
        ),
        (
            "sources: [{name: a, git: {url: /x, submodule_credentials: [{host: h, password_file: f}]}}]",
            "which are not fetched",
        ),
        ("sources: [{name: a, git: {url: /x, webhook: {}}}]", "webhook.secret_files` is missing"),
        ("sources: [{name: a, git: {url: /x, webhook: {secret_files: []}}}]", "webhook.secret_files` is empty"),
        ("sources: [{name: a, git: {url: /x, webhook: {secret_files: [a, b, c]}}}]", "at most 2"),
        ("sources: [{name: a, git: {url: \"git@h:x\"}}]", "an ssh URL needs a key"),
        ("sources: [{name: a, git: {url: \"git@h:x\", ssh: {}}}]", "`sources[0].git.ssh.key_file` is missing"),
        ("sources: [{name: a, git: {url: /x, ssh: {key_file: k}}}]", "`ssh` is for ssh URLs"),
        ("sources: [{name: a, git: {url: /x, on_force_push: ask}}]", "follow or hold"),
        ("sources: [{name: a, git: {url: /x}, prune: {brake: 30 %}}]", "a part of them like 30%"),
        ("sources: [{name: a, git: {url: /x, verify: {}}}]", "names no keys"),
        (
            "sources: [{name: a, git: {url: /x, verify: {mode: tag, ssh_allowed_signers_file: f}}}]",
            "needs a tag to follow",
        ),
        (
            "sources: [{name: a, git: {url: /x, status: {token_file: f}}}]",
            "`sources[0].git.status.provider` is missing",
        ),
        (
            "sources: [{name: a, git: {url: /x, status: {token_file: f, provider: gitea, repository: a/b}}}]",
            "names no host",
        ),
        (
            "sources: [{name: a, git: {url: \"https://github.com/a/b/c\", status: {token_file: f}}}]",
            "no repository at this forge",
        ),
        (
            "sources: [{name: a, git: {url: \"https://github.com/a/b\", status: {token_file: f, api_url: \"http://x/api\"}}}]",
            "could read the token",
        ),
        ("agent_name: \"a/b\"", "cannot be an agent's name"),
        ("notifications: {ops: {}}", "must be of exactly one kind, this has 0"),
        ("notifications: {ops: {slack: {url_file: f}, ntfy: {url: \"https://ntfy.sh/x\"}}}", "this has 2"),
        (
            "notifications: {ops: {slack: {url_file: f}, events: [deployment.fialed]}}",
            "did you mean `deployment.failed`",
        ),
        ("notifications: {ops: {slack: {url_file: f}, title: \"{titel}\"}}", "is no placeholder"),
        ("notifications: {ops: {ntfy: {url: \"http://ntfy.example.com/x\"}}}", "could read the token"),
        (
            "notifications: {ops: {email: {host: h, from: a@b.c, to: [d@e.f], username: u, password_file: p, tls: none}}}",
            "would send the password in plain text",
        ),
        ("notifications: {ops: {email: {host: h, from: nobody, to: [d@e.f]}}}", "is not an e-mail address"),
        ("proxy: {listen: []}", "needs an address"),
        ("proxy: {tls: {listen: ['127.0.0.1:443']}}", "neither `certificates` nor `acme`"),
        ("proxy: {tls: {listen: [], acme: {accept_terms: true}}}", "`proxy.tls.listen` is empty"),
        ("proxy: {tls: {listen: ['127.0.0.1:8080'], acme: {accept_terms: true}}}", "speaks either HTTP or HTTPS"),
        ("proxy: {tls: {listen: ['127.0.0.1:443'], acme: {accept_terms: false}}}", "terms of service"),
        ("proxy: {listen: \"127.0.0.1:80\"}", "must be a list"),
        ("users: {agent: a}", "`users.apps` is missing"),
        ("retention: {versions: 0}", "from 2 to 10000"),
        ("proxi: {}", "did you mean `proxy`?"),
    ] {
        let message = error(text, &[]).message;
        assert!(message.contains(words), "{text}: {message}");
    }
    let long = format!("data_dir: /{}", "d".repeat(120));
    assert!(error(&long, &[]).message.contains("Linux allows 107"));
}
