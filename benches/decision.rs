//! What it costs to find out what one commit changed, among 100, 1,000 and 10,000 apps.
//!
//! Sharded: `apps/<digit>/<digit>/<app>`, as hashes are sharded. Square: `apps/<shard>/<app>`, as many shards as apps in each;
//! its directories themselves grow, and so does their cost. Flat: `apps/<app>`.
//!
//! Measured as the agent lives: one looker that stays open, and before each look a new commit that changes one file of
//! one app, its objects beside the pack as a push leaves them. The baseline is libgit2's own comparison of the same two
//! trees, in the same run, in a repository that stays open as well.
//!
//! `cargo bench --bench decision`; exits with 1 if a limit is missed.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use landfall::domain::AppName;
use landfall::domain::manifest::{Manifest, Millis, Strategy};
use landfall::files::config::{GitReference, GitSource, SourceConfig, SourceKind};
use landfall::source::{KnownApps, Look, LookLimits, Looker, Reading};

const ROUNDS: usize = 41;

fn main() -> ExitCode {
    println!(
        "{:<8} {:>7} {:>12} {:>12} {:>12} {:>7} {:>9} {:>9}",
        "layout", "apps", "first ms", "decide µs", "libgit2 µs", "ratio", "manifests", "trees"
    );
    let mut rows = Vec::new();
    for layout in ["sharded", "flat", "square"] {
        for apps in [100, 1_000, 10_000] {
            rows.push(measure(layout, apps));
        }
    }
    let growth = rows[2].decide.as_secs_f64() / rows[0].decide.as_secs_f64();
    let flat = rows[5].decide.as_secs_f64() / rows[5].baseline.as_secs_f64();
    let first = rows.iter().map(|row| row.first).max().unwrap_or_default();
    let one_each = rows.iter().all(|row| row.manifests == 1);
    println!();
    println!("sharded, 10,000 apps against 100: {growth:.2} (at most 2)");
    println!("flat, 10,000 apps, against libgit2: {flat:.2} (at most 1.5)");
    println!("first reading, longest: {} ms (at most 1000)", first.as_millis());
    println!("manifests read for one changed app: {}", if one_each { "1 everywhere" } else { "too many" });
    if growth <= 2.0 && flat <= 1.5 && first <= Duration::from_secs(1) && one_each {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Row {
    first: Duration,
    decide: Duration,
    baseline: Duration,
    manifests: u64,
}

fn measure(layout: &str, apps: usize) -> Row {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), layout, apps);
    let mut looker = {
        let git = GitSource {
            reference: GitReference::Branch("main".into()),
            paths: vec!["apps".into()],
            ..GitSource::at(&dir.path().display().to_string())
        };
        let config = SourceConfig {
            environment: None,
            name: "bench".parse().unwrap(),
            kind: SourceKind::Git(git),
            brake: landfall::domain::Brake::Percent(30),
        };
        let no_snapshot = Arc::new(|_: &Path| panic!("not a directory"));
        Looker::new(&config, dir.path(), Arc::new(parse), no_snapshot).unwrap()
    };
    let limits =
        LookLimits { deadline: Instant::now() + Duration::from_secs(60), cancel: Arc::new(AtomicBool::new(false)) };
    let read = |looker: &mut Looker, last: Option<&Reading>, known: &KnownApps| -> (Reading, Duration) {
        let started = Instant::now();
        let look = looker.look(last.map(|reading| &reading.seen), known, &limits).unwrap();
        let took = started.elapsed();
        let Look::Changed(reading) = look else { panic!("unchanged") };
        (*reading, took)
    };
    let (mut old, first) = read(&mut looker, None, &KnownApps::default());
    assert_eq!(old.read.len(), apps);
    let mut known = KnownApps::default();
    known.apply(&old);
    let (mut decide, mut baseline, mut stats) = (Vec::new(), Vec::new(), None);
    let open = git2::Repository::open(dir.path()).unwrap();
    for round in 0..ROUNDS {
        let path = format!("{}/server.py", directory(layout, apps, (apps / 2 + round * 7) % apps));
        let (before, after) = push(dir.path(), &path, round);
        let (new, took) = read(&mut looker, Some(&old), &known);
        assert_eq!(new.read.len(), 1);
        known.apply(&new);
        stats = Some(new.stats);
        decide.push(took);
        baseline.push(libgit2(&open, before, after));
        old = new;
    }
    let stats = stats.unwrap();
    let row = Row { first, decide: median(decide), baseline: median(baseline), manifests: stats.manifests_read };
    println!(
        "{:<8} {:>7} {:>12.1} {:>12} {:>12} {:>7.2} {:>9} {:>9}",
        layout,
        apps,
        first.as_secs_f64() * 1e3,
        row.decide.as_micros(),
        row.baseline.as_micros(),
        row.decide.as_secs_f64() / row.baseline.as_secs_f64(),
        stats.manifests_read,
        stats.trees_read,
    );
    row
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn libgit2(repository: &git2::Repository, before: git2::Oid, after: git2::Oid) -> Duration {
    let started = Instant::now();
    let tree = |commit| repository.find_commit(commit).unwrap().tree().unwrap();
    let diff = repository.diff_tree_to_tree(Some(&tree(before)), Some(&tree(after)), None).unwrap();
    assert_eq!(diff.deltas().len(), 1);
    started.elapsed()
}

/// A commit that changes one file, on top of the branch; gives the commits before and after.
fn push(path: &Path, file: &str, round: usize) -> (git2::Oid, git2::Oid) {
    let repository = git2::Repository::open(path).unwrap();
    let head = repository.find_reference("refs/heads/main").unwrap().peel_to_commit().unwrap();
    let blob = repository.blob(format!("print('changed {round}')\n").as_bytes()).unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert(file, blob, git2::FileMode::Blob);
    let tree = update.create_updated(&repository, &head.tree().unwrap()).unwrap();
    let tree = repository.find_tree(tree).unwrap();
    let who = git2::Signature::now("A", "a@example.com").unwrap();
    let commit = repository.commit(Some("refs/heads/main"), &who, &who, "change", &tree, &[&head]).unwrap();
    (head.id(), commit)
}

/// Where an app lies in a layout of so many.
fn directory(layout: &str, apps: usize, app: usize) -> String {
    let shards = (apps as f64).sqrt() as usize;
    match layout {
        "sharded" => format!("apps/{:x}/{:x}/app-{app:05}", app % 16, app / 16 % 16),
        "square" => format!("apps/shard-{:03}/app-{app:05}", app % shards),
        _ => format!("apps/app-{app:05}"),
    }
}

/// A packed bare repository with one commit that holds all apps.
fn build(path: &Path, layout: &str, apps: usize) {
    run(path, &["init", "-q", "--bare", "-b", "main", "."]);
    let mut stream =
        String::from("commit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\ndata 5\nfirst\n");
    let file = |stream: &mut String, path: &str, text: &str| {
        stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()));
    };
    for app in 0..apps {
        let directory = directory(layout, apps, app);
        file(&mut stream, &format!("{directory}/landfall.yaml"), &manifest(app));
        file(&mut stream, &format!("{directory}/server.py"), &format!("print({app})\n"));
        file(&mut stream, &format!("{directory}/lib/util.py"), &format!("X = {app}\n"));
    }
    import(path, &stream);
    run(path, &["repack", "-q", "-a", "-d"]);
}

fn import(path: &Path, stream: &str) {
    let mut import =
        Command::new("git").current_dir(path).args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
}

fn run(path: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").current_dir(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// About what a real manifest looks like.
fn manifest(app: usize) -> String {
    format!(
        "app: app-{app}\nenv: {{LOG_LEVEL: info}}\nweb:\n  main:\n    command: [python3, server.py]\n    health: {{path: /healthz}}\n"
    )
}

/// Reads the name only: how long YAML takes is not measured here (DESIGN.md §10: 30 µs each).
fn parse(name: &str, text: &str) -> Result<Manifest, String> {
    let app = text.lines().find_map(|line| line.strip_prefix("app: ")).ok_or_else(|| format!("{name}: no app"))?;
    Ok(Manifest {
        container: None,
        app: app.parse::<AppName>().map_err(|error| error.to_string())?,
        build: None,
        include: Vec::new(),
        secrets: Default::default(),
        secret_files: Default::default(),
        encrypted_files: Default::default(),
        env: BTreeMap::new(),
        volumes: BTreeMap::new(),
        depends_on: Vec::new(),
        strategy: Strategy::Rolling,
        bake: Millis::seconds(30),
        notify: Vec::new(),
        functions: Default::default(),
        publish: None,
        compose: None,
        web: BTreeMap::new(),
        workers: BTreeMap::new(),
    })
}
