//! The origin of steady time: one for each boot, whoever runs in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use casemate_namespaces::NamespacesConfig;
use casemate_types::steady::{self, Exchange};

use super::sandboxes::make_run_dir;
use crate::data_dir::DataDir;

/// In the instance's folder of `/run`: the origin, and the boot that it is of. Not everywhere does a
/// reboot empty that folder.
const FILE: &str = "clock";

/// Takes the origin that an earlier process of this boot fixed, or fixes one by the wall clock.
pub(super) fn start(dir: &DataDir) -> anyhow::Result<()> {
    let kept = Kept::of(dir)?;
    match kept.origin {
        Some(origin) => steady::set_origin(origin),
        None => kept.fix(steady::offset())?,
    };
    Ok(())
}

/// Questions to another clock: the first finds connections that are still to be made and caches
/// that are cold.
const EXCHANGES: u32 = 6;
/// Of a round trip that is this short no better one is looked for, microseconds.
const ROUND_TRIP_GOOD: i64 = 200;

/// The origin of another machine's clock, by the quickest of some questions. Those that fail after
/// one was answered are let be.
pub async fn origin_of<Asked, E>(mut ask: impl FnMut() -> Asked) -> Result<i64, E>
where
    Asked: Future<Output = Result<i64, E>>,
{
    origin_by(steady::since_boot_us, &mut ask).await
}

async fn origin_by<Asked, E>(
    clock: impl Fn() -> i64,
    ask: &mut impl FnMut() -> Asked,
) -> Result<i64, E>
where
    Asked: Future<Output = Result<i64, E>>,
{
    let mut exchange = async || {
        let asked = clock();
        let said = ask().await?;
        let answered = clock();
        Ok(Exchange {
            asked,
            answered,
            said,
        })
    };
    let mut best = exchange().await?;
    for _ in 1..EXCHANGES {
        if best.round_trip() <= ROUND_TRIP_GOOD {
            break;
        }
        let Ok(next) = exchange().await else { break };
        if next.round_trip() < best.round_trip() {
            best = next;
        }
    }
    Ok(best.origin())
}

/// What of it is known in this boot.
pub(super) struct Kept {
    path: PathBuf,
    boot: String,
    pub(super) origin: Option<i64>,
}

impl Kept {
    pub(super) fn of(dir: &DataDir) -> anyhow::Result<Self> {
        let run_dir = NamespacesConfig::run_dir_default();
        make_run_dir(&run_dir)?;
        let folder = run_dir.join(dir.instance().as_str());
        fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.trim().to_owned();
        let origin = read(&path)?
            .as_deref()
            .and_then(|text| of_boot(text, &boot));
        Ok(Self { path, boot, origin })
    }

    /// From now on, and for the processes of this boot that follow.
    pub(super) fn fix(&self, origin: i64) -> io::Result<bool> {
        let half = self.path.with_extension("new");
        fs::write(&half, format!("{origin} {}", self.boot))?;
        fs::rename(&half, &self.path)?;
        Ok(steady::set_origin(origin))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `None` where it is another boot's, or nothing that can be read.
fn of_boot(text: &str, boot: &str) -> Option<i64> {
    let (origin, of) = text.split_once(' ')?;
    (of.trim() == boot).then(|| origin.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An origin by a clock that is 1 000 000 ahead, whose answers take as long as said: (there, back).
    fn origin_with(ways: &[(i64, i64)]) -> (i64, usize) {
        let (now, asked) = (Cell::new(500), Cell::new(0));
        let mut ask = || {
            let way = ways.get(asked.get()).copied();
            asked.set(asked.get() + 1);
            let now = &now;
            async move {
                let (there, back) = way.ok_or("it is away")?;
                now.set(now.get() + there);
                let said = now.get() + 1_000_000;
                now.set(now.get() + back);
                Ok::<_, &str>(said)
            }
        };
        let origin = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(origin_by(|| now.get(), &mut ask));
        (origin.unwrap(), asked.get())
    }

    #[test]
    fn another_clock_is_read_by_the_quickest_of_some_questions() {
        // The first waits for a connection, on the way there.
        let slow = [(90_000, 1_000), (700, 500), (400, 400), (30_000, 400)];
        assert_eq!(origin_with(&slow).0, 1_000_000);
        // Never wrong by more than half of the best round trip.
        let uneven = [(80_000, 0), (0, 3_000), (9_000, 0)];
        let wrong = origin_with(&uneven).0 - 1_000_000;
        assert_eq!(wrong.abs(), 1_500);
        // It is not asked for ever, nor again once it is known well.
        assert_eq!(origin_with(&[(1_000, 1_000); 100]).1, EXCHANGES as usize);
        assert_eq!(origin_with(&[(50, 50); 100]), (1_000_000, 1));
        // One that goes after an answer has answered.
        assert_eq!(origin_with(&[(2_000, 2_000)]), (1_000_000, 2));
    }

    #[tokio::test]
    async fn a_clock_that_never_answers_has_no_origin() {
        let origin = origin_of(async || Err::<i64, _>("away")).await;
        assert_eq!(origin, Err("away"));
    }

    #[test]
    fn an_origin_is_one_boot_s() {
        assert_eq!(of_boot("-12 a\n", "a"), Some(-12));
        assert_eq!(of_boot("12 a", "b"), None);
        assert_eq!(of_boot("12", "a"), None);
        assert_eq!(of_boot("x a", "a"), None);
    }
}
