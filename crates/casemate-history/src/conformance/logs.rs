use super::*;
use crate::{History, LogDirection, LogEntry, LogLevel, LogLine, LogQuery};

fn line(team: &TeamId, sandbox: &SandboxId, seconds: i64, level: LogLevel, text: &str) -> LogLine {
    LogLine {
        sandbox: sandbox.clone(),
        team: team.clone(),
        entry: LogEntry {
            at: at(seconds),
            level,
            message: text.into(),
            fields: [("pid".into(), "7".into())].into(),
        },
    }
}

fn query(team: &TeamId, sandbox: &SandboxId) -> LogQuery {
    LogQuery {
        team: team.clone(),
        sandbox: sandbox.clone(),
        from: at(0),
        before: at(100),
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        search: None,
        rows_max: 1000,
    }
}

async fn texts(history: &dyn History, query: &LogQuery) -> Vec<String> {
    let entries = history.logs_read(query).await.unwrap();
    entries.into_iter().map(|entry| entry.message).collect()
}

pub async fn logs_are_read_forward_and_backward(history: &dyn History) {
    let (team, one, other) = (team(), sandbox(), sandbox());
    let info = |sandbox, seconds, text| line(&team, sandbox, seconds, LogLevel::Info, text);
    let lines = [
        info(&one, 1, "a"),
        info(&other, 1, "not this"),
        info(&one, 2, "b"),
        info(&one, 2, "c"),
        info(&one, 5, "d"),
    ];
    history.logs_append(&lines[..2]).await.unwrap();
    history.logs_append(&lines[2..]).await.unwrap();
    let forward = query(&team, &one);
    let entries = history.logs_read(&forward).await.unwrap();
    assert_eq!(entries[0], lines[0].entry);
    assert_eq!(texts(history, &forward).await, ["a", "b", "c", "d"]);
    let backward = LogQuery {
        direction: LogDirection::Backward,
        rows_max: 3,
        ..forward.clone()
    };
    assert_eq!(texts(history, &backward).await, ["d", "c", "b"]);
    // From a moment on, until before another.
    let some = LogQuery {
        from: at(2),
        before: at(5),
        ..forward.clone()
    };
    assert_eq!(texts(history, &some).await, ["b", "c"]);
    let none = LogQuery {
        rows_max: 0,
        ..forward
    };
    assert!(texts(history, &none).await.is_empty());
}

pub async fn logs_are_filtered_by_level_and_letters(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let lines = [
        line(&team, &sandbox, 1, LogLevel::Debug, "Process started"),
        line(&team, &sandbox, 2, LogLevel::Info, "process ended"),
        line(&team, &sandbox, 3, LogLevel::Warn, "100% of _it_ Process"),
        line(&team, &sandbox, 4, LogLevel::Error, "boom"),
    ];
    history.logs_append(&lines).await.unwrap();
    let all = query(&team, &sandbox);
    for (level, expected) in [
        (LogLevel::Debug, 4),
        (LogLevel::Info, 3),
        (LogLevel::Warn, 2),
        (LogLevel::Error, 1),
    ] {
        let level_min = level;
        let found = texts(
            history,
            &LogQuery {
                level_min,
                ..all.clone()
            },
        )
        .await;
        assert_eq!(found.len(), expected, "{level:?}");
    }
    for (search, expected) in [
        ("Process", 2),
        ("process", 1),
        ("%", 1),
        ("_it_", 1),
        ("x_t", 0),
    ] {
        let search = Some(search.to_owned());
        let found = texts(
            history,
            &LogQuery {
                search: search.clone(),
                ..all.clone()
            },
        )
        .await;
        assert_eq!(found.len(), expected, "{search:?}");
    }
}

pub async fn logs_of_a_sandbox_are_its_teams_alone(history: &dyn History) {
    let (team, stranger, sandbox) = (team(), team(), sandbox());
    let lines = [line(&team, &sandbox, 1, LogLevel::Info, "mine")];
    history.logs_append(&lines).await.unwrap();
    assert!(texts(history, &query(&stranger, &sandbox)).await.is_empty());
    assert_eq!(texts(history, &query(&team, &sandbox)).await, ["mine"]);
}

pub async fn log_texts_are_data(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let strange = [
        "'); DROP TABLE logs; --",
        "\u{1f980} \" \\ \n\t\u{1b}[31m",
        "$1 ?1 :a",
        "",
    ];
    let lines: Vec<_> = (0..)
        .zip(strange)
        .map(|(seconds, text)| {
            let mut line = line(&team, &sandbox, seconds, LogLevel::Info, text);
            line.entry.fields.insert(text.into(), text.into());
            line
        })
        .collect();
    history.logs_append(&lines).await.unwrap();
    let entries = history.logs_read(&query(&team, &sandbox)).await.unwrap();
    let expected: Vec<_> = lines.into_iter().map(|line| line.entry).collect();
    assert_eq!(entries, expected);
    let search = Some(strange[0].to_owned());
    let found = LogQuery {
        search,
        ..query(&team, &sandbox)
    };
    assert_eq!(texts(history, &found).await, [strange[0]]);
}
