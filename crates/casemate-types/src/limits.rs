//! Limits that hold everywhere, with what happens at each. Limits that an operator sets are in
//! the configuration (`docs/configuration.md`); these are part of the contract.

/// Largest body of a control-plane request, bytes; beyond it the answer is 413.
pub const API_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest sum of names and values of `envVars`, bytes; beyond it create answers 400. They travel
/// in one message to the node and live in the agent's memory.
pub const ENV_BYTES_MAX: usize = 256 * 1024;
/// Largest name and value of one of them together, bytes; beyond it create answers 400. The kernel
/// takes 128 KiB for one argument or variable with an equals sign and a zero (`MAX_ARG_STRLEN`), and
/// with a larger one no process of the sandbox could be started.
pub const ENV_ONE_BYTES_MAX: usize = 128 * 1024 - 2;
/// Largest sum of keys and values of `metadata`, bytes; beyond it create answers 400.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Most entries of `allowOut` and `denyOut` together; beyond it 400.
pub const NETWORK_RULES_MAX: usize = 512;
/// Most domains among them; beyond it 400. They go to the egress process in one message.
pub const NETWORK_DOMAINS_MAX: usize = 256;
/// Most entries of `dnsServers`; beyond it 400. The resolver asks the first three.
pub const DNS_SERVERS_MAX: usize = 10;
/// Rows of a page at most, and by default.
pub const PAGE_ROWS_MAX: u32 = 100;
/// Longest life of a sandbox by default, hours; beyond it 400.
pub const LIFE_HOURS_MAX_DEFAULT: u32 = 24;
/// Seconds of life when a v1 create names none (decision 14).
pub const LIFE_SECONDS_DEFAULT_V1: u32 = 15;
/// Shortest extension by `refreshes`, seconds.
pub const REFRESH_SECONDS_MIN: u32 = 15;
/// Longest extension by `refreshes`, seconds; beyond it 400.
pub const REFRESH_SECONDS_MAX: u32 = 3600;
/// Sandboxes asked for in one metrics request at most.
pub const METRICS_SANDBOXES_MAX: usize = 100;
/// Largest message between the roles of one machine, bytes; a larger one is refused by its sender.
pub const RPC_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Forks that one request makes at most.
pub const FORKS_MAX: u32 = 100;

/// Tags of one request about a template at most; beyond it 400.
pub const TEMPLATE_TAGS_MAX: usize = 100;
/// Steps of a recipe at most; beyond it 400.
pub const BUILD_STEPS_MAX: usize = 10_000;
/// Largest body that starts a build, bytes; beyond it 413. It is in memory until the build has its turn,
/// and a team may have many that wait.
pub const RECIPE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Log lines of a build in one answer, at most and by default.
pub const BUILD_LOG_LINES_MAX: u32 = 100;
