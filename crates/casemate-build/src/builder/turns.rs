//! Whose build is next: so many run at once, and a team that has many waits beside one that has one.
//!
//! A place that becomes free goes to a team of those that have fewest builds under way; among such, to
//! the one that has waited longest since it came or was last given a place. Within a team whoever asked
//! first is first.
//!
//! A team that has none under way need not wait for those of another, which may take an hour each:
//! beyond the usual places there are some more for such.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::TeamId;
use tokio::sync::oneshot;

/// Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    /// Places for everybody.
    at_once: usize,
    /// Places beyond them for teams that have none.
    spare: usize,
    /// Places that are taken.
    taken: usize,
    running: HashMap<TeamId, usize>,
    /// Teams that have somebody waiting, each once, in the order of their turns.
    waiting: VecDeque<Line>,
}

/// Those of one team that wait, in the order in which they came.
#[derive(Debug)]
struct Line {
    team: TeamId,
    asked: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to build, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: Turns,
    team: TeamId,
}

/// What becomes of whoever asks.
pub(super) enum Asked {
    Now(Turn),
    /// Never fails; dropped, it is as if nobody had asked.
    Later(oneshot::Receiver<Turn>),
}

impl Turns {
    pub(super) fn new(at_once: usize, spare: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            at_once,
            spare,
            taken: 0,
            running: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    pub(super) fn ask(&self, team: &TeamId) -> Asked {
        let mut queue = self.lock();
        if queue.has_place_for(team) {
            return Asked::Now(self.begin(&mut queue, team));
        }
        let (sender, receiver) = oneshot::channel();
        match queue.waiting.iter_mut().find(|line| line.team == *team) {
            Some(line) => line.asked.push_back(sender),
            None => queue.waiting.push_back(Line {
                team: team.clone(),
                asked: [sender].into(),
            }),
        }
        Asked::Later(receiver)
    }

    fn begin(&self, queue: &mut Queue, team: &TeamId) -> Turn {
        queue.taken += 1;
        *queue.running.entry(team.clone()).or_default() += 1;
        Turn {
            of: self.clone(),
            team: team.clone(),
        }
    }

    /// Takes a place back and gives it to the next.
    fn end(&self, team: &TeamId) {
        let (next, turn) = {
            let mut queue = self.lock();
            queue.taken -= 1;
            if let Some(count) = queue.running.get_mut(team) {
                *count -= 1;
                if *count == 0 {
                    queue.running.remove(team);
                }
            }
            let Some((team, next)) = queue.next() else {
                return;
            };
            (next, self.begin(&mut queue, &team))
        };
        // Outside of the lock: whoever has just given up leaves the turn here, and it is ended as any.
        drop(next.send(turn));
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Queue {
    fn has_place_for(&self, team: &TeamId) -> bool {
        let more = match self.running.contains_key(team) {
            true => 0,
            false => self.spare,
        };
        self.taken < self.at_once + more
    }

    /// Takes the next one out for which there is a place; its team goes to the end when it has more.
    fn next(&mut self) -> Option<(TeamId, oneshot::Sender<Turn>)> {
        for line in &mut self.waiting {
            line.asked.retain(|asked| !asked.is_closed());
        }
        self.waiting.retain(|line| !line.asked.is_empty());
        let running = |line: &Line| self.running.get(&line.team).copied().unwrap_or(0);
        // The first of several that are equal.
        let lines = self.waiting.iter().enumerate();
        let (place, line) = lines.min_by_key(|(_, line)| running(line))?;
        // Those of the others have as many, or more.
        if !self.has_place_for(&line.team) {
            return None;
        }
        let mut line = self.waiting.remove(place)?;
        let next = line.asked.pop_front()?;
        let team = line.team.clone();
        if !line.asked.is_empty() {
            self.waiting.push_back(line);
        }
        Some((team, next))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.end(&self.team);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(number: u8) -> TeamId {
        TeamId::parse(&format!("0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a{number:02x}")).unwrap()
    }

    /// Those that wait, each with the number of its team.
    struct Waiting(Vec<(u8, oneshot::Receiver<Turn>)>);

    impl Waiting {
        #[track_caller]
        fn ask(&mut self, turns: &Turns, number: u8) {
            match turns.ask(&team(number)) {
                Asked::Later(waits) => self.0.push((number, waits)),
                Asked::Now(_) => panic!("no place is free"),
            }
        }

        /// The place in the list of whoever has a turn now, its team, and the turn.
        fn served(&mut self) -> Option<(usize, u8, Turn)> {
            let mut all = self.0.iter_mut().enumerate();
            all.find_map(|(place, (number, waits))| Some((place, *number, waits.try_recv().ok()?)))
        }

        /// Ends one build after the other, and says whose were begun.
        fn order(mut self, mut turn: Turn) -> Vec<u8> {
            let mut order = Vec::new();
            loop {
                drop(turn);
                let Some((place, number, next)) = self.served() else {
                    return order;
                };
                // The first of its team.
                let first = self.0.iter().position(|(other, _)| *other == number);
                assert_eq!(first, Some(place));
                self.0.remove(place);
                order.push(number);
                turn = next;
            }
        }
    }

    #[track_caller]
    fn now(turns: &Turns, number: u8) -> Turn {
        match turns.ask(&team(number)) {
            Asked::Now(turn) => turn,
            Asked::Later(_) => panic!("a place is free"),
        }
    }

    #[test]
    fn teams_take_turns_and_within_a_team_the_first_is_first() {
        let turns = Turns::new(1, 0);
        let first = now(&turns, 1);
        let mut waiting = Waiting(Vec::new());
        for number in [1, 1, 1, 2, 3, 3] {
            waiting.ask(&turns, number);
        }
        assert_eq!(waiting.order(first), [1, 2, 3, 1, 3, 1]);
        // Nothing is lost on the way.
        drop(now(&turns, 1));
    }

    #[test]
    fn a_team_without_a_place_goes_before_one_that_has_some() {
        let turns = Turns::new(3, 0);
        let mut running: Vec<Turn> = (0..3).map(|_| now(&turns, 1)).collect();
        let mut waiting = Waiting(Vec::new());
        for number in [1, 1, 2, 2] {
            waiting.ask(&turns, number);
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            drop(running.remove(0));
            let (place, number, turn) = waiting.served().unwrap();
            waiting.0.remove(place);
            running.push(turn);
            order.push(number);
        }
        // First whoever has none; then both have one, and it is the other's turn.
        assert_eq!(order, [2, 1, 2]);
    }

    #[test]
    fn a_team_that_has_none_does_not_wait_for_one_that_has_all() {
        let turns = Turns::new(2, 2);
        let first = [now(&turns, 1), now(&turns, 1)];
        let mut waiting = Waiting(Vec::new());
        waiting.ask(&turns, 1);
        let (second, third) = (now(&turns, 2), now(&turns, 3));
        // There are no more, and not for those that have one.
        for number in [2, 4, 4] {
            waiting.ask(&turns, number);
        }
        let mut served = |given: Turn| {
            drop(given);
            let (place, number, turn) = waiting.served()?;
            waiting.0.remove(place);
            Some((number, turn))
        };
        let (number, second) = served(second).unwrap();
        assert_eq!(number, 2);
        let (number, fourth) = served(third).unwrap();
        assert_eq!(number, 4);
        // What ends beyond the usual places is for nobody who has one.
        assert!(served(second).is_none());
        let (number, fourth) = served(fourth).unwrap();
        assert_eq!(number, 4);
        let [one, other] = first;
        assert!(served(one).is_none());
        let (number, last) = served(other).unwrap();
        assert_eq!(number, 1);
        drop((fourth, last));
        assert_eq!(turns.lock().taken, 0);
    }

    #[test]
    fn whoever_gives_up_holds_nobody_up() {
        let turns = Turns::new(1, 0);
        let first = now(&turns, 1);
        let mut waiting = Waiting(Vec::new());
        for number in [2, 2, 3] {
            waiting.ask(&turns, number);
        }
        waiting.0.remove(0);
        drop(first);
        let (place, number, turn) = waiting.served().unwrap();
        assert_eq!((place, number), (0, 2));
        // It got its turn and never looked.
        waiting.0.remove(0);
        drop(turn);
        let (_, given) = waiting.0.remove(0);
        drop(given);
        drop(now(&turns, 4));
        let queue = turns.lock();
        assert_eq!(
            (queue.taken, queue.running.len(), queue.waiting.len()),
            (0, 0, 0)
        );
    }
}
