use super::*;
use crate::{History, Range, TeamPoint};

fn point(team: &TeamId, seconds: i64, concurrent: u32, started: u32) -> TeamPoint {
    TeamPoint {
        team: team.clone(),
        at: at(seconds),
        span: SECOND * 15,
        concurrent,
        started,
    }
}

fn all() -> Range {
    Range {
        from: at(0),
        to: at(3600),
    }
}

pub async fn activity_adds_up_by_step(history: &dyn History) {
    let team = team();
    let points = [
        point(&team, 15, 1, 3),
        point(&team, 29, 7, 0),
        point(&team, 45, 2, 30),
    ];
    history.activity_append(&points[..2]).await.unwrap();
    history.activity_append(&points[2..]).await.unwrap();
    let single = history.activity_read(&team, all(), SECOND).await.unwrap();
    assert_eq!(single, points);
    assert!((single[2].start_rate() - 2.0).abs() < 1e-9);
    let halves = history
        .activity_read(&team, all(), SECOND * 30)
        .await
        .unwrap();
    let shown: Vec<_> = halves
        .iter()
        .map(|p| (p.at, p.span.as_secs(), p.concurrent, p.started))
        .collect();
    assert_eq!(shown, [(at(29), 30, 7, 3), (at(45), 15, 2, 30)]);
    let late = Range {
        from: at(30),
        to: at(45),
    };
    let late = history.activity_read(&team, late, SECOND).await.unwrap();
    assert_eq!(late, points[2..]);
}

pub async fn activity_is_its_teams_alone(history: &dyn History) {
    let (team, stranger) = (team(), team());
    let points = [point(&team, 15, 1, 3)];
    history.activity_append(&points).await.unwrap();
    let read = history.activity_read(&stranger, all(), SECOND).await;
    assert_eq!(read.unwrap(), []);
}
