use super::*;
use crate::{
    BuildLogEntry, BuildLogPage, BuildLogRange, History, LogDirection, LogLevel, Retention,
};

const HOUR: i64 = 3600;

fn build() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn line(seconds: i64, level: LogLevel, text: &str) -> BuildLogEntry {
    BuildLogEntry {
        at: at(seconds),
        level,
        step: Some("base".into()),
        message: text.into(),
    }
}

fn info(seconds: i64, text: &str) -> BuildLogEntry {
    line(seconds, LogLevel::Info, text)
}

async fn append(history: &dyn History, team: &TeamId, build: &str, lines: &[BuildLogEntry]) {
    let appended = history.build_logs_append(team, build, lines).await;
    appended.unwrap();
}

fn page(team: &TeamId, build: &str, offset: u64) -> BuildLogPage {
    BuildLogPage {
        team: team.clone(),
        build: build.into(),
        level_min: LogLevel::Debug,
        offset,
        rows_max: 100,
    }
}

async fn paged(history: &dyn History, page: &BuildLogPage) -> Vec<String> {
    let lines = history.build_logs_page(page).await.unwrap();
    lines.into_iter().map(|line| line.message).collect()
}

async fn ranged(history: &dyn History, range: &BuildLogRange) -> Vec<String> {
    let lines = history.build_logs_range(range).await.unwrap();
    lines.into_iter().map(|line| line.message).collect()
}

pub async fn build_logs_are_paged_in_the_order_in_which_they_came(history: &dyn History) {
    let (team, one, other) = (team(), build(), build());
    // The clock goes back once; the order does not.
    let mut first = vec![info(5, "a"), line(4, LogLevel::Debug, "b")];
    first[1].step = None;
    append(history, &team, &one, &first).await;
    append(history, &team, &other, &[info(1, "not this")]).await;
    append(history, &team, &one, &[]).await;
    append(history, &team, &one, &[info(3, "c"), info(6, "d")]).await;
    let all = page(&team, &one, 0);
    let lines = history.build_logs_page(&all).await.unwrap();
    assert_eq!(lines[..2], first);
    assert_eq!(paged(history, &all).await, ["a", "b", "c", "d"]);
    let two = BuildLogPage {
        rows_max: 2,
        ..page(&team, &one, 1)
    };
    assert_eq!(paged(history, &two).await, ["b", "c"]);
    for beyond in [4, 5, u64::MAX] {
        let page = page(&team, &one, beyond);
        assert!(paged(history, &page).await.is_empty(), "{beyond}");
    }
    let none = BuildLogPage { rows_max: 0, ..all };
    assert!(paged(history, &none).await.is_empty());
    // As a client follows it.
    let mut seen = Vec::new();
    for round in 0..300 {
        let text = format!("more {round}");
        append(history, &team, &other, &[info(2, &text), info(2, &text)]).await;
        let offset = u64::try_from(seen.len()).unwrap();
        seen.extend(paged(history, &page(&team, &other, offset)).await);
    }
    assert_eq!(seen.len(), 601);
    assert_eq!(seen[600], "more 299");
}

pub async fn build_logs_are_paged_within_their_levels(history: &dyn History) {
    let (team, build) = (team(), build());
    let levels = [
        LogLevel::Debug,
        LogLevel::Error,
        LogLevel::Info,
        LogLevel::Warn,
        LogLevel::Debug,
        LogLevel::Error,
    ];
    let lines: Vec<_> = (0..)
        .zip(levels)
        .map(|(n, level)| line(n, level, &n.to_string()))
        .collect();
    append(history, &team, &build, &lines).await;
    for (level_min, offset, expected) in [
        (LogLevel::Debug, 4, vec!["4", "5"]),
        (LogLevel::Info, 0, vec!["1", "2", "3", "5"]),
        (LogLevel::Info, 1, vec!["2", "3", "5"]),
        (LogLevel::Warn, 2, vec!["5"]),
        (LogLevel::Error, 1, vec!["5"]),
        (LogLevel::Error, 2, vec![]),
    ] {
        let some = BuildLogPage {
            level_min,
            ..page(&team, &build, offset)
        };
        assert_eq!(
            paged(history, &some).await,
            expected,
            "{level_min:?} {offset}"
        );
    }
}

pub async fn build_logs_are_read_around_a_moment(history: &dyn History) {
    let (team, build) = (team(), build());
    let mut lines: Vec<_> = [(1, "a"), (3, "b"), (3, "c"), (2, "late"), (5, "d")]
        .map(|(seconds, text)| info(seconds, text))
        .into();
    lines.push(line(6, LogLevel::Warn, "w"));
    append(history, &team, &build, &lines).await;
    let forward = BuildLogRange {
        team,
        build,
        cursor: at(2),
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        rows_max: 100,
    };
    assert_eq!(
        ranged(history, &forward).await,
        ["late", "b", "c", "d", "w"]
    );
    let backward = BuildLogRange {
        cursor: at(3),
        direction: LogDirection::Backward,
        ..forward.clone()
    };
    assert_eq!(ranged(history, &backward).await, ["c", "b", "late", "a"]);
    let some = BuildLogRange {
        rows_max: 2,
        ..backward
    };
    assert_eq!(ranged(history, &some).await, ["c", "b"]);
    let warn = BuildLogRange {
        level_min: LogLevel::Warn,
        ..forward
    };
    assert_eq!(ranged(history, &warn).await, ["w"]);
}

pub async fn build_logs_are_their_teams_alone(history: &dyn History) {
    let (mine, stranger, build) = (team(), team(), build());
    append(history, &mine, &build, &[info(1, "mine")]).await;
    assert!(paged(history, &page(&stranger, &build, 0)).await.is_empty());
    append(history, &stranger, &build, &[info(1, "not mine")]).await;
    assert_eq!(paged(history, &page(&mine, &build, 0)).await, ["mine"]);
}

pub async fn build_logs_are_listed_and_removed(history: &dyn History) {
    let team = team();
    let mut builds = [build(), build(), build()];
    builds.sort();
    for build in &builds {
        append(history, &team, build, &[info(1, "a"), info(2, "b")]).await;
    }
    let mut found = Vec::new();
    loop {
        let after = found.last().map(String::as_str);
        let page = history.build_logs_list(after, 2).await.unwrap();
        assert!(page.len() <= 2 && page.is_sorted());
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert!(builds.iter().all(|build| found.contains(build)));
    let [first, second, third] = &builds;
    let gone = [first.clone(), third.clone(), build()];
    for _ in 0..2 {
        history.build_logs_remove(&gone).await.unwrap();
        assert!(paged(history, &page(&team, first, 0)).await.is_empty());
        assert_eq!(paged(history, &page(&team, second, 0)).await, ["a", "b"]);
    }
    let found = history.build_logs_list(None, 1000).await.unwrap();
    assert!(found.contains(second) && !found.contains(third));
    // One that is written of again begins anew.
    append(history, &team, first, &[info(3, "c")]).await;
    assert_eq!(paged(history, &page(&team, first, 0)).await, ["c"]);
}

pub async fn build_log_texts_are_data(history: &dyn History) {
    let (team, build) = (team(), "'; DROP TABLE build_logs; --".to_owned() + &build());
    let strange = ["'); --", "\u{1f980} \" \\ \n\t\u{1b}[31m", "$1 ?1 :a", ""];
    let lines = strange.map(|text| BuildLogEntry {
        step: Some(text.into()),
        ..info(1, text)
    });
    append(history, &team, &build, &lines).await;
    let found = history.build_logs_page(&page(&team, &build, 0)).await;
    assert_eq!(found.unwrap(), lines);
    history
        .build_logs_remove(std::slice::from_ref(&build))
        .await
        .unwrap();
    assert!(paged(history, &page(&team, &build, 0)).await.is_empty());
}

fn nothing_old() -> Retention {
    Retention {
        metrics: SECOND,
        events: SECOND,
        logs: SECOND,
        bytes_max: u64::MAX,
    }
}

pub async fn logs_of_builds_have_no_age(history: &dyn History) {
    let (team, build) = (team(), build());
    append(history, &team, &build, &[info(0, "old")]).await;
    let done = history.trim(at(9000 * HOUR), &nothing_old()).await.unwrap();
    assert_eq!((done.rows, done.cut), (0, false));
    assert_eq!(paged(history, &page(&team, &build, 0)).await, ["old"]);
}

pub async fn logs_of_builds_go_last_but_leave_half(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let large = "x".repeat(16_000);
    // Builds are twice of what lines of sandboxes are, and the oldest of all.
    let builds: Vec<String> = (0..20).map(|_| build()).collect();
    for (hours, build) in (1..).zip(&builds) {
        let lines = vec![info(hours * HOUR, &large); 10];
        append(history, &team, build, &lines).await;
    }
    for hours in 101..=200 {
        let line = crate::LogLine {
            sandbox: sandbox.clone(),
            team: team.clone(),
            entry: crate::LogEntry {
                at: at(hours * HOUR),
                level: LogLevel::Info,
                message: large.clone(),
                fields: Default::default(),
            },
        };
        history.logs_append(&[line]).await.unwrap();
    }
    let now = at(201 * HOUR);
    let query = crate::LogQuery {
        team: team.clone(),
        sandbox,
        from: at(0),
        before: now,
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        search: None,
        rows_max: 1000,
    };
    let left = async || {
        let mut kept = Vec::new();
        for build in &builds {
            let lines = paged(history, &page(&team, build, 0)).await.len();
            assert!(lines == 0 || lines == 10, "a build is kept whole");
            kept.push(lines > 0);
        }
        assert!(kept.is_sorted(), "the oldest go first: {kept:?}");
        let builds = kept.iter().filter(|kept| **kept).count();
        (builds, history.logs_read(&query).await.unwrap().len())
    };
    let mut keep = Retention {
        metrics: SECOND * 1_000_000,
        events: SECOND * 1_000_000,
        logs: SECOND * 1_000_000,
        bytes_max: u64::MAX,
    };
    let before = history.trim(now, &keep).await.unwrap();
    assert_eq!(left().await, (20, 100));
    // A little too much: of builds, because they have more than half.
    keep.bytes_max = before.bytes / 10 * 9;
    let done = history.trim(now, &keep).await.unwrap();
    assert!(done.cut && done.bytes <= keep.bytes_max, "{done:?}");
    let (kept, lines) = left().await;
    assert!((5..20).contains(&kept), "{kept}");
    assert_eq!(lines, 100);
    // Less than their half now: the others give way until nothing of them is left.
    keep.bytes_max = done.bytes / 2;
    history.trim(now, &keep).await.unwrap();
    assert!(left().await.1 < 100);
    // Then they go, and what is written of one later keeps its place.
    keep.bytes_max = 1;
    for _ in 0..10 {
        history.trim(now, &keep).await.unwrap();
    }
    assert_eq!(left().await, (0, 0));
    append(history, &team, &builds[19], &[info(1, "more")]).await;
    assert_eq!(
        paged(history, &page(&team, &builds[19], 10)).await,
        ["more"]
    );
}

pub async fn who_logs_much_forgets_its_own(history: &dyn History) {
    let (quiet, loud) = (team(), team());
    let large = "x".repeat(16_000);
    let first = build();
    append(history, &quiet, &first, &[info(1, "the oldest of all")]).await;
    let builds: Vec<String> = (0..10).map(|_| build()).collect();
    for (seconds, build) in (2..).zip(&builds) {
        append(history, &loud, build, &vec![info(seconds, &large); 10]).await;
    }
    let mut keep = nothing_old();
    keep.bytes_max = history.trim(at(100), &keep).await.unwrap().bytes / 2;
    let done = history.trim(at(100), &keep).await.unwrap();
    assert!(done.cut && done.bytes <= keep.bytes_max, "{done:?}");
    let mut left = Vec::new();
    for build in &builds {
        left.push(paged(history, &page(&loud, build, 0)).await.len());
    }
    assert!(left.is_sorted() && left.contains(&0), "{left:?}");
    let kept = paged(history, &page(&quiet, &first, 0)).await;
    assert_eq!(kept, ["the oldest of all"]);
}
