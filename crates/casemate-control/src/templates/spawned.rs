//! How many sandboxes were made of each template: counted in memory, written every few seconds, so
//! that no create waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_store::Store;
use casemate_types::{TemplateId, Timestamp, chain};

use crate::Control;

const ROUND: Duration = Duration::from_secs(3);

/// How many, and when the last one.
type Counts = HashMap<TemplateId, (u64, Timestamp)>;

#[derive(Default)]
pub(crate) struct Spawned {
    noted: Mutex<Counts>,
    /// Taken, and not written yet; whoever is stopped in between leaves it to the next.
    unwritten: tokio::sync::Mutex<Counts>,
}

impl Spawned {
    pub(crate) fn note(&self, template: &TemplateId) {
        add(&mut self.noted(), template.clone(), (1, Timestamp::now()));
    }

    /// Writes what was noted. What could not be written is kept for the next time.
    pub(crate) async fn write(&self, store: &dyn Store) {
        let mut unwritten = self.unwritten.lock().await;
        let noted = std::mem::take(&mut *self.noted());
        for (template, more) in noted {
            add(&mut unwritten, template, more);
        }
        if unwritten.is_empty() {
            return;
        }
        let rows = unwritten.iter();
        let rows: Vec<_> = rows.map(|(id, (n, at))| (id.clone(), *n, *at)).collect();
        match store.template_spawned(&rows).await {
            Ok(()) => unwritten.clear(),
            Err(error) => tracing::warn!(
                error = chain(&error),
                "could not note how often templates were used; trying again later"
            ),
        }
    }

    fn noted(&self) -> MutexGuard<'_, Counts> {
        self.noted.lock().expect("no holder of this lock panics")
    }
}

fn add(counts: &mut Counts, template: TemplateId, (more, at): (u64, Timestamp)) {
    let entry = counts.entry(template).or_insert((0, at));
    *entry = (entry.0.saturating_add(more), entry.1.max(at));
}

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut round = tokio::time::interval(ROUND);
    loop {
        round.tick().await;
        control.spawned.write(&*control.store).await;
    }
}
