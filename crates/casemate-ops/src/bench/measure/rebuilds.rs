//! Builds again: with nothing changed, with a late step changed, with one package more.

use std::time::Instant;

use casemate_client::api::TemplateStep;
use casemate_client::envd::process::Command;

use super::build::{Built, new_name, run_step};
use super::{Bench, OUTPUT_BYTES_MAX, WARM_UP};
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Steps of the recipe that is built again.
const STEPS: usize = 10;
/// What each of them takes: together so long that it shows when they are run again.
const STEP_SECONDS: f64 = 0.2;
/// At most so many builds of each kind; those that run something take a while.
const BUILDS_MAX: usize = 20;
/// The most that a build of nothing new may take, milliseconds.
const UNCHANGED_MAX: f64 = 1000.0;
/// What a late step may take beyond what is found in the cache, milliseconds. Less than the steps
/// before it take.
const LATE_MORE: f64 = 1000.0;
/// What the platform may add to what `pip` takes, milliseconds.
const PACKAGE_MORE: f64 = 2000.0;

/// A folder index (PEP 503) with one package in it, which needs no other.
const INDEX: &str = r#"set -e; mkdir -p /opt/index/simple/bench-package
cd /opt/index/simple/bench-package
python3 - <<'END'
import zipfile
info = "bench_package-1.0.dist-info/"
files = {
    "bench_package.py": "it = 1\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: bench-package\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = info + "RECORD"
files[record] = "".join(f"{name},,\n" for name in [*files, record])
wheel = "bench_package-1.0-py3-none-any.whl"
with zipfile.ZipFile(wheel, "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)
with open("index.html", "w") as index:
    index.write(f'<a href="{wheel}">{wheel}</a>\n')
END"#;

/// Serves the index where the package is installed, so that no network decides, and no policy.
const INSTALL: &str = r#"cd /opt/index || exit 1
python3 -m http.server --bind 127.0.0.1 8077 >/dev/null 2>&1 & server=$!
for try in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/8077) 2>/dev/null && break; sleep 0.02; done
no_proxy=127.0.0.1 PIP_ROOT_USER_ACTION=ignore pip install --isolated --no-cache-dir \
--disable-pip-version-check --break-system-packages --index-url http://127.0.0.1:8077/simple/ \
bench-package==1.0
status=$?; kill $server; exit $status"#;

impl Bench<'_> {
    pub(in crate::bench) async fn rebuilds(&mut self) -> Result<(), BenchError> {
        let name = new_name("rebuild");
        let steps = early_steps(&name);
        let from = self.options.template.clone();
        let first = self.build(&name, &from, &steps).await?;
        let measured = self.again(&name, &steps, &first).await;
        self.delete_template(&first.template_id).await?;
        let figures = measured?;
        self.figures.extend(figures);
        self.package().await
    }

    async fn again(
        &self,
        name: &str,
        steps: &[TemplateStep],
        first: &Built,
    ) -> Result<Vec<Figure>, BenchError> {
        first.has_run(STEPS, STEPS)?;
        let mut whole = Samples::default();
        whole.push_duration(first.took);
        let (mut unchanged, mut late) = (Samples::default(), Samples::default());
        for round in 0..self.options.count.min(BUILDS_MAX) {
            let same = self.build(name, &self.options.template, steps).await?;
            same.has_run(0, STEPS)?;
            unchanged.push_duration(same.took);
            let mut changed = steps.to_vec();
            changed[STEPS - 1] = run_step(format!("echo {name} {round} > /opt/late"));
            let changed = self.build(name, &self.options.template, &changed).await?;
            changed.has_run(1, STEPS)?;
            late.push_duration(changed.took);
        }
        let whole_name = format!("first build of {STEPS} steps of {STEP_SECONDS} s each");
        let late_name = format!("the last of {STEPS} steps changed: {} CACHED", STEPS - 1);
        Ok(vec![
            Figure::time(&whole_name, &whole),
            Figure::time("rebuild with nothing changed", &unchanged).at_most(UNCHANGED_MAX),
            Figure::time(&late_name, &late)
                .beside("a rebuild with nothing changed", &unchanged)
                .at_most_above_floor(LATE_MORE),
        ])
    }

    /// A package on a template that has none, beside the same command in a sandbox of it.
    async fn package(&mut self) -> Result<(), BenchError> {
        let name = new_name("index");
        let from = self.options.template.clone();
        let index = self.build(&name, &from, &[run_step(INDEX)]).await?;
        let mut built = Vec::new();
        let measured = self.packages(&name, &mut built).await;
        for template in built.iter().chain([&index.template_id]) {
            self.delete_template(template).await?;
        }
        let (build, pip) = measured?;
        self.figures.push(
            Figure::time("one package more, from an index beside it", &build)
                .beside("the same `pip install` in a sandbox", &pip)
                .at_most_above_floor(PACKAGE_MORE),
        );
        Ok(())
    }

    async fn packages(
        &self,
        index: &str,
        built: &mut Vec<String>,
    ) -> Result<(Samples, Samples), BenchError> {
        let (mut build, mut pip) = (Samples::default(), Samples::default());
        let name = new_name("package");
        for round in 0..self.options.count.min(BUILDS_MAX / 2) {
            let sandbox = self.create_from(index).await?;
            let ran = self.install(&sandbox).await;
            self.kill(&[sandbox.sandbox_id]).await?;
            pip.push_duration(ran?);
            // Another step each time.
            let step = run_step(format!("# {name} {round}\n{INSTALL}"));
            let one = self.build(&name, index, &[step]).await?;
            if round == 0 {
                built.push(one.template_id.clone());
            }
            one.has_run(1, 1)?;
            build.push_duration(one.took);
        }
        Ok((build, pip))
    }

    /// What the command alone takes.
    async fn install(
        &self,
        sandbox: &casemate_client::api::Sandbox,
    ) -> Result<std::time::Duration, BenchError> {
        let fault = |source| BenchError::Envd {
            action: "install a package",
            source,
        };
        let envd = self.envd(sandbox)?.as_user("root");
        let command = Command {
            program: "/bin/bash".to_owned(),
            args: vec!["-l".to_owned(), "-c".to_owned(), INSTALL.to_owned()],
            ..Command::default()
        };
        let begun = Instant::now();
        let events = envd.process_start(command).await.map_err(fault)?;
        let read = events.collect(OUTPUT_BYTES_MAX).await.map_err(fault)?;
        let took = begun.elapsed();
        match read.end.exit_code {
            0 => Ok(took),
            _ => Err(BenchError::Script {
                status: read.end.status,
            }),
        }
    }

    /// A build of which all is in the cache, again and again. Whatever was forgotten meanwhile is
    /// made anew before that is looked at.
    pub(super) async fn unchanged(
        &self,
        name: &str,
        steps: &[TemplateStep],
        count: usize,
    ) -> Result<Samples, BenchError> {
        let mut samples = Samples::default();
        for sample in 0..WARM_UP + count {
            let built = self.build(name, &self.options.template, steps).await?;
            if sample >= WARM_UP {
                built.has_run(0, steps.len())?;
                samples.push_duration(built.took);
            }
        }
        Ok(samples)
    }
}

fn early_steps(name: &str) -> Vec<TemplateStep> {
    let step = |number| run_step(format!("sleep {STEP_SECONDS}; echo {name} > /opt/{number}"));
    (0..STEPS).map(step).collect()
}
