use super::*;

fn seats(seats_max: usize, idle_spared: Duration) -> Arc<Seats> {
    Arc::new(Seats::new(&EdgeLimits {
        connections_max: seats_max,
        idle_spared,
        ..EdgeLimits::default()
    }))
}

fn take(seats: &Arc<Seats>, peer: &str) -> Option<(Seat, CancellationToken)> {
    let cut = CancellationToken::new();
    let seat = seats.take(peer.parse().unwrap(), cut.clone())?;
    Some((seat, cut))
}

#[test]
fn a_part_of_all_is_cleared_at_once_longest_idle_first() {
    let seats = seats(128, Duration::ZERO);
    let held: Vec<_> = (0..128)
        .map(|_| take(&seats, "127.0.0.1:1").unwrap())
        .collect();
    let (_new, _) = take(&seats, "127.0.0.1:1").unwrap();
    assert_eq!(seats.count(), 127);
    let cut: Vec<_> = (0..128).filter(|n| held[*n].1.is_cancelled()).collect();
    assert_eq!(cut, [0, 1]);
    // Their seats are given back once only.
    drop(held);
    assert_eq!(seats.count(), 1);
}

#[test]
fn a_connection_has_some_time_for_its_request() {
    let seats = seats(1, Duration::from_secs(3600));
    let (_first, cut) = take(&seats, "127.0.0.1:1").unwrap();
    assert!(take(&seats, "127.0.0.1:1").is_none());
    assert!(!cut.is_cancelled());
}

#[test]
fn no_request_begins_on_a_connection_that_lost_its_seat() {
    let seats = seats(1, Duration::ZERO);
    let (first, cut) = take(&seats, "127.0.0.1:1").unwrap();
    let (second, _) = take(&seats, "127.0.0.1:1").unwrap();
    assert!(cut.is_cancelled() && !first.activity().begin());
    assert!(second.activity().begin() && second.activity().is_busy());
    assert!(take(&seats, "127.0.0.1:1").is_none());
}

#[test]
fn an_answer_that_waits_for_its_client_keeps_the_seat() {
    let seats = seats(1, Duration::ZERO);
    let (first, cut) = take(&seats, "127.0.0.1:1").unwrap();
    assert!(first.activity().begin());
    first.activity().set_unsent(true);
    first.activity().part_ends();
    assert!(take(&seats, "127.0.0.1:1").is_none());
    assert!(!cut.is_cancelled());
}

#[test]
fn one_address_has_half_of_the_seats_and_leaves_nothing_behind() {
    let seats = seats(4, Duration::from_secs(3600));
    let held = [take(&seats, "192.0.2.1:1"), take(&seats, "192.0.2.1:2")];
    assert!(held.iter().all(Option::is_some));
    assert!(take(&seats, "192.0.2.1:3").is_none());
    let others = ["192.0.2.2:1", "127.0.0.1:1"].map(|peer| take(&seats, peer).unwrap());
    assert!(take(&seats, "192.0.2.3:1").is_none());
    assert_eq!(seats.plan().peers.len(), 2);
    drop((held, others));
    assert_eq!(seats.count(), 0);
    assert!(seats.plan().peers.is_empty());
}
