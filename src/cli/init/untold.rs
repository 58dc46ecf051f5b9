//! What Compose files say and manifests cannot, each with the reason or the mend.

/// Keys of a service.
const OF_SERVICES: &[(&str, &str)] = &[
    ("annotations", "containers carry Landfall's own labels"),
    ("attach", "all output is kept: `landfall app logs`"),
    ("blkio_config", "limits are those of `resources`: memory, processors, processes"),
    ("build", "only a directory below this file can be built"),
    ("cap_add", "containers get no capabilities beyond the engine's usual ones"),
    ("cap_drop", "containers have the engine's usual capabilities, without new privileges"),
    ("cgroup", "containers have control groups of their own"),
    ("cgroup_parent", "limits are those of `resources`"),
    (
        "configs",
        "put the file into the app's directory; it is in the version's tree, at `/landfall/app` in the container",
    ),
    ("container_name", "each version starts containers beside those before it, so each has a name of its own"),
    ("credential_spec", "a matter of Windows"),
    ("develop", "a push is what changes an app"),
    ("device_cgroup_rules", "containers get no devices"),
    ("devices", "containers get no devices"),
    ("dns", "containers use the engine's name servers"),
    ("dns_opt", "containers use the engine's name servers"),
    ("dns_search", "containers use the engine's name servers"),
    ("domainname", "containers are given no names"),
    ("entrypoint", "the image's own ENTRYPOINT stays; put another one into the Dockerfile"),
    ("extends", "what another file says is not read; write it out"),
    ("external_links", "containers have no names for each other"),
    ("extra_hosts", "containers know `host.docker.internal` besides the engine's names"),
    ("gpus", "containers get no devices"),
    ("group_add", "write `user: \"uid:gid\"`"),
    ("hostname", "containers are given no names"),
    ("init", "the program is process 1 of its container; put `tini` into the image if it leaves processes behind"),
    ("ipc", "containers have name spaces of their own"),
    ("isolation", "a matter of Windows"),
    ("label_file", "containers carry Landfall's own labels"),
    (
        "labels",
        "containers carry Landfall's own labels; hosts and paths of a router go to `web.<name>.hosts` and `path`",
    ),
    ("links", "containers have no names for each other"),
    ("logging", "all output is kept by Landfall itself: `retention.logs` of the agent"),
    ("mac_address", "containers are given no addresses"),
    ("mem_reservation", "only limits are known: `resources.memory`"),
    ("mem_swappiness", "memory limits are without swap"),
    ("memswap_limit", "memory limits are without swap"),
    ("models", "not known to Landfall"),
    ("network_mode", "all containers join one network: `docker.network` of the agent"),
    ("networks", "all containers join one network: `docker.network` of the agent"),
    ("oom_kill_disable", "an instance beyond its memory is ended and started again"),
    ("oom_score_adj", "an instance beyond its memory is ended and started again"),
    ("pid", "containers have name spaces of their own"),
    ("platform", "images are fetched and built for this machine"),
    ("post_start", "nothing is run in a container beside its program"),
    ("pre_stop", "at SIGTERM a program has its `grace`"),
    ("privileged", "containers are never privileged"),
    ("provider", "not known to Landfall"),
    ("runtime", "containers run in the engine's default runtime"),
    (
        "secrets",
        "name secrets in the manifest's `secrets`, where they become variables; store them with `landfall secret set`",
    ),
    ("security_opt", "containers are always without new privileges; nothing else can be set"),
    ("shm_size", "the engine's default of 64 MB"),
    ("stdin_open", "nobody types into an instance"),
    ("stop_signal", "an instance gets the image's STOPSIGNAL; put it into the Dockerfile"),
    ("storage_opt", "the engine's default"),
    ("sysctls", "the engine's defaults"),
    ("tmpfs", "`/tmp` of a container with `read_only` is in memory; other paths cannot be"),
    ("tty", "nobody types into an instance"),
    ("ulimits", "the engine's defaults; `resources.processes` limits processes"),
    ("use_api_socket", "instances are given no socket of the engine"),
    ("userns_mode", "the engine's default"),
    ("uts", "containers have name spaces of their own"),
    ("volumes_from", "a volume belongs to one app"),
    ("working_dir", "commands start in the image's WORKDIR; set it in the Dockerfile"),
];

/// Keys beside `services`.
const OF_FILES: &[(&str, &str)] = &[
    ("configs", "put the files into the app's directory; they are part of the version's tree"),
    ("include", "what other files say is not read; translate them one by one"),
    ("models", "not known to Landfall"),
    ("networks", "all containers join one network: `docker.network` of the agent"),
    ("secrets", "store them with `landfall secret set`; the manifest's `secrets` names them"),
];

/// Keys below `deploy`.
const OF_DEPLOY: &[(&str, &str)] = &[
    ("endpoint_mode", "the proxy spreads requests over ready instances"),
    ("labels", "containers carry Landfall's own labels"),
    ("mode", "an agent runs what is on its machine; say how many with `instances`"),
    ("placement", "an agent runs what is on its machine"),
    ("restart_policy", "instances are started again whenever they end, slower each time"),
    ("rollback_config", "a version that fails within its `bake` time is rolled back by itself"),
    (
        "update_config",
        "a new version starts beside the old one and is switched to when it is ready; `strategy: recreate` for the other way",
    ),
];

fn why(table: &[(&str, &'static str)], key: &str) -> &'static str {
    table.iter().find(|(known, _)| *known == key).map_or("not known to Landfall", |(_, why)| why)
}

/// Why a key of a service has no place in a manifest.
pub(super) fn of_service(key: &str) -> &'static str {
    why(OF_SERVICES, key)
}

/// The same for a key beside `services`.
pub(super) fn of_file(key: &str) -> &'static str {
    why(OF_FILES, key)
}

/// The same for a key below `deploy`.
pub(super) fn of_deploy(key: &str) -> &'static str {
    why(OF_DEPLOY, key)
}

/// What listens on a port where the proxy's HTTP means nothing.
pub(super) fn not_http(port: u16) -> Option<&'static str> {
    let known: &[(u16, &'static str)] = &[
        (22, "SSH"),
        (25, "SMTP"),
        (53, "DNS"),
        (389, "LDAP"),
        (587, "SMTP"),
        (1433, "SQL Server"),
        (1883, "MQTT"),
        (2181, "ZooKeeper"),
        (3306, "MySQL"),
        (4222, "NATS"),
        (5432, "PostgreSQL"),
        (5672, "AMQP"),
        (6379, "Redis"),
        (9042, "Cassandra"),
        (9092, "Kafka"),
        (11211, "memcached"),
        (27017, "MongoDB"),
    ];
    known.iter().find(|(number, _)| *number == port).map(|(_, what)| *what)
}
