//! Rates in Redis.

use async_trait::async_trait;

use super::link::{Again, Ask};
use super::{RedisCatalog, read};
use crate::CatalogError;
use crate::rates::{self, Rate, RateTake, Rates, micros};

#[async_trait]
impl Rates for RedisCatalog {
    async fn rate_take(&self, key: &str, rate: Rate) -> Result<RateTake, CatalogError> {
        rates::check_rate(key, rate)?;
        let each = 1e6 / rate.per_second;
        let mut take = self.scripts.rate.prepare_invoke();
        take.key(self.key("rate:", key));
        take.arg(each).arg(rate.burst);
        let answer = self.link.ask(Ask::Script(take), Again::No).await?;
        let (taken, room, full_in): (bool, f64, f64) = read("a bucket", answer)?;
        let limit = rate.burst;
        Ok(if taken {
            RateTake::Taken {
                limit,
                remaining: rates::whole_tokens((room / each).clamp(0.0, f64::from(limit))),
                reset: micros(full_in),
            }
        } else {
            RateTake::Refused {
                limit,
                retry_after: micros(-room),
                reset: micros(full_in),
            }
        })
    }
}
