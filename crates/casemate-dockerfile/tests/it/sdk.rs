//! The same files through the stock SDK: what it builds we build, what it refuses we refuse.

use std::io::Write;
use std::process::{Command, Stdio};

use casemate_dockerfile::{Recipe, parse};
use serde_json::{Value, json};

/// Each is a whole file; those without a `FROM` get one.
const FILES: &[&str] = &[
    "",
    "FROM",
    "FROM debian",
    "from debian:12 as base",
    "FROM debian AS a b",
    "FROM debian base",
    "FROM --platform=linux/amd64 debian",
    "FROM --platform debian",
    "FROM --other=1 debian",
    "FROM \"debian\"",
    "ARG V=12\nFROM debian:$V",
    "ARG V=12\nFROM debian:${V:-11}",
    "ENV A=1\nFROM debian",
    "EXPOSE 1\nFROM debian",
    "FROM a\nFROM b",
    "\u{feff}FROM debian",
    "# syntax=docker/dockerfile:1\n# escape=`\nFROM debian\nRUN a `\n  b\nENV P=c:\\x\\ Q=`\"q`\"",
    "# escape=x\nFROM a",
    "# escape=`\n# escape=`\nFROM a",
    "# comment\n# escape=`\nFROM a\nRUN x `\nRUN y",
    "#escape = `\nFROM a\nRUN b`\nc",
    "# other=1\nFROM a\nRUN x \\\n y",
    "  FROM a\r\n\tRUN one \\\r\n two\r\n",
    "RUN echo a",
    "RUN   echo   a  b  ",
    "RUN echo a \\\n  && echo b \\\n# comment\n\n  && echo c",
    "RUN echo a \\",
    "RUN echo a \\\\\nRUN b",
    "RUN echo a \\ \t\n b",
    "\\",
    "RUN",
    "RUN --mount=type=cache,target=/x --network=none echo a",
    "RUN --mount echo",
    "RUN --mount=type=cache,target=/x",
    "RUN --bad=1 echo",
    "RUN -- echo a",
    "RUN [\"echo\", \"a b\", \"it's\", \"\"]",
    "RUN [\"echo\", 1]",
    "RUN [ \"echo\" ",
    "RUN ['echo']",
    "RUN []",
    "RUN [ -f /x ] && y",
    "RUN <<EOF\necho a\n  echo $B\nEOF\nRUN c",
    "RUN <<-EOF\n\techo a\n\t\techo b\n\tEOF",
    "RUN <<'E O'\na\nE O",
    "RUN << EOF\na\nEOF",
    "RUN <<EOF\n#!/usr/bin/env python3\nprint('E2B_HEREDOC_EOF')\nEOF",
    "RUN <<EOF\n#!/bin/sh\nEOF",
    "RUN cat <<A >/a && cat <<\"B\" >/b\n1 $x\nA\n2\nB",
    "RUN python3 - <<-EOF\n\tprint(1)\n\tEOF",
    "RUN cat <<<word",
    "RUN echo \"a <<EOF",
    "RUN echo 'x <<EOF'",
    "RUN cat <<EOF\nx",
    "RUN 3<<EOF\nx\nEOF",
    "RUN <<EOF\nEOF",
    "COPY a.txt /x",
    "COPY a.txt b.txt /x/",
    "COPY \"my file.txt\" /x",
    "COPY [\"my file.txt\", \"/a b/\"]",
    "COPY my\\ file.txt /x",
    "COPY --chown=user:group --chmod=755 a.txt /x",
    "COPY --chmod=0644 --link --parents=false --exclude=*.c a.txt .",
    "COPY --chmod=u+x a.txt .",
    "COPY --chmod=99 a.txt .",
    "COPY --chmod=0 a.txt .",
    "ARG M=75\nENV N=${M}0\nFROM debian\nCOPY --chmod=$N a.txt .",
    "ENV M=x0644y N=${M#x}\nCOPY --chmod=${N%y} a.txt .",
    "ENV M=a0700b0711\nCOPY --chmod=${M##*b} a.txt .\nCOPY --chmod=${M//[a]/} a.txt .",
    "ENV M=a0700\nCOPY --chmod=${M/a/} a.txt .",
    "ENV M=0.6.4.4\nCOPY --chmod=${M//./} a.txt .",
    "ENV M=755.old.x\nCOPY --chmod=${M%%.*} a.txt .",
    "ENV M=\nCOPY --chmod=${M:-640} a.txt .\nCOPY --chmod=${Z-600} a.txt .\nCOPY --chmod=${Y:+1}700 a.txt .",
    "COPY --chmod=$NONE a.txt .",
    "COPY --chown=a --chown=b a.txt .",
    "COPY --chown= a.txt .",
    "COPY --link=maybe a.txt .",
    "COPY --from=x a.txt .",
    "COPY --chown a.txt .",
    "COPY --chown=\"a b\" a.txt .",
    "COPY a.txt",
    "COPY",
    "COPY ../a.txt /x",
    "COPY /a.txt /x",
    "COPY $X /y",
    "COPY ${X:-a} /y",
    "COPY a.txt ${D:-\"x y\"}/z",
    "COPY \"a.txt /x",
    "COPY <<EOF /x/f\na $B ${C:-d} `id` $(id) \\$e \\n \"q\"\nEOF",
    "COPY <<'EOF' /x/\na $B `id`\n\tt\nEOF",
    "COPY --chown=u --chmod=600 <<-A <<B a.txt /d/\n\t1\n\tA\n2\nB",
    "COPY <<EOF /x\n${A#\\}x} ${B//\\//_} ${C%%*.} $1 $? $ ${D:+a`b\\`c} \\\\\nEOF",
    "COPY <<EOF /x\n${A!b}\nEOF",
    "COPY <<EOF /x\n${A\nEOF",
    "COPY <<EOF /x\n${}\nEOF",
    "COPY <<EOF /x\nEOF",
    "COPY a.txt <<EOF\nx\nEOF",
    "COPY [\"<<EOF\", \"/x\"]\nRUN y",
    "ADD a.txt /x",
    "ADD https://example.com/x /x",
    "ADD --checksum=sha256:1 --keep-git-dir --unpack=true a.txt /x",
    "ENV A=1 B=\"x y\" C='$D' E=a\\ b F=",
    "ENV A 1 2  3 ",
    "ENV A",
    "ENV",
    "ENV A=1 B",
    "ENV =1",
    "ENV \\ \r\u{c}",
    "ARG \\ \r\u{c}",
    "ENV A=1 A=2 B=3",
    "ENV A=\"it's \\\"q\\\" \\x \\\\ $V ${W:-z}\"",
    "ENV A=${B:?no}",
    "ENV B=1 A=${B:?no}",
    "ENV A='open",
    "ENV A=${",
    "ENV A=${B!c}",
    "ENV A=$ B=$$ C=$1x D=${é} E=$@",
    "ENV --x=1 A=1",
    "ENV A=\"x\"y'z' B=\"\"",
    "ENV A \"q\" $B",
    "ARG A",
    "ARG A=1 B C=\"x y\"",
    "ARG",
    "ARG =1",
    "WORKDIR /a b",
    "WORKDIR /a",
    "WORKDIR \"/a b\"/$C",
    "WORKDIR",
    "WORKDIR --x /a",
    "USER me",
    "USER me:you",
    "USER",
    "CMD python app.py",
    "CMD [\"python\", \"a b.py\"]",
    "CMD []",
    "CMD",
    "CMD --x a",
    "CMD a\nCMD b",
    "CMD a\nCMD []",
    "ENTRYPOINT [\"a\", \"b c\"]\nCMD [\"d\"]",
    "ENTRYPOINT [\"a\"]\nCMD d 'e'",
    "CMD d\nENTRYPOINT a b",
    "ENTRYPOINT a b\nCMD [\"c\"]",
    "ENTRYPOINT []\nCMD [\"c\"]",
    "EXPOSE 80\nVOLUME /x\nVOLUME [\"/y\"]\nLABEL a=b c=\"d e\"\nMAINTAINER me",
    "VOLUME [1]",
    "LABEL a",
    "HEALTHCHECK --interval=5s CMD curl x\nHEALTHCHECK NONE\nSTOPSIGNAL 9\nSHELL [\"/bin/bash\", \"-c\"]\nONBUILD RUN x",
    "HEALTHCHECK CMD [1]",
    "SHELL [1]",
    "FOO bar",
    "RUNx",
    "run echo a\nWorkdir /x\ncopy a.txt /x",
];

#[test]
fn a_file_becomes_what_the_sdk_makes_of_it() {
    let Ok(python) = std::env::var("CASEMATE_TEST_SDK_PYTHON") else {
        println!("skipped: CASEMATE_TEST_SDK_PYTHON names no Python with the stock SDK");
        return;
    };
    let files: Vec<String> = FILES.iter().map(|text| whole(text)).collect();
    let theirs = sdk(&python, &files);
    assert_eq!(theirs.len(), files.len());
    let mut different = Vec::new();
    for (text, theirs) in files.iter().zip(theirs) {
        let ours = parse(text);
        // Which files a COPY may name is judged where they are selected.
        if text.contains("COPY ../") || text.contains("COPY /a.txt") {
            assert!(theirs.is_null() && ours.is_ok());
            continue;
        }
        let same = match &ours {
            Ok(recipe) => !theirs.is_null() && wire(recipe) == without_hashes(theirs.clone()),
            Err(_) => theirs.is_null(),
        };
        if !same {
            let ours = ours.map(|recipe| wire(&recipe));
            different.push(format!("{text:?}\n  ours   {ours:?}\n  theirs {theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn whole(text: &str) -> String {
    let has_from = |line: &str| line.trim_start().to_uppercase().starts_with("FROM");
    match text.is_empty() || text.lines().any(has_from) || text.starts_with('\u{feff}') {
        true => text.to_owned(),
        false => format!("FROM debian\n{text}"),
    }
}

fn sdk(python: &str, files: &[String]) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sdk.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = serde_json::to_vec(files).unwrap();
    child.stdin.take().unwrap().write_all(&asked).unwrap();
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success());
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn wire(recipe: &Recipe) -> Value {
    let steps = recipe.steps.iter().map(|step| {
        let (kind, args) = step.action.wire();
        json!({"type": kind, "args": args, "force": false})
    });
    let mut body = json!({
        "fromImage": recipe.from,
        "force": false,
        "steps": steps.collect::<Vec<_>>(),
    });
    if let Some(start) = &recipe.start {
        body["startCmd"] = json!(start);
        body["readyCmd"] = json!(recipe.ready);
    }
    body
}

fn without_hashes(mut body: Value) -> Value {
    for step in body["steps"].as_array_mut().into_iter().flatten() {
        step.as_object_mut().unwrap().remove("filesHash");
    }
    body
}
