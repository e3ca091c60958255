//! A node becomes a member through a process without rights: the node is root, and parses no byte of
//! another machine.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_cluster::is_member_name;
use casemate_linux::scm;
use casemate_types::pauses::drawn;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{NotEntered, Place, Wanted};
use crate::config::Config;
use crate::data_dir::{DataDir, make_dir};
use crate::user::{self, SystemUser};
use crate::{child, log};

/// What the process is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Setup {
    config: Config,
    place: Place,
    /// A token was given to be used, whatever is there.
    joins: bool,
}

/// What comes of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Entered(Entered),
    /// Perhaps later.
    NotNow(String),
    Refused(String),
}

/// This machine is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    pub name: String,
    /// The origin of the cluster's steady time in this boot; `None`: no API server was reached.
    pub origin: Option<i64>,
}

/// Waits between attempts, doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Gives the folder of the member to the user as whom others are spoken with.
pub fn prepare(dir: &DataDir, user: SystemUser) -> anyhow::Result<()> {
    make_dir(&dir.member(), 0o700)?;
    user::own(&dir.member(), user)?;
    user::must_reach(&dir.member(), user::CONTROL, user)
}

/// Joins or renews, again and again until it is done, or until it is of no use. With `needs_origin`
/// it is not done before an API server has answered.
pub async fn enter(
    config: &Config,
    dir: &DataDir,
    user: SystemUser,
    needs_origin: bool,
) -> anyhow::Result<Entered> {
    let setup = Setup {
        config: config.clone(),
        place: Place::of(dir),
        joins: false,
    };
    let mut wait = RETRY_FIRST;
    loop {
        let why = match ask(&setup, user).await? {
            Answer::Entered(entered) if entered.origin.is_some() || !needs_origin => {
                ensure!(
                    is_member_name(&entered.name),
                    "the process that joins said no name"
                );
                return Ok(entered);
            }
            Answer::Entered(_) => "no API server says the cluster's time".into(),
            Answer::NotNow(why) => why,
            Answer::Refused(why) => bail!("{why}"),
        };
        warn!(why, "waiting for an API server of the cluster: {why}");
        tokio::time::sleep(drawn(wait)).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

/// Joins once; as which node.
pub async fn join(config: &Config, dir: &DataDir, user: SystemUser) -> anyhow::Result<String> {
    let setup = Setup {
        config: config.clone(),
        place: Place::of(dir),
        joins: true,
    };
    match ask(&setup, user).await? {
        Answer::Entered(entered) => Ok(entered.name),
        Answer::NotNow(why) | Answer::Refused(why) => bail!("{why}"),
    }
}

async fn ask(setup: &Setup, user: SystemUser) -> anyhow::Result<Answer> {
    let (mut process, socket) = child::start("member", user, setup, &[])?;
    // It says one thing and ends: to wait for its end is to wait for that.
    let status = process.wait().await.context("wait for it")?;
    ensure!(status.success(), "the process that joins ended: {status}");
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let (length, _) = scm::recv(&socket, &mut buffer).context("read what it said")?;
    serde_json::from_slice(&buffer[..length]).context("it said something else")
}

/// The process.
pub fn run() -> anyhow::Result<()> {
    let (setup, _, socket) = child::receive::<Setup>()?;
    log::start(&setup.config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entering = async {
        let wanted = Wanted::of(&setup.config, &setup.place)?;
        let name = wanted.name().to_owned();
        let origin = match setup.joins {
            true => Some(wanted.join().await?),
            false => wanted.enter().await?.1,
        };
        Ok(Entered { name, origin })
    };
    let answer = match runtime.block_on(entering) {
        Ok(entered) => Answer::Entered(entered),
        Err(NotEntered::Now(error)) => Answer::NotNow(format!("{error:#}")),
        Err(NotEntered::ForGood(error)) => Answer::Refused(format!("{error:#}")),
    };
    scm::send(&socket, &serde_json::to_vec(&answer)?, &[]).context("answer")
}
