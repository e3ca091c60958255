//! `casemate key`: the API keys of the installation's team, managed as its administrator.

use anyhow::bail;
use casemate_client::api::TeamApiKey;
use serde_json::json;

use super::server::ServerArgs;
use super::table::table;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a key and show it, this once.
    Create {
        /// What the key is called in lists.
        #[arg(long, default_value = "command line")]
        name: String,
    },
    /// List keys, without their values.
    List,
    /// End a key at once.
    Revoke {
        /// The key's id, as `list` shows it.
        id: String,
    },
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let admin = args.server.connect_admin()?;
    match args.verb {
        Verb::Create { name } => {
            let key = admin.key_create(&name).await?;
            output.value(&key, || key.key.clone());
            if !output.is_json() {
                output.note(&format!("this is key {}; it is shown only now", key.id));
            }
        }
        Verb::List => {
            let keys = admin.key_list().await?;
            output.value(&keys, || show(&keys));
        }
        Verb::Revoke { id } => {
            if !admin.key_revoke(&id).await? {
                bail!("there is no key {id}: `casemate key list` shows them");
            }
            output.value(&json!({"id": id, "revoked": true}), || {
                format!("revoked {id}")
            });
        }
    }
    Ok(())
}

fn show(keys: &[TeamApiKey]) -> String {
    let row = |key: &TeamApiKey| {
        let mask = &key.mask;
        let (start, end) = (&mask.masked_value_prefix, &mask.masked_value_suffix);
        [
            key.id.clone(),
            key.name.clone(),
            format!("{}{start}…{end}", mask.prefix),
            format!("{:.0}", key.created_at),
            key.last_used
                .map_or_else(|| "never".to_owned(), |time| format!("{time:.0}")),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    table(["ID", "NAME", "KEY", "CREATED", "LAST USED"], &rows)
}
