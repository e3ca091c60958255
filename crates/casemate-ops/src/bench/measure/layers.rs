//! The same create and the same rebuild with few and with many layers and cached states.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::Bench;
use super::build::{Built, new_name, run_step};
use crate::bench::Scale;
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Few, beside which many are looked at.
const FEW: usize = 10;
/// The most that many may cost, as a multiple.
const TIMES: f64 = 1.2;
/// Builds that are asked for at once; a team may have 20.
const AT_ONCE: usize = 8;
/// How long the platform is left alone after many builds.
const REST: Duration = Duration::from_secs(10);
/// Steps of the recipe that is built again.
const STEPS: usize = 3;

/// What is compared.
struct Seen {
    create: Samples,
    rebuild: Samples,
}

impl Bench<'_> {
    /// Each layer is a build of one small step: it leaves kept files, a read-only layer and two rows
    /// of the cache. Templates go at the end; layers stay until the cache forgets them, so few are
    /// looked at first alone.
    pub(in crate::bench) async fn beside_layers(
        &mut self,
        scale: &Scale,
    ) -> Result<(), BenchError> {
        let name = new_name("layers");
        let first = self.build_one(&name, 0).await?;
        let outcome = self.with_layers(&name, scale.layers).await;
        self.delete_template(&first.template_id).await?;
        let (few, many) = outcome?;
        let layers = scale.layers;
        for (what, few, many) in [
            ("create → result", few.create, many.create),
            ("rebuild with nothing changed", few.rebuild, many.rebuild),
        ] {
            let figure = Figure::time(&format!("{what} with {layers} layers more"), &many);
            let figure = figure.beside(&format!("the same with {FEW} more, before"), &few);
            self.figures.push(figure.at_most(few.p50() * TIMES));
        }
        Ok(())
    }

    async fn with_layers(&mut self, name: &str, layers: usize) -> Result<(Seen, Seen), BenchError> {
        self.build_more(name, 1..FEW).await?;
        let few = self.seen(name).await?;
        self.build_more(name, FEW..layers).await?;
        let many = self.seen(name).await?;
        Ok((few, many))
    }

    async fn seen(&mut self, name: &str) -> Result<Seen, BenchError> {
        tokio::time::sleep(REST).await;
        let count = self.options.count;
        let steps: Vec<_> = (0..STEPS)
            .map(|number| run_step(format!("echo {name} > /opt/again-{number}")))
            .collect();
        let rebuild = self.unchanged(name, &steps, count).await?;
        let (create, _) = self.whole(count).await?;
        Ok(Seen { create, rebuild })
    }

    async fn build_more(
        &self,
        name: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<(), BenchError> {
        let mut builds = stream::iter(numbers)
            .map(|number| self.build_one(name, number))
            .buffer_unordered(AT_ONCE);
        while let Some(built) = builds.next().await {
            built?;
        }
        Ok(())
    }

    /// Under a tag of its own, for one of the same would end it.
    async fn build_one(&self, name: &str, number: usize) -> Result<Built, BenchError> {
        let step = run_step(format!("echo {name} > /opt/layer-{number}"));
        let tagged = format!("{name}:n{number}");
        self.build(&tagged, &self.options.template, &[step]).await
    }
}
