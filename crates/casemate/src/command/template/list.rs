//! `casemate template list`

use std::process::ExitCode;

use casemate_client::api::Template;

use crate::command::server::Server;
use crate::command::table::table;
use crate::output::Output;

pub async fn run(server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let templates = server.api.template_list().await?;
    output.value(&templates, || {
        let rows: Vec<_> = templates.iter().map(row).collect();
        table(
            [
                "NAME", "ID", "STATUS", "CPU", "MEMORY", "DISK", "BUILDS", "STARTED", "UPDATED",
            ],
            &rows,
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn row(template: &Template) -> [String; 9] {
    // Without a ready build there is nothing to tell of it.
    let known = |text: String| match template.cpu_count {
        0 => "-".to_owned(),
        _ => text,
    };
    [
        template.names.join(" "),
        template.template_id.clone(),
        template.build_status.clone(),
        known(template.cpu_count.to_string()),
        known(format!("{} MB", template.memory_mb)),
        known(format!("{} MB", template.disk_size_mb)),
        template.build_count.to_string(),
        template.spawn_count.to_string(),
        format!("{:.0}", template.updated_at),
    ]
}
