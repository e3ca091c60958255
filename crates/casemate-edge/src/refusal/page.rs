//! Refusals as a page for people.

use super::Refusal;

/// One page, without anything to load. Everything from the request is escaped.
pub(super) fn render(refusal: &Refusal, host: &str) -> String {
    let sandbox = refusal.sandbox().map(|id| id.as_str()).unwrap_or_default();
    let (title, lead) = match refusal {
        Refusal::NotFound(_) => (
            "Sandbox Not Found",
            format!("The sandbox <b>{sandbox}</b> was not found. It may have ended."),
        ),
        Refusal::PortClosed { port, .. } => (
            "Closed Port",
            format!(
                "The sandbox <b>{sandbox}</b> is running, but there is no service running on \
                 port <b>{port}</b>."
            ),
        ),
        Refusal::TrafficTokenMissing(_) => ("Missing Traffic Access Token", escaped(refusal)),
        Refusal::TrafficTokenInvalid(_) => ("Invalid Traffic Access Token", escaped(refusal)),
        Refusal::ResumeDenied(_) => ("Sandbox Cannot Be Resumed", escaped(refusal)),
        Refusal::TeamLimit { .. } => ("Sandbox Limit Reached", escaped(refusal)),
        Refusal::Transitioning(_) => ("Sandbox Is Transitioning", escaped(refusal)),
        Refusal::Interrupted { .. } => ("Request Interrupted", escaped(refusal)),
        Refusal::TooManyRequests { .. } => ("Too Many Connections", escaped(refusal)),
        Refusal::Reserved { .. } => ("Reserved Path", escaped(refusal)),
        Refusal::Unexpected { .. }
        | Refusal::Target(_)
        | Refusal::HeadTooLarge { .. }
        | Refusal::MethodNotAllowed
        | Refusal::BodyBroken => ("Error", escaped(refusal)),
    };
    let id = if sandbox.is_empty() {
        String::new()
    } else {
        format!("<dt>Sandbox</dt><dd>{sandbox}</dd>")
    };
    format!(
        "<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:38em;margin:15vh auto;\
         padding:0 1em}}dt{{color:#666}}dd{{margin:0 0 .5em}}</style></head>\
         <body><h1>{title}</h1><p>{lead}</p><dl>{id}<dt>Host</dt><dd>{}</dd>\
         <dt>Status</dt><dd>{}</dd></dl></body></html>",
        escape(host),
        refusal.status().as_u16(),
    )
}

fn escaped(refusal: &Refusal) -> String {
    escape(&refusal.message())
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
