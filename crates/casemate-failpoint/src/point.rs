//! The places.

use std::fmt;
use std::str::FromStr;

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place where a process of ours can be made to die.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $($(#[$doc])* $variant,)*
        }

        impl Point {
            /// Every one, in the order of the variants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

points! {
    /// Control: the node has made a sandbox, there is no row yet.
    CreatePlaced = "create.placed",
    /// Control: row and route are there, the client knows nothing.
    CreateRecorded = "create.recorded",
    /// Node: a place in the table, nothing made.
    CreateAdmitted = "create.admitted",
    /// Node: a slot and a layer are taken for it.
    CreateClaimed = "create.claimed",
    /// Launcher's worker: it has the request.
    CreateReceived = "create.received",
    /// Launcher's worker: the root is mounted.
    CreateMounted = "create.mounted",
    /// Launcher's worker: the first process runs, the node knows nothing.
    CreateForked = "create.forked",
    /// Launcher: a worker has answered.
    CreateAnswered = "create.answered",
    /// Node: the first process runs, nothing is written.
    CreateLaunched = "create.launched",
    /// Node: the journal's entry is written and does not count.
    CreateNoted = "create.noted",
    /// Node: the agent serves, the entry does not count.
    CreateServes = "create.serves",
    /// Node: the entry counts, control knows nothing.
    CreateKept = "create.kept",

    /// Node: a sandbox is to be ended by an order.
    KillBegun = "kill.begun",
    /// Node: ended by an order, the journal has it still.
    KillStopped = "kill.stopped",
    /// Node: ended by an order, the entry is gone, control knows nothing.
    KillForgotten = "kill.forgotten",
    /// Control: the node has ended it, the row says that it runs.
    KillAnswered = "kill.answered",
    /// Control: the row says dead, the client knows nothing.
    KillRecorded = "kill.recorded",

    /// Node: the deadline has come.
    ExpiryBegun = "expiry.begun",
    /// Node: ended by its deadline, the journal has it still.
    ExpiryStopped = "expiry.stopped",
    /// Node: the entry is gone, control knows nothing.
    ExpiryForgotten = "expiry.forgotten",

    /// Node: the processes stand still, the journal says that they run.
    PauseFrozen = "pause.frozen",
    /// Node: the journal says paused, control knows nothing.
    PauseNoted = "pause.noted",
    /// Node: the files are kept and the processes gone, the journal says that they stand still.
    PauseGivenUp = "pause.given_up",
    /// Control: the node has paused it, the row says that it runs.
    PauseAnswered = "pause.answered",
    /// Control: the row says paused, the client knows nothing.
    PauseRecorded = "pause.recorded",

    /// Node: the journal says that it runs, the processes stand still.
    ResumeNoted = "resume.noted",
    /// Node: the processes go on, control knows nothing.
    ResumeThawed = "resume.thawed",
    /// Node: started anew with its files, the journal says paused.
    ResumeServes = "resume.serves",
    /// Node: the journal says that the new one runs, the files that it began with are kept too.
    ResumeKept = "resume.kept",
    /// Control: the node has resumed it, the row says paused.
    ResumeAnswered = "resume.answered",
    /// Control: the row says that it runs, the client knows nothing.
    ResumeRecorded = "resume.recorded",

    /// Control: the node keeps the files, no row names them.
    SnapshotAnswered = "snapshot.answered",
    /// Control: the row is there, the client knows nothing.
    SnapshotRecorded = "snapshot.recorded",
    /// Control: the row is gone, the files are still kept.
    SnapshotForgotten = "snapshot.forgotten",

    /// Node: the processes have gone, the layer is still in its place.
    StopEmptied = "stop.emptied",
    /// Node: the layer is in the trash, the slot is not given back.
    StopRetired = "stop.retired",

    /// Node: a sandbox stands still for a snapshot, there is none.
    SnapshotFrozen = "snapshot.frozen",
    /// Node: its copy is made and has no name of its own.
    SnapshotMade = "snapshot.made",
    /// Node: the snapshot is kept, nobody knows.
    SnapshotKept = "snapshot.kept",
    /// Node: a snapshot that is to go has lost its name, and is there.
    SnapshotRemoving = "snapshot.removing",

    /// Node: a snapshot is copied as a draft of a layer, there is no layer of its name.
    SealDrafted = "seal.drafted",
    /// Node: the layer is in its place, control knows nothing.
    SealPlaced = "seal.placed",
    /// Control: the node has made a layer, no row names it.
    SealAnswered = "seal.answered",
    /// Control: the cache names the layer, no build does.
    SealCached = "seal.cached",
    /// Node: a layer that is to go has lost its name, and is there.
    SealRemoving = "seal.removing",

    /// Node: the layer of one to suspend is kept, its processes stand still.
    SuspendKept = "suspend.kept",
    /// Node: they have gone, the slot is not given back.
    SuspendStopped = "suspend.stopped",

    /// Node: a writable layer was made and is on no shelf.
    LayerMade = "layer.made",
    /// Node: a used layer is empty and has no folders for the next sandbox.
    LayerEmptied = "layer.emptied",
    /// Node: amid the trash.
    LayerDeleted = "layer.deleted",

    /// Node: slots were made and are on no shelf.
    SlotMade = "slot.made",
    /// Node: used slots are about to be taken down.
    SlotRetiring = "slot.retiring",
    /// Node: used slots are taken down, their numbers are not free yet.
    SlotRetired = "slot.retired",

    /// Node at its start: a sandbox is taken over, others are not.
    StartAdopted = "start.adopted",
    /// Node at its start: what nobody owns is swept, nothing is made.
    StartSwept = "start.swept",
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Point {
    type Err = UnknownPoint;

    fn from_str(text: &str) -> Result<Self, UnknownPoint> {
        let named = |point: &&Self| point.name() == text;
        let found = Self::ALL.iter().find(named);
        found.copied().ok_or_else(|| UnknownPoint(text.to_owned()))
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no fail point {0:?}")]
pub struct UnknownPoint(String);
