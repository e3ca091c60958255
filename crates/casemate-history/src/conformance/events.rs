use uuid::Uuid;

use super::*;
use crate::{EventKind, EventPage, History, LifecycleEvent};

fn event(team: &TeamId, sandbox: &SandboxId, seconds: i64, kind: EventKind) -> LifecycleEvent {
    LifecycleEvent {
        id: Uuid::new_v4(),
        kind,
        at: at(seconds),
        team: team.clone(),
        sandbox: sandbox.clone(),
        execution: Uuid::new_v4(),
        template: "base".parse().unwrap(),
        build: Some(Uuid::new_v4()),
        data: serde_json::json!({"reason": "it's \"over\""}),
    }
}

fn page(team: &TeamId) -> EventPage {
    EventPage {
        team: team.clone(),
        sandbox: None,
        oldest_first: true,
        until: None,
        offset: 0,
        rows_max: 100,
    }
}

pub async fn events_come_back_as_they_went_in(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let mut events = vec![
        event(&team, &sandbox, 1, EventKind::Created),
        event(&team, &sandbox, 2, EventKind::Updated),
        event(&team, &sandbox, 2, EventKind::Killed),
    ];
    events[1].build = None;
    events[2].data = serde_json::Value::Null;
    history.events_append(&events).await.unwrap();
    assert_eq!(history.events_read(&page(&team)).await.unwrap(), events);
}

pub async fn events_are_paged_both_ways(history: &dyn History) {
    let (team, one, other) = (team(), sandbox(), sandbox());
    let mut events = Vec::new();
    for seconds in 0..5 {
        events.push(event(&team, &one, seconds, EventKind::Updated));
    }
    events.push(event(&team, &other, 9, EventKind::Created));
    history.events_append(&events).await.unwrap();
    let newest = EventPage {
        oldest_first: false,
        rows_max: 2,
        ..page(&team)
    };
    let read = history.events_read(&newest).await.unwrap();
    assert_eq!(read, [events[5].clone(), events[4].clone()]);
    let further = EventPage {
        sandbox: Some(one),
        offset: 3,
        ..newest
    };
    let read = history.events_read(&further).await.unwrap();
    assert_eq!(read, [events[1].clone(), events[0].clone()]);
    let until = EventPage {
        until: Some(events[3].at),
        oldest_first: false,
        rows_max: 2,
        ..page(&team)
    };
    let read = history.events_read(&until).await.unwrap();
    assert_eq!(read, [events[3].clone(), events[2].clone()]);
}

pub async fn an_event_is_kept_once(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let once = event(&team, &sandbox, 1, EventKind::Created);
    let twice = [once.clone(), once.clone()];
    history.events_append(&twice).await.unwrap();
    history.events_append(&twice).await.unwrap();
    assert_eq!(history.events_read(&page(&team)).await.unwrap(), [once]);
}

pub async fn events_are_their_teams_alone(history: &dyn History) {
    let (team, stranger, sandbox) = (team(), team(), sandbox());
    let events = [event(&team, &sandbox, 1, EventKind::Created)];
    history.events_append(&events).await.unwrap();
    let asked = EventPage {
        sandbox: Some(sandbox),
        ..page(&stranger)
    };
    assert_eq!(history.events_read(&asked).await.unwrap(), []);
}
