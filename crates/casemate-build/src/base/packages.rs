//! What is in the base.

/// The Debian release of the base.
pub const SUITE: &str = "bookworm";

/// Installed beside Debian's essential packages, without recommended ones. Left out on purpose:
/// compilers (250 MB; `apt-get install build-essential` brings them) and Debian's `npm` (some
/// 400 packages; see [`NPM_VERSION`]).
pub const PACKAGES: &[&str] = &[
    "bzip2",
    "ca-certificates",
    "curl",
    "file",
    "git",
    "iproute2",
    "iputils-ping",
    "jq",
    "less",
    "libcap2-bin",
    "lsof",
    "make",
    "nano",
    "netcat-openbsd",
    "nodejs",
    "openssh-client",
    "patch",
    "procps",
    "psmisc",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "rsync",
    "socat",
    "strace",
    "sudo",
    "tzdata",
    "unzip",
    "vim-tiny",
    "wget",
    "xz-utils",
    "zip",
    "zstd",
];

/// npm comes as the one package that it is in its own registry; the newest line that Debian 12's
/// Node.js 18 runs.
pub const NPM_VERSION: &str = "10.9.9";
/// SHA-512 of that package, hexadecimal (the registry's `dist.integrity`).
pub const NPM_SHA512: &str = "d60fba8cb42f688b81e33c2f1cbef2ad7b977166700ec0ad057f1b6d60ea6ef2524abf673e20c35931cd8305d1dbb8887134d6eefdc0e7b8435bd458bf65b862";

/// Not unpacked, now or by a later `apt-get install`: manuals and translations are a tenth of the
/// size, and the mark that makes `pip install` refuse to work outside a virtual environment.
pub const PATHS_LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/lib/python3.*/EXTERNALLY-MANAGED",
];
