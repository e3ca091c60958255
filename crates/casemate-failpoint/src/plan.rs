//! Which points are armed, and with what odds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::point::{Point, UnknownPoint};

/// `create.kept=0.2,kill.begun=1`: the probability of dying at each hit, above 0 and at most 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan(BTreeMap<Point, f64>);

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum InvalidPlan {
    #[error("{0:?} is not POINT=PROBABILITY")]
    Shape(String),
    #[error(transparent)]
    Point(#[from] UnknownPoint),
    #[error("a probability is above 0 and at most 1, not {0:?}")]
    Probability(String),
}

impl Plan {
    /// These points, at each hit with the probability, which is above 0 and at most 1.
    pub fn of(points: impl IntoIterator<Item = Point>, probability: f64) -> Self {
        Self(points.into_iter().map(|p| (p, probability)).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Points with odds in 1 of 2^32.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Point, u32)> {
        let odds = |probability: &f64| (probability * f64::from(u32::MAX)) as u32;
        self.0
            .iter()
            .map(move |(point, p)| (*point, odds(p).max(1)))
    }
}

impl FromStr for Plan {
    type Err = InvalidPlan;

    fn from_str(text: &str) -> Result<Self, InvalidPlan> {
        let mut plan = BTreeMap::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (point, odds) = item
                .split_once('=')
                .ok_or_else(|| InvalidPlan::Shape(item.to_owned()))?;
            let probability = odds.parse().ok().filter(|p| *p > 0.0 && *p <= 1.0);
            let probability =
                probability.ok_or_else(|| InvalidPlan::Probability(odds.to_owned()))?;
            plan.insert(point.parse()?, probability);
        }
        Ok(Self(plan))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (point, probability) in &self.0 {
            write!(f, "{between}{point}={probability}")?;
            between = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let plan: Plan = "create.kept=0.25, kill.begun=1,".parse().unwrap();
        assert_eq!(plan.to_string(), "create.kept=0.25,kill.begun=1");
        let odds: Vec<_> = plan.iter().collect();
        assert_eq!(
            odds,
            [
                (Point::CreateKept, u32::MAX / 4),
                (Point::KillBegun, u32::MAX)
            ]
        );
        assert!("".parse::<Plan>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "create.kept",
            "create.kept=0",
            "create.kept=1.5",
            "create.kept=x",
            "nowhere=1",
        ] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_point_has_a_name_of_its_own() {
        for point in Point::ALL {
            assert_eq!(point.name().parse(), Ok(*point));
        }
    }
}
