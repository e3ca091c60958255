//! Whether what is kept elsewhere is to be had: the bucket, the database, Redis. One that is away is
//! waited for, so none is missing for good.

use casemate_sql::postgres::{self, Commits};
use casemate_types::chain;

use super::Finding;
use crate::bucket;
use crate::config::Config;

/// A line for each that is configured.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let (bucket, database, redis) = tokio::join!(bucket(config), database(config), redis(config));
    [bucket, database, redis].into_iter().flatten().collect()
}

async fn bucket(config: &Config) -> Option<Finding> {
    let found = match config.artifacts.open() {
        Ok(opened) => bucket::look(&opened?).await,
        Err(error) => Err(format!("{error:#}")),
    };
    let name = &config.artifacts.bucket;
    let mend = "Mend [artifacts], or the bucket; until then what is made stays where it was made";
    Some(of("bucket", name, found, mend))
}

async fn database(config: &Config) -> Option<Finding> {
    let options = config.database.options().ok()??;
    let place = format!("{} at {}", options.database, options.place());
    let found = match postgres::connect(&options, Commits::Synced).await {
        Ok(pool) => {
            pool.close().await;
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    };
    let mend = "Mend [database], or the server; nothing starts without it";
    Some(of("database", &place, found, mend))
}

async fn redis(config: &Config) -> Option<Finding> {
    let settings = config.redis.settings().ok()??;
    let place = settings.place();
    let found = casemate_catalog::try_out(settings).await;
    let found = found.map_err(|error| chain(&error));
    let mend = "Mend [redis], or the server; until then all goes on as without it";
    Some(of("Redis", &place, found, mend))
}

fn of(what: &'static str, place: &str, found: Result<(), String>, mend: &'static str) -> Finding {
    match found {
        Ok(()) => Finding::good(what, format!("{place} is reached")),
        Err(why) => Finding::warning(what, format!("{place} cannot be used: {why}"), mend),
    }
}
