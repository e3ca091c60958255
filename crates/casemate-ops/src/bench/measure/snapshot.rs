//! Taking snapshots, and beginning with one.

use std::time::{Duration, Instant};

use casemate_client::Envd;

use super::{Bench, WARM_UP, run_script};
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Looks at the clock again and again, and says the longest time in between, in milliseconds: what
/// a program inside notices of standing still. Ends once there is a file.
const TICKER: &str = r#"python3 -c '
import os, time
last, most = time.monotonic(), 0
while not os.path.exists("/tmp/stop"):
    now = time.monotonic()
    last, most = now, max(most, now - last)
    time.sleep(0.0005)
print(most * 1000)'; rm /tmp/stop"#;
/// Written before each snapshot, and not synced.
const DIRTY: &str = "head -c 10000000 /dev/urandom >/home/user/dirty";
/// Until the ticker ticks, and as long as it is let tick without a snapshot.
const MOMENT: Duration = Duration::from_millis(150);

impl Bench<'_> {
    pub(in crate::bench) async fn snapshot(&mut self) -> Result<(), BenchError> {
        let sandbox = self.create().await?;
        let envd = self.envd(&sandbox)?;
        let id = sandbox.sandbox_id;
        let measured = self.standstills(&id, &envd).await;
        self.kill(&[id]).await?;
        let figures = measured?;
        self.figures.extend(figures);
        Ok(())
    }

    async fn standstills(&mut self, id: &str, envd: &Envd) -> Result<Vec<Figure>, BenchError> {
        let [mut frozen, mut bare, mut whole] = [(); 3].map(|()| Samples::default());
        for sample in 0..WARM_UP + self.options.count {
            run_script(envd, DIRTY).await?;
            let mut took = Duration::ZERO;
            let noticed = ticking(envd, async {
                let begun = Instant::now();
                let snapshot = self.take(id).await?;
                took = begun.elapsed();
                Ok(snapshot)
            });
            let (longest, snapshot) = noticed.await?;
            self.forget(&snapshot).await?;
            let idle = async {
                tokio::time::sleep(took).await;
                Ok(())
            };
            let (quiet, ()) = ticking(envd, idle).await?;
            if sample >= WARM_UP {
                frozen.push(longest);
                bare.push(quiet);
                whole.push_duration(took);
            }
        }
        Ok(vec![
            Figure::time(
                "standstill for a snapshot with 10 MB dirty, seen inside",
                &frozen,
            )
            .beside("the longest gap seen inside as long without one", &bare)
            .at_most(50.0),
            Figure::time("· the snapshot's whole call", &whole),
        ])
    }

    /// Creates from the base and from a snapshot in turn.
    pub(in crate::bench) async fn begin_with_snapshot(&mut self) -> Result<(), BenchError> {
        let sandbox = self.create().await?;
        let envd = self.envd(&sandbox)?;
        let taken = match run_script(&envd, DIRTY).await {
            Ok(_) => self.take(&sandbox.sandbox_id).await,
            Err(error) => Err(error),
        };
        self.kill(&[sandbox.sandbox_id]).await?;
        let snapshot = taken?;
        let measured = self.in_turn(&snapshot).await;
        self.forget(&snapshot).await?;
        let (kept, base) = measured?;
        self.figures.push(
            Figure::time("create from a snapshot", &kept)
                .beside("create from the base", &base)
                .at_most_above_floor(2.0),
        );
        Ok(())
    }

    async fn in_turn(&self, snapshot: &str) -> Result<(Samples, Samples), BenchError> {
        let (mut kept, mut base) = (Samples::default(), Samples::default());
        for sample in 0..WARM_UP + self.options.count {
            for (template, samples) in [(snapshot, &mut kept), (&*self.options.template, &mut base)]
            {
                let begun = Instant::now();
                let sandbox = self.create_from(template).await?;
                let took = begun.elapsed();
                self.kill(&[sandbox.sandbox_id]).await?;
                if sample >= WARM_UP {
                    samples.push_duration(took);
                }
            }
        }
        Ok((kept, base))
    }

    async fn take(&self, id: &str) -> Result<String, BenchError> {
        let taken = self.api.snapshot_take(id, None).await;
        let taken = taken.map_err(|source| BenchError::Api {
            action: "take a snapshot",
            source,
        })?;
        Ok(taken.snapshot_id)
    }

    async fn forget(&self, snapshot: &str) -> Result<(), BenchError> {
        let deleted = self.api.snapshot_delete(snapshot).await;
        deleted.map(drop).map_err(|source| BenchError::Api {
            action: "delete a snapshot",
            source,
        })
    }
}

/// The longest gap that a program inside sees meanwhile, in milliseconds.
async fn ticking<T>(
    envd: &Envd,
    meanwhile: impl Future<Output = Result<T, BenchError>>,
) -> Result<(f64, T), BenchError> {
    let around = async {
        tokio::time::sleep(MOMENT).await;
        let done = meanwhile.await;
        // Stopped whatever came of it.
        run_script(envd, "touch /tmp/stop").await?;
        done
    };
    let (said, done) = tokio::join!(run_script(envd, TICKER), around);
    let said = said?;
    let longest = said.trim().parse();
    Ok((longest.map_err(|_| BenchError::Said { said })?, done?))
}
