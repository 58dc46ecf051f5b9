//! Files as people have them, and what becomes of them.

use std::collections::BTreeMap;

use super::compose::{Around, translate};
use super::{Translation, procfile};
use crate::domain::Manifest;
use crate::files::read_manifest;

/// A web application as its framework's guide shows it: one image, three commands, a database and a cache.
const FRAMEWORK: &str = r#"
name: My_Shop
x-app: &app
  build: .
  env_file: .env.production
  environment:
    RAILS_ENV: production
    DATABASE_URL: postgres://shop:${DB_PASSWORD}@db/shop
    LOG_LEVEL: ${LOG_LEVEL:-info}
  depends_on:
    db: {condition: service_healthy}
    migrate: {condition: service_completed_successfully}
services:
  web:
    <<: *app
    command: bundle exec puma -p 3000
    ports: ["80:3000"]
    restart: always
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/up"]
      interval: 10s
      retries: 5
    deploy:
      replicas: 2
      resources:
        limits: {cpus: "0.5", memory: 512M}
  sidekiq:
    <<: *app
    command: bundle exec sidekiq
    stop_grace_period: 30s
  migrate:
    <<: *app
    command: bundle exec rails db:migrate
    depends_on: []
    restart: "no"
  db:
    image: postgres:16
    volumes: ["pgdata:/var/lib/postgresql/data"]
    ports: ["5432:5432"]
    environment: {POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    healthcheck: {test: [CMD-SHELL, pg_isready]}
volumes:
  pgdata:
"#;

fn translated(text: &str) -> Translation {
    let around = Around {
        project: "shop-main",
        values: &BTreeMap::from([("TAG".to_owned(), "1.27".to_owned())]),
        beside: &|name| {
            (name == ".env.production").then(|| "# keys\nSTRIPE_KEY=sk_live_1\nexport MAIL_FROM=\"a@b\"\n".to_owned())
        },
    };
    translate("compose.yaml", text, &around).unwrap()
}

/// The manifest of a directory, read as an agent would.
fn manifest(translation: &Translation, directory: &str) -> Manifest {
    let draft = translation.drafts.iter().find(|draft| draft.directory.to_str() == Some(directory));
    let text = draft.unwrap_or_else(|| panic!("nothing for {directory:?}")).manifest.written();
    read_manifest("landfall.yaml", &text).unwrap_or_else(|errors| panic!("{text}{errors:?}"))
}

/// The lines that are spoken of, each with what is said.
fn notes(translation: &Translation) -> Vec<String> {
    translation.notes.iter().map(|note| format!("{} {}: {}", note.line, note.key, note.text)).collect()
}

/// Asserts that something is said of a key, with these words in it.
fn says(translation: &Translation, key: &str, words: &str) {
    let all = notes(translation);
    assert!(all.iter().any(|note| note.contains(key) && note.contains(words)), "{key}: {words}\n{}", all.join("\n"));
}

#[test]
fn services_of_one_image_become_objects_of_one_app() {
    let translation = translated(FRAMEWORK);
    let shop = manifest(&translation, "");
    assert_eq!(shop.app.as_str(), "my-shop");
    let web = shop.web.values().next().unwrap();
    assert_eq!(web.command, ["bundle", "exec", "puma", "-p", "3000"]);
    assert_eq!(web.port, Some(3000));
    assert_eq!(web.health.path.as_deref(), Some("/up"));
    assert_eq!((web.health.fall, web.health.interval.0), (5, 10_000));
    assert_eq!((web.resources.memory.map(|size| size.0), web.resources.cpu_millis), (Some(512 << 20), Some(500)));
    assert_eq!(web.env["LOG_LEVEL"], "info");
    let worker = shop.workers.values().next().unwrap();
    assert_eq!((worker.command.join(" ").as_str(), worker.grace.0), ("bundle exec sidekiq", 30_000));
    assert_eq!(shop.functions.keys().map(ToString::to_string).collect::<Vec<_>>(), ["migrate"]);
    let db = manifest(&translation, "db");
    assert_eq!(db.volumes.keys().map(ToString::to_string).collect::<Vec<_>>(), ["pgdata"]);
    assert!(db.web.is_empty() && db.workers.len() == 1);
    assert_eq!(shop.depends_on.iter().map(ToString::to_string).collect::<Vec<_>>(), ["db"]);
}

#[test]
fn values_from_elsewhere_become_secrets_and_are_never_copied() {
    let translation = translated(FRAMEWORK);
    let secrets: Vec<String> =
        manifest(&translation, "").secrets.iter().map(|(variable, name)| format!("{variable}={name}")).collect();
    assert_eq!(secrets, ["DATABASE_URL=database-url", "MAIL_FROM=mail-from", "STRIPE_KEY=stripe-key"]);
    let all = notes(&translation).join("\n")
        + &translation.drafts.iter().map(|draft| draft.manifest.written()).collect::<String>();
    assert!(!all.contains("sk_live_1"), "{all}");
    says(&translation, "services.web.environment.DATABASE_URL", "landfall secret set database-url");
    says(&translation, "services.web.env_file", "`stripe-key`, `mail-from`");
}

#[test]
fn what_is_not_translated_is_said_at_its_line() {
    let translation = translated(FRAMEWORK);
    says(&translation, "17 services.web.ports", "not at port 80 of the machine");
    says(&translation, "services.web.depends_on.migrate", "nothing waits for a function");
    says(&translation, "services.db", "port 5432 is PostgreSQL");
    let hard = r#"
services:
  app:
    image: ghcr.io/acme/app:${TAG}
    container_name: app
    entrypoint: [tini, --]
    command: sh -c 'exec server "$$HOME"'
    privileged: true
    user: "1000:1000"
    networks: [front]
    tmpfs: /run
    unheard_of: 1
    volumes:
      - ./config:/etc/app:ro
      - /var/cache
      - data:/data:ro
    ports:
      - "127.0.0.1:8080:8080"
      - "9000-9010:9000-9010"
      - "514:514/udp"
      - {target: 9090, published: "9090"}
    environment:
      - CACHE_HOST=cache
      - API_TOKEN=abc
      - FROM_SHELL
    profiles: []
  cache: {image: "redis:${REDIS_TAG:-7}", profiles: [debug]}
  other: {build: {context: ../other}}
networks: {front: {}}
secrets: {key: {file: ./key}}
volumes: {data: {driver: nfs}}
"#;
    let translation = translated(hard);
    for (key, words) in [
        ("5 services.app.container_name", "a name of its own"),
        ("6 services.app.entrypoint", "ENTRYPOINT stays"),
        ("8 services.app.privileged", "never privileged"),
        ("10 services.app.networks", "`docker.network`"),
        ("11 services.app.tmpfs", "in memory"),
        ("12 services.app.unheard_of", "not known"),
        ("14 services.app.volumes", "`./config`"),
        ("15 services.app.volumes", "`/var/cache`"),
        ("16 services.app.volumes", "can be written to"),
        ("19 services.app.ports", "not one port"),
        ("20 services.app.ports", "HTTP only"),
        ("services.app.environment.CACHE_HOST", "names the service `cache`"),
        ("services.app.environment.API_TOKEN", "landfall secret set"),
        ("25 services.app.environment.FROM_SHELL", "landfall secret set from-shell"),
        ("27 services.cache.profiles", "a function"),
        ("27 services.cache", "left out: a function needs a `command`"),
        ("28 services.other.build", "below this file"),
        ("28 services.other", "left out"),
        ("29 networks", "`docker.network`"),
        ("30 secrets", "landfall secret set"),
        ("31 volumes.data", "empty"),
    ] {
        says(&translation, key, words);
    }
    let app = &translation.drafts[0];
    let text = app.manifest.written();
    assert!(text.contains("image: ghcr.io/acme/app:1.27") && text.contains("user: \"1000:1000\""), "{text}");
    assert!(text.contains(r#"[sh, "-c", "exec server \"$HOME\""]"#) && text.contains("port: 8080"), "{text}");
}

#[test]
fn one_service_is_one_app_where_the_file_lies() {
    let translation = translated("services: {web: {build: ./src, ports: [8000]}}");
    let app = manifest(&translation, "");
    assert_eq!((app.app.as_str(), translation.drafts.len()), ("shop-main", 1));
    assert!(translation.drafts[0].manifest.written().contains("context: src"), "{:?}", translation.drafts);
    assert_eq!(notes(&translation), [""; 0]);
}

#[test]
fn each_built_directory_is_an_app_of_its_own() {
    let text = "services: {api: {build: ./api, ports: ['8000']}, ui: {build: {context: ui, dockerfile: ./prod.Dockerfile, args: {A: 1}}, ports: ['3000:3000']}}";
    let translation = translated(text);
    assert_eq!(manifest(&translation, "api").app.as_str(), "api");
    let ui = translation.drafts.iter().find(|draft| draft.app == "ui").unwrap();
    let written = ui.manifest.written();
    assert!(written.contains("dockerfile: prod.Dockerfile") && !written.contains("context"), "{written}");
    manifest(&translation, "ui");
}

#[test]
fn a_file_without_services_and_one_that_is_not_yaml_are_refused_with_their_place() {
    let around = Around { project: "x", values: &BTreeMap::new(), beside: &|_| None };
    let refused = |text: &str| translate("compose.yaml", text, &around).unwrap_err().iter().next().unwrap().to_string();
    assert!(refused("version: '3'\n").contains("no services"));
    assert!(refused("services: [a\n").starts_with("compose.yaml:"));
}

#[test]
fn a_procfile_becomes_endpoint_workers_and_a_function() {
    let text = "# processes\nweb: gunicorn app:app --bind $HOST:$PORT\nrelease: ./manage.py migrate\nmail_worker: celery -A app worker -Q 'mail'\nempty:\nnonsense\n";
    let translation = procfile::translate(text, "My App", &|name| name == "requirements.txt");
    let app = manifest(&translation, "");
    assert_eq!(app.app.as_str(), "my-app");
    assert_eq!(app.web.values().next().unwrap().command, ["sh", "-c", "gunicorn app:app --bind $HOST:$PORT"]);
    assert_eq!(app.workers.keys().next().unwrap().as_str(), "mail-worker");
    assert!(app.functions.keys().any(|name| name.as_str() == "release"));
    for (key, words) in [
        ("3 release", "landfall call"),
        ("4 mail_worker", "named `mail-worker`"),
        ("5 empty", "no command"),
        ("6 ", "name: command"),
        ("0 ", "requirements.txt"),
    ] {
        says(&translation, key, words);
    }
}
