//! Logs of sandboxes, versions 1 and 2.

use casemate_history::{LogEntry, LogLevel, LogLine, Logs};
use casemate_store::Standing;
use casemate_types::{SandboxId, Timestamp};
use serde_json::Value;

use crate::world::{World, until};

async fn get(world: &World, path: &str) -> Value {
    let answer = world.api("GET", path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn messages(logs: &Value) -> Vec<&str> {
    let entries = logs.as_array().unwrap().iter();
    entries
        .map(|entry| entry["message"].as_str().unwrap())
        .collect()
}

/// A sandbox with these lines, one a second, the last of them one second ago.
async fn logged(world: &World, lines: &[(LogLevel, &str)]) -> (SandboxId, i64) {
    let sandbox = SandboxId::random();
    let now = Timestamp::now().as_millisecond();
    let first = now - 1000 * i64::try_from(lines.len()).unwrap();
    let lines: Vec<_> = (0..)
        .zip(lines)
        .map(|(number, (level, message))| LogLine {
            sandbox: sandbox.clone(),
            team: world.team.clone(),
            entry: LogEntry {
                at: Timestamp::from_millisecond(first + number * 1000).unwrap(),
                level: *level,
                message: (*message).into(),
                fields: [("logger".into(), "test".into())].into(),
            },
        })
        .collect();
    world.history.logs_append(&lines).await.unwrap();
    (sandbox, first)
}

const LINES: [(LogLevel, &str); 4] = [
    (LogLevel::Debug, "one"),
    (LogLevel::Info, "two"),
    (LogLevel::Warn, "Two and a half"),
    (LogLevel::Error, "three \"quoted\"\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxs_life_is_in_its_log_in_both_versions_also_after_its_end() {
    let mut world = World::new().await;
    let sandbox = world.create("").await;
    let path = format!("/sandboxes/{sandbox}");
    let timeout = world.api("POST", &format!("{path}/timeout"));
    assert_eq!(timeout.json(r#"{"timeout":100}"#).send().await.status, 204);
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    let (old, new) = (format!("{path}/logs"), format!("/v2{path}/logs"));
    let told = [
        "Sandbox created",
        "Sandbox timeout changed",
        "Sandbox ended: killed",
    ];
    until("three lines", || async {
        messages(&get(&world, &old).await["logEntries"]).len() == 3
    })
    .await;
    world.restart().await;
    let answer = get(&world, &old).await;
    assert_eq!(messages(&answer["logEntries"]), told);
    let (line, entry) = (&answer["logs"][2], &answer["logEntries"][2]);
    assert_eq!(line["timestamp"], entry["timestamp"]);
    let read: Value = serde_json::from_str(line["line"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&read["level"], &read["message"]),
        (&"info".into(), &entry["message"])
    );
    assert_eq!(
        (&read["logger"], &read["reason"]),
        (&"platform".into(), &"killed".into())
    );
    assert_eq!(entry["fields"]["reason"], "killed");
    let newest: Vec<_> = told.iter().rev().copied().collect();
    assert_eq!(messages(&get(&world, &new).await["logs"]), newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_writes_is_in_its_log_and_nobody_else_s() {
    let world = World::new().await;
    let (sandbox, other) = (world.create("").await, world.create("").await);
    let now = Timestamp::now().as_millisecond();
    let start = format!(
        r#"{{"time":{now},"level":"info","logger":"process","message":"Process started","event_type":"process_start","pid":7,"command":"rm \u001b[2Jx","sandboxID":"{other}"}}"#
    );
    let end = format!(
        r#"{{"time":{now},"level":"info","logger":"process","message":"Process ended","event_type":"process_end","pid":7,"process_result":"exit status 0","stdout_bytes":3}}"#
    );
    let forged = r#"{"time":0,"level":"info","logger":"platform","message":"Sandbox ended"}"#;
    let lines = format!("{start}\n{forged}\nnonsense\n{end}\n");
    world.node.write_log(&sandbox, &lines);
    world.node.fill_memory(&sandbox);
    let (old, new) = (
        format!("/sandboxes/{sandbox}/logs"),
        format!("/v2/sandboxes/{sandbox}/logs"),
    );
    let full = "Memory limit reached: the kernel ended a process";
    let told = ["Sandbox created", "Process started", "Process ended", full];
    until("four lines", || async {
        messages(&get(&world, &old).await["logEntries"]).len() == 4
    })
    .await;
    let answer = get(&world, &old).await;
    assert_eq!(messages(&answer["logEntries"]), told);
    let line: Value = serde_json::from_str(answer["logs"][1]["line"].as_str().unwrap()).unwrap();
    assert_eq!(line["level"], "info");
    assert_eq!(line["event_type"], "process_start");
    assert_eq!(line["command"], "rm \\u{1b}[2Jx");
    assert_eq!(line["pid"], "7");
    assert!(line.get("sandboxID").is_none());
    let warned = get(&world, &format!("{new}?level=warn")).await;
    assert_eq!(messages(&warned["logs"]), [full]);
    assert_eq!(warned["logs"][0]["fields"]["processes"], "1");
    let found = get(&world, &format!("{new}?search=Process&direction=forward")).await;
    assert_eq!(messages(&found["logs"]), told[1..3]);
    let others = get(&world, &format!("/v2/sandboxes/{other}/logs")).await;
    assert_eq!(messages(&others["logs"]), told[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_goes_both_ways_from_a_cursor_and_filters() {
    let world = World::new().await;
    let (sandbox, first) = logged(&world, &LINES).await;
    let path = format!("/v2/sandboxes/{sandbox}/logs");
    let [one, two, half, three] = LINES.map(|(_, message)| message);
    for (query, expected) in [
        (String::new(), vec![three, half, two, one]),
        ("?direction=forward".into(), vec![one, two, half, three]),
        ("?limit=2".into(), vec![three, half]),
        ("?limit=0".into(), vec![]),
        (format!("?cursor={}", first + 2000), vec![two, one]),
        (
            format!("?cursor={}&direction=forward", first + 2000),
            vec![half, three],
        ),
        ("?level=warn".into(), vec![three, half]),
        ("?search=wo&level=info".into(), vec![half, two]),
        ("?search=two".into(), vec![two]),
        ("?search=%25".into(), vec![]),
        ("?search=".into(), vec![three, half, two, one]),
        ("?cursor=0&direction=forward&limit=1".into(), vec![one]),
        ("?cursor=0".into(), vec![]),
        (format!("?cursor={}", i64::MAX), vec![]),
    ] {
        let answer = get(&world, &format!("{path}{query}")).await;
        assert_eq!(messages(&answer["logs"]), expected, "{query}");
    }
    let entry = &get(&world, &path).await["logs"][0];
    assert_eq!(
        (&entry["level"], &entry["fields"]["logger"]),
        (&"error".into(), &"test".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn version_1_is_oldest_first_and_every_line_is_an_object() {
    let world = World::new().await;
    let (sandbox, first) = logged(&world, &LINES).await;
    let path = format!("/sandboxes/{sandbox}/logs");
    let answer = get(&world, &path).await;
    let levels: Vec<_> = answer["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line["line"].as_str().unwrap()).unwrap())
        .map(|line| line["level"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(levels, ["debug", "info", "warn", "error"]);
    let some = get(&world, &format!("{path}?start={}&limit=2", first + 1000)).await;
    assert_eq!(messages(&some["logEntries"]), ["two", "Two and a half"]);
    let further = get(&world, &format!("{path}?start={}", first + 3001)).await;
    assert_eq!(further, serde_json::json!({"logs": [], "logEntries": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_their_teams_alone_and_wrong_questions_are_refused() {
    let world = World::new().await;
    let (sandbox, _) = logged(&world, &LINES).await;
    let (_, key) = world.other_team(Standing::Good).await;
    for (path, expected) in [
        (
            format!("/sandboxes/{sandbox}/logs"),
            r#"{"logs":[],"logEntries":[]}"#,
        ),
        (format!("/v2/sandboxes/{sandbox}/logs"), r#"{"logs":[]}"#),
    ] {
        let call = world.call("GET", &path).header("x-api-key", &key);
        assert_eq!(call.send().await.text, expected);
        let nobody = path.replace(sandbox.as_str(), "inobody");
        assert_eq!(world.api("GET", &nobody).send().await.text, expected);
    }
    let long = format!("v2/sandboxes/{sandbox}/logs?search={}", "x".repeat(257));
    for path in [
        format!("sandboxes/{sandbox}/logs?start=-1"),
        format!("sandboxes/{sandbox}/logs?limit=-1"),
        format!("v2/sandboxes/{sandbox}/logs?limit=1001"),
        format!("v2/sandboxes/{sandbox}/logs?cursor=x"),
        format!("v2/sandboxes/{sandbox}/logs?direction=up"),
        format!("v2/sandboxes/{sandbox}/logs?level=INFO"),
        long,
    ] {
        world
            .api("GET", &format!("/{path}"))
            .send()
            .await
            .error(400);
    }
}
