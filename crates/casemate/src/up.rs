//! `casemate up`: all roles on this machine, in processes by privilege (decision 2); and what
//! `casemate node` has in common with it, which has a gate in the place of control.
//!
//! ```text
//! up (root, node) ──▶ launchers (root, one thread)      make sandboxes
//!        ├──────────▶ control (casemate)   api and edge, behind the public listeners; TLS
//!        └──────────▶ egress (casemate)    the resolver of sandboxes
//! ```
//!
//! This process parses no client's bytes. When it dies its children end and sandboxes stay.

pub mod base;
pub mod certificates;
pub mod clock;
pub mod doors;
pub mod programs;
mod ready;
mod room;
pub mod sandboxes;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::config::{self, Config, Flags, Loaded, Role, raw};
use crate::control::trial::Trial;
use crate::data_dir::{DataDir, admin_socket};
use crate::output::Output;
use crate::{admin, command, hand_over, log, user};
use doors::{Door, Doors};
use serve::Inherited;

#[derive(clap::Args)]
pub struct Args {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where API and edge listen.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Https beside http, with a certificate of our own authority, from files, or by ACME.
    #[arg(long, value_name = "off|local|files|acme")]
    tls: Option<String>,
    /// Where https listens.
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Option<String>,
    /// With `--tls files`: the certificate chain, PEM.
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// With `--tls files`: its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Name, and port, under which clients reach us.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Settings; `/etc/casemate/casemate.toml` when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Import the base template from an archive instead of making it.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Take the listeners over from the platform that runs in the data directory, which then ends:
    /// an upgrade without a refused connection. Sandboxes go on running.
    #[arg(long)]
    take_over: bool,
}

pub fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let take_over = args.take_over;
    let flags = Flags {
        data_dir: args.data_dir,
        listen: args.listen,
        tls: args.tls,
        tls_listen: args.tls_listen,
        tls_certificate: args.tls_certificate,
        tls_key: args.tls_key,
        domain: args.domain,
        config: args.config,
        base: args.base,
        ..Flags::default()
    };
    start(&flags, take_over, output)
}

/// Runs the role that the flags name until its end.
pub fn start(flags: &Flags, take_over: bool, output: &Output) -> anyhow::Result<ExitCode> {
    let Loaded { config, warnings } = config::load(flags)?;
    log::start(&config.log)?;
    reported(&config.log.clone(), output, |output| {
        run_with(config, warnings, take_over, output)
    })
}

/// Runs a role. What it says goes where the log does, where that is for programs.
pub fn reported(
    log: &raw::Log,
    output: &Output,
    run: impl FnOnce(&Output) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    if !log.is_json() {
        return run(output).map(|()| ExitCode::SUCCESS);
    }
    let output = output.clone().into_log();
    let ended = run(&output);
    Ok(match ended.inspect_err(|error| output.error(error)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn run_with(
    config: Config,
    warnings: Vec<String>,
    take_over: bool,
    output: &Output,
) -> anyhow::Result<()> {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let armed = casemate_failpoint::arm_from_environment()?;
    if !armed.is_empty() {
        tracing::warn!("this platform kills itself: fail points {armed} are armed");
    }
    refuse_this_machine(&config)?;
    if let Some(base) = &config.base {
        // Before anything is made on this host.
        std::fs::File::open(base)
            .with_context(|| format!("cannot read the archive {}", base.display()))?;
    }
    warn_of_exposure(&config);
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(crate::child::workers())
        .enable_all()
        .build()?;
    let mut held = None;
    let ended = runtime.block_on(async {
        let inherited = match take_over {
            true => inherit(&config).await?,
            false => None,
        };
        let inherited = match inherited {
            Some(inherited) => inherited,
            // The listeners come first: a port in use should cost nobody a minute.
            None => Inherited {
                doors: doors::open(&config, Doors::new()).await?,
                dir: DataDir::open(&config.data_dir)?,
                dns: None,
                proxy: None,
            },
        };
        held = Some(inherited.dir.lock().try_clone()?);
        serve::serve(config, inherited, output).await
    });
    // A base that is being made is given up. Until then it writes to the data directory, which is
    // nobody else's before we are gone.
    runtime.shutdown_timeout(LAST_WORK);
    drop(held);
    ended
}

/// How long work that nobody can cancel may go on at the end.
const LAST_WORK: Duration = Duration::from_secs(2);

/// What the platform hands over that runs in the data directory; `None` when none runs. Whatever
/// can fail is tried before it is asked: it then ends.
async fn inherit(config: &Config) -> anyhow::Result<Option<Inherited>> {
    let socket = admin_socket(&config.data_dir);
    let status = match admin::ask(&socket, admin::Request::Status).await? {
        None => return Ok(None),
        Some(admin::Reply::Status(status)) => status,
        Some(_) => bail!("the platform in {} is ending", config.data_dir.display()),
    };
    let Some(listen) = status.listen else {
        bail!(
            "the casemate that runs (process {}) is too old to hand over: stop it, which leaves \
             sandboxes running, and start this one",
            status.pid
        )
    };
    let mut theirs = status.doors;
    theirs.insert(Door::Http, listen);
    let elsewhere = doors::elsewhere(config, &theirs).await?;
    // A certificate that cannot be used is as good a reason to leave the other one running, and so is
    // a database.
    certificates::try_out(config)?;
    let trial = Trial {
        beside_another: true,
        ..serve::trial(config, &config.data_dir, &status.instance)
    };
    trial.pass(user::ensure(user::CONTROL)?).await?;
    let Some(handed) = hand_over::ask(&socket).await? else {
        tracing::warn!("the platform ended before it handed over: this is an ordinary start");
        return begin_after(config, elsewhere).await.map(Some);
    };
    let mut doors = handed.doors;
    doors.retain(|door, _| doors::wanted(config).contains_key(door));
    doors.extend(elsewhere);
    Ok(Some(Inherited {
        doors: doors::open(config, doors).await?,
        dir: DataDir::take_over(&config.data_dir, handed.lock)?,
        dns: Some(handed.dns),
        proxy: handed.proxy,
    }))
}

/// How long a platform that has just let go of us may go on holding its data directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// What an ordinary start makes, right after a platform died.
async fn begin_after(config: &Config, elsewhere: Doors) -> anyhow::Result<Inherited> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    let dir = loop {
        match DataDir::open(&config.data_dir) {
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            opened => break opened?,
        }
    };
    Ok(Inherited {
        doors: doors::open(config, elsewhere).await?,
        dir,
        dns: None,
        proxy: None,
    })
}

/// What `doctor` finds fatal stops us with the same words.
fn refuse_this_machine(config: &Config) -> anyhow::Result<()> {
    let failed: Vec<_> = command::doctor::required(config)
        .into_iter()
        .filter(|finding| finding.is_fatal())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = failed
        .iter()
        .map(|f| format!("{}: {}", f.what, f.words()))
        .collect();
    bail!(
        "this machine cannot run sandboxes\n  {}",
        lines.join("\n  ")
    )
}

fn warn_of_exposure(config: &Config) {
    if config.role == Role::Up && !config.listen.ip().is_loopback() {
        tracing::warn!(
            listen = %config.listen,
            "others can reach {}: keys and tokens travel in clear there (`--tls` gives https beside it)",
            config.listen
        );
    }
}

/// Open files of the node; a hard limit below it is used as it is.
const OPEN_FILES: u64 = 131_072;

/// Each sandbox and each connection is a descriptor or more; the soft limit of a shell is 1024.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = |maximum| Rlimit {
        current: maximum,
        maximum,
    };
    // Without the right to raise the hard limit, the soft one goes up to it.
    let raised = setrlimit(Resource::Nofile, wanted(Some(OPEN_FILES)))
        .or_else(|_| setrlimit(Resource::Nofile, wanted(limit.maximum)));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// The settings under which `down` and others find what `up` left.
pub fn config_of(data_dir: Option<PathBuf>, file: Option<PathBuf>) -> anyhow::Result<Config> {
    let config = config_for_all(data_dir, file)?;
    must_be_root()?;
    Ok(config)
}

/// The same for who need not be root.
pub fn config_for_all(data_dir: Option<PathBuf>, file: Option<PathBuf>) -> anyhow::Result<Config> {
    let flags = Flags {
        data_dir,
        config: file,
        ..Flags::default()
    };
    let Loaded { config, .. } = config::load(&flags)?;
    Ok(config)
}

pub fn must_be_root() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: run it with sudo"
    );
    Ok(())
}
