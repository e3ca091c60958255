//! The names of the user's guide: which key of ours each one is, or that it has no effect.

/// What a name of the guide means here.
pub(super) enum Meaning {
    /// The same as this key of ours.
    Key(&'static str, &'static str),
    /// The same, which has seconds: the guide writes `300s`.
    Seconds(&'static str, &'static str),
    /// Accepted with a warning that says why it changes nothing.
    Nothing(&'static str),
}

use Meaning::{Key, Nothing, Seconds};

const STORES: &str = "this version keeps its data in DIR on this machine";

/// Upper-case names are environment variables of the guide's manifests; lower-case ones are its
/// tuning map, which its deployments also give as environment variables.
pub(super) const NAMES: &[(&str, Meaning)] = &[
    ("DATABASE_URL", Key("database", "url")),
    ("DATABASE_PASSWORD", Key("database", "password")),
    ("REDIS_URL", Key("redis", "url")),
    ("STORAGE_BUCKET", Nothing(STORES)),
    (
        "JWT_SECRET",
        Nothing("this version knows API keys and access tokens only"),
    ),
    ("API_KEY_SECRET", Key("auth", "api_key_secret")),
    ("LOG_LEVEL", Key("log", "level")),
    ("MAX_SANDBOXES", Key("limits", "sandboxes_max")),
    ("SANDBOX_TIMEOUT", Key("limits", "sandbox_timeout_seconds")),
    (
        "FIRECRACKER_PATH",
        Nothing("this version isolates by namespaces"),
    ),
    ("API_URL", Key("cluster", "api")),
    ("JOIN_TOKEN", Key("cluster", "join_token")),
    (
        "api_workers",
        Nothing("workers follow the number of processors"),
    ),
    ("api_max_connections", Key("server", "connections_max")),
    (
        "api_request_timeout",
        Nothing("requests end at 70 s, as clients expect"),
    ),
    (
        "api_keepalive_timeout",
        Nothing("idle connections are kept 620 s, as clients expect"),
    ),
    ("sandbox_pool_size", Key("warm_pool", "size")),
    (
        "sandbox_warm_pool_size",
        Key("warm_pool", "size_per_template"),
    ),
    (
        "sandbox_max_idle_time",
        Seconds("warm_pool", "idle_seconds"),
    ),
    (
        "sandbox_cleanup_interval",
        Nothing("sandboxes are removed when they end"),
    ),
    ("db_max_connections", Key("database", "connections_max")),
    ("db_idle_timeout", Seconds("database", "idle_seconds")),
    (
        "db_connection_lifetime",
        Seconds("database", "lifetime_seconds"),
    ),
    (
        "redis_max_connections",
        Nothing("one connection carries all calls"),
    ),
    (
        "redis_connection_timeout",
        Seconds("redis", "connection_timeout_seconds"),
    ),
    (
        "redis_read_timeout",
        Seconds("redis", "call_timeout_seconds"),
    ),
    (
        "redis_write_timeout",
        Nothing("redis_read_timeout bounds a call as a whole"),
    ),
];
