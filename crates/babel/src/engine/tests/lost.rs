//! What becomes of a neighbour whose link was taken for dead.

use super::*;

const NEVER: fn(&Bench, u16) -> bool = |_, _| false;

/// Neighbour 12 leads to NET, until nothing comes from it any more.
fn lose() -> Bench {
    let mut bench = Bench::new();
    bench.tell(12, NET, (5, 1, 100));
    bench.wait(SOON);
    carry(&mut bench, None);
    bench.wait_and(Duration::from_millis(301), NEVER);
    assert_eq!(bench.way(NET), Some(0));
    bench.told(12);
    bench.sent.clear();
    bench.to_ack.clear();
    bench
}

fn is_asked_everything(bench: &mut Bench) -> bool {
    let told = bench.told(12);
    told.contains(&Tlv::RouteRequest(None))
}

#[test]
fn the_first_answer_is_enough_to_be_a_neighbour_again() {
    let mut bench = lose();
    bench.wait_and(Duration::from_millis(98), NEVER);
    assert_eq!(probes(&bench), 0);
    bench.wait(Duration::from_millis(10));
    assert_eq!(probes(&bench), 1);
    assert!(is_asked_everything(&mut bench));
    bench.tell(12, NET, (5, 1, 100));
    assert_eq!(bench.way(NET), Some(12));
    bench.wait(Duration::from_secs(60));
    assert_eq!(probes(&bench), 0, "it is asked no more");
}

#[test]
fn so_are_packets_that_come_from_there() {
    let mut bench = lose();
    let heard = bench.now + Duration::from_millis(1);
    bench.wait_and(Duration::from_millis(2), NEVER);
    bench.event(Event::Traffic(OTHER, None, Some(heard)));
    bench.wait_and(Duration::from_millis(2), NEVER);
    assert!(is_asked_everything(&mut bench));
    bench.tell(12, NET, (5, 1, 100));
    assert_eq!(bench.way(NET), Some(12));
}

#[test]
fn what_came_before_it_was_lost_is_no_sign_of_life() {
    let mut bench = lose();
    let before = Time::ZERO + (bench.now - Time::ZERO - Duration::from_millis(50));
    bench.event(Event::Traffic(OTHER, None, Some(before)));
    bench.wait_and(Duration::from_millis(2), NEVER);
    assert!(!is_asked_everything(&mut bench));
}

#[test]
fn it_is_asked_ever_more_seldom_and_in_the_end_not_at_all() {
    let mut bench = lose();
    bench.wait_and(Duration::from_secs(2), NEVER);
    // After 100, 300, 700 and 1,500 ms.
    assert_eq!(probes(&bench), 4);
    bench.wait_and(Duration::from_secs(70), NEVER);
    let asked = probes(&bench);
    assert!((15..=25).contains(&asked), "{asked} times");
    bench.wait_and(Duration::from_secs(600), NEVER);
    assert_eq!(probes(&bench), asked);
    bench.hear(12, &[Tlv::Ack { opaque: 1 }]);
    bench.wait_and(SOON, NEVER);
    assert!(!is_asked_everything(&mut bench), "it was forgotten");
}

#[test]
fn a_link_that_is_taken_down_has_nobody_to_ask() {
    let mut bench = lose();
    bench.event(Event::LinkDown(OTHER));
    bench.wait_and(Duration::from_secs(70), NEVER);
    assert_eq!(probes(&bench), 0);
}

#[test]
fn a_link_of_which_the_other_end_hears_nothing_is_dead_unless_it_answers_at_once() {
    let mut bench = Bench::new();
    bench.tell(12, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.sent.clear();
    bench.event(Event::LinkSuspect(OTHER));
    bench.wait(Duration::from_secs(1));
    assert_eq!((probes(&bench), bench.way(NET)), (1, Some(12)));
    bench.event(Event::LinkSuspect(OTHER));
    bench.wait_and(Duration::from_millis(99), NEVER);
    assert_eq!(bench.way(NET), Some(12));
    bench.wait_and(Duration::from_millis(2), NEVER);
    assert_eq!(bench.way(NET), Some(0));
    bench.event(Event::LinkSuspect(OTHER));
    bench.event(Event::LinkSuspect(LinkId(99)));
}
