//! `casemate template gc`

use std::process::ExitCode;

use anyhow::Context;
use casemate_client::api::{CollectBuilds, CollectedBuilds};

use crate::command::server::Server;
use crate::command::table::mib;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// Only what was not used for so long, such as `90s`, `30m`, `12h` or `7d` [default: all that
    /// is not in use].
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    older_than: Option<u32>,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let ask = CollectBuilds {
        older_than_seconds: args.older_than,
        dry_run: Some(args.dry_run),
    };
    let gone = server.api.builds_collect(&ask).await?;
    output.value(&gone, || words(&gone, args.dry_run));
    Ok(ExitCode::SUCCESS)
}

fn words(gone: &CollectedBuilds, is_rehearsal: bool) -> String {
    let begin = match is_rehearsal {
        true => "would remove",
        false => "removed",
    };
    // Of layers it is not known what they take.
    let more = if gone.layers > 0 {
        " and the layers"
    } else {
        ""
    };
    format!(
        "{begin} {} results of steps, {} layers, {} uploads, {} old builds: {}{more}",
        gone.steps,
        gone.layers,
        gone.uploads,
        gone.builds,
        mib(gone.bytes),
    )
}

/// A number and its unit.
fn seconds(text: &str) -> anyhow::Result<u32> {
    let wrong = "a whole number with s, m, h or d is expected, such as 7d";
    let unit = text.chars().next_back().context(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => anyhow::bail!(wrong),
    };
    let number = &text[..text.len() - unit.len_utf8()];
    let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    anyhow::ensure!(is_number, wrong);
    let number: Option<u32> = number.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(factor));
    seconds.context("that is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("30m", Some(1800)),
            ("12h", Some(43_200)),
            ("7d", Some(604_800)),
            ("49710d", Some(4_294_944_000)),
            ("49711d", None),
            ("99999999999s", None),
            ("", None),
            ("7", None),
            ("d", None),
            ("+7d", None),
            ("-7d", None),
            ("1.5h", None),
            ("7é", None),
            ("1d12h", None),
        ] {
            assert_eq!(seconds(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn it_says_what_went() {
        let gone = CollectedBuilds {
            builds: 1,
            steps: 12,
            layers: 0,
            uploads: 2,
            bytes: 3 << 20,
        };
        let rest = "12 results of steps, 0 layers, 2 uploads, 1 old builds: 3.0 MiB";
        assert_eq!(words(&gone, true), format!("would remove {rest}"));
        assert_eq!(words(&gone, false), format!("removed {rest}"));
        let gone = CollectedBuilds { layers: 4, ..gone };
        assert!(words(&gone, false).ends_with("3.0 MiB and the layers"));
    }
}
