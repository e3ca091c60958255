//! Sandboxes of a template with a start command that are started before they are asked for.

use std::time::{Duration, Instant};

use casemate_client::api::Sandbox;

use super::build::{Built, new_name};
use super::{Bench, WARM_UP, run_script, sdk};
use crate::bench::error::BenchError;
use crate::bench::nothing::DoNothing;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Where the start command writes when it begins.
const BEGAN: &str = "/tmp/began";
/// The most that a claim may add to what the SDK takes by itself, milliseconds.
const CLAIM_MORE: f64 = 2.0;
/// At most so many: between two the platform gets a moment.
const CREATES_MAX: usize = 60;
const MOMENT: Duration = Duration::from_millis(500);

impl Bench<'_> {
    /// A create that finds one, through the SDK and past it.
    pub(in crate::bench) async fn warm(&mut self) -> Result<(), BenchError> {
        let name = new_name("warm");
        let start = format!("date +%s.%N > {BEGAN}; exec sleep infinity");
        let ready = format!("test -s {BEGAN}");
        let built = self.build_started(&name, &start, &ready).await?;
        let measured = self.claims(&built).await;
        self.delete_template(&built.template_id).await?;
        let figures = measured?;
        self.figures.extend(figures);
        Ok(())
    }

    async fn claims(&self, built: &Built) -> Result<Vec<Figure>, BenchError> {
        let (template, count) = (&*built.template_id, self.options.count.min(CREATES_MAX));
        let (mut warm, mut plain) = (Samples::default(), Samples::default());
        for sample in 0..WARM_UP + count {
            // Processors that slept make everything slower: both begin after a moment.
            tokio::time::sleep(MOMENT).await;
            let bare = self.create_timed(&self.options.template).await?;
            let (sandbox, bare) = bare;
            self.kill(&[sandbox.sandbox_id]).await?;
            tokio::time::sleep(MOMENT).await;
            let (sandbox, took) = self.create_timed(template).await?;
            // Each API server of a cluster makes its own, and none before its first create of these.
            let waited = match sample >= WARM_UP {
                true => self.must_have_waited(&sandbox).await,
                false => Ok(()),
            };
            self.kill(&[sandbox.sandbox_id]).await?;
            waited?;
            if sample >= WARM_UP {
                plain.push_duration(bare);
                warm.push_duration(took);
            }
        }
        let mut figures = vec![
            Figure::time("create: one that is started already", &warm)
                .beside("create of one that starts nothing", &plain),
        ];
        if let Some(with) = &self.options.sdk {
            let (counted, check) = ((count, template), ["create", BEGAN]);
            let idle = DoNothing::start().await?;
            let nothing = sdk::run(with, &idle.base, &idle.base, counted, &check[..1]).await?;
            drop(idle);
            let claims = sdk::run(with, &with.api_url, self.edge, counted, &check).await?;
            figures.push(
                Figure::time("stock Python SDK: create, started already", &claims)
                    .beside("the SDK against a server that does nothing", &nothing)
                    .at_most_above_floor(CLAIM_MORE),
            );
        }
        Ok(figures)
    }

    async fn create_timed(&self, template: &str) -> Result<(Sandbox, Duration), BenchError> {
        let begun = Instant::now();
        let sandbox = self.create_from(template).await?;
        Ok((sandbox, begun.elapsed()))
    }

    /// What was started in it cannot be younger than the request that got it.
    async fn must_have_waited(&self, sandbox: &Sandbox) -> Result<(), BenchError> {
        let age = format!("test $(date -r {BEGAN} +%s%3N) -lt $(($(date +%s%3N) - 300))");
        run_script(&self.envd(sandbox)?, &age).await?;
        Ok(())
    }
}
