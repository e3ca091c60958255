//! Every bound of the agent, in one place. What is bounded here is memory and descriptors of the
//! sandbox itself: a program inside can reach the port, too.

use std::time::Duration;

/// Connections served at once; further ones wait in the kernel's queue.
pub const CONNECTIONS: usize = 512;
/// An idle connection is closed after this. Longer than the proxy keeps one, so that the proxy
/// never sends a request into a closing connection.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(640);
/// Request head: more is answered with 431 by the HTTP layer. 4096 bytes of metadata fit many
/// times, as do long paths.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Headers of a request: the metadata budget allows some 400 one-letter keys.
pub const HEADERS: usize = 512;

/// One RPC message, compressed or not: `resource_exhausted` beyond. In JSON this carries 12 MiB of
/// standard input; longer input is streamed.
pub const RPC_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// What is still read of a request that nobody reads, so that its sender gets to reading the answer
/// and the connection stays usable; beyond, it is closed. The proxy waits less long for that.
pub const DISCARDED_BYTES: usize = 256 * 1024 * 1024;
pub const DISCARDING: Duration = Duration::from_secs(10);
/// Body of `/init` and `/files/compose`: a CA bundle of 200 certificates is 300 KiB.
pub const JSON_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Live processes started over the API: `resource_exhausted` beyond.
pub const PROCESSES: usize = 2048;
/// Open streams of one process: `resource_exhausted` beyond.
pub const READERS_PER_PROCESS: usize = 256;
/// Chunks waiting for one reader of one process; then the process waits for that reader.
pub const CHUNKS_PER_READER: usize = 16;
/// Bytes taken by one read of a pipe.
pub const PIPE_CHUNK_BYTES: usize = 32 * 1024;
/// Bytes taken by one read of a terminal.
pub const TERMINAL_CHUNK_BYTES: usize = 16 * 1024;
/// Output that is streamed to readers, of all processes together, once [`OUTPUT_BURST`] is used up;
/// what writes more waits on its full pipe.
pub const OUTPUT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// What may be streamed at once after a rest, as time at the rate above: 16 MiB.
pub const OUTPUT_BURST: Duration = Duration::from_millis(500);
/// A message counts as so many bytes at least, because each costs its readers time.
pub const OUTPUT_MESSAGE_BYTES: usize = 8 * 1024;
/// Output still in the pipe of a killed process that is delivered after its end.
pub const DRAIN_BYTES: usize = 1024 * 1024;
/// How long the end of a process can be asked for.
pub const RETAINED_EXIT: Duration = Duration::from_secs(30);
/// Ends kept; the oldest goes first.
pub const RETAINED_EXITS: usize = 4096;

/// Silence on a stream after which a keepalive is sent, unless the client asks otherwise.
pub const KEEPALIVE: Duration = Duration::from_secs(90);

/// Watchers of all kinds (each is an inotify instance): `resource_exhausted` beyond.
pub const WATCHERS: usize = 128;
/// Directories watched by one recursive watcher; beyond, the watcher fails with `internal`.
pub const WATCHES_PER_WATCHER: usize = 65_536;
/// Events kept for `GetWatcherEvents`; beyond, the watcher fails as on a kernel overflow.
pub const EVENTS_PER_WATCHER: usize = 65_536;
/// Entries of one `ListDir`: `resource_exhausted` beyond (the answer is built in memory).
pub const LIST_ENTRIES: usize = 100_000;
/// As the kernel has it.
pub const PATH_BYTES: usize = 4096;

/// Threads for file work; they end when idle.
pub const BLOCKING_THREADS: usize = 8;
pub const BLOCKING_IDLE: Duration = Duration::from_secs(1);
/// Stack of such a thread (reserved, not used): the standard library removes trees recursively, with
/// a descriptor per level, so that [`OPEN_FILES`] bounds what it needs.
pub const BLOCKING_STACK_BYTES: usize = 8 * 1024 * 1024;

/// An upload whose body stalls for so long is ended.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(60);
/// Bytes gathered before a write, and read at once for a download.
pub const FILE_CHUNK_BYTES: usize = 256 * 1024;
/// Headers of one multipart part.
pub const PART_HEAD_BYTES: usize = 16 * 1024;
/// Files in one multipart upload.
pub const PARTS: usize = 4096;
/// Ranges in one request; with more the whole file is sent.
pub const RANGES: usize = 16;
/// Metadata: one key, and the sum over all of 9 + key + value.
pub const METADATA_KEY_BYTES: usize = 246;
pub const METADATA_BYTES: usize = 4096;
/// Sources of one compose call.
pub const COMPOSE_SOURCES: usize = 10_000;

/// What one build route takes, unpacked or not: refused beyond. The largest images have a third.
pub const BUILD_BYTES: u64 = 64 << 30;
/// Entries of one archive, headers that extend others counted.
pub const BUILD_ENTRIES: u64 = 4_000_000;
/// A build route whose body stalls for so long is ended. Longer than an upload: what is behind it may
/// be a registry.
pub const BUILD_IDLE: Duration = Duration::from_secs(300);
/// Pieces of a body that wait for the disk; each is at most as long as the HTTP layer's buffer.
pub const BUILD_PIECES: usize = 8;
/// One extended header of an archive. Attributes of a file have 64 KiB each at most.
pub const TAR_EXTENSION_BYTES: u64 = 1024 * 1024;
/// Pieces of one sparse file.
pub const SPARSE_PIECES: usize = 1 << 18;
/// Names kept while an archive is unpacked: of folders, and of what lies in older ones.
pub const BUILD_NAME_BYTES: usize = 256 * 1024 * 1024;
/// Owners and groups: what a sandbox's user namespace has.
pub const BUILD_OWNER: u32 = 65_535;
/// Symbolic links followed on the way to one folder, as the kernel has it.
pub const SYMLINKS: u32 = 40;

/// How long a template's start is waited for.
pub const STARTUP: Duration = Duration::from_secs(600);
/// Between two tries of the ready command: doubled from the first to the last.
pub const READY_PAUSE: Duration = Duration::from_millis(20);
pub const READY_PAUSE_LONGEST: Duration = Duration::from_secs(2);
/// Of what the commands wrote, kept for the words of a failure.
pub const STARTUP_OUTPUT_BYTES: usize = 4096;
/// How long one request waits for the outcome of a start; longer waits are cut to this.
pub const STARTUP_WAIT: Duration = Duration::from_secs(60);

/// One line of the log, with its end: what a pipe takes in one piece.
pub const LOG_LINE_BYTES: usize = 4096;
/// Of a command and its arguments in the log; the rest is cut off.
pub const LOG_COMMAND_BYTES: usize = 1024;
/// Of any other text in the log.
pub const LOG_TEXT_BYTES: usize = 256;

/// Configuration handed to the init.
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Open descriptors of the agent itself, where it may raise its limit so far.
pub const OPEN_FILES: u64 = 4096;
