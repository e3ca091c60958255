//! Our own log: lines on standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::raw;

/// Starts logging for this process; once.
pub fn start(log: &raw::Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level (LOG_LEVEL): {:?}", log.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    match log.format.as_str() {
        "text" => lines.init(),
        "json" => lines.json().flatten_event(true).init(),
        other => anyhow::bail!("log.format: {other:?} is neither \"text\" nor \"json\""),
    }
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A filter that hides errors must not hide this.
        match tracing::enabled!(tracing::Level::ERROR) {
            true => panicked(info),
            false => former(info),
        }
    }));
    Ok(())
}

/// A panic as an event of the log: whoever collects lines of JSON gets no others.
fn panicked(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        at = info.location().map(tracing::field::display),
        thread = std::thread::current().name(),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panicked: {}",
        info.payload_as_str().unwrap_or("(no text)")
    );
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_one_line_of_the_log() {
        let lines = Lines::default();
        let writer = lines.clone();
        let json = tracing_subscriber::fmt().json().flatten_event(true);
        let json = json.with_writer(move || writer.clone()).finish();
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(super::panicked));
        let ended = tracing::subscriber::with_default(json, || {
            std::panic::catch_unwind(|| panic!("two\nlines"))
        });
        std::panic::set_hook(former);
        assert!(ended.is_err());
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(told["level"], "ERROR");
        assert_eq!(told["message"], "panicked: two\nlines");
        assert!(told["at"].as_str().unwrap().contains("log.rs:"), "{text}");
    }
}
