//! A neighbour that is gone by tells of more than may be.

use super::*;

fn longer() -> Bench {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.told(2);
    bench.tell(2, NET, (5, 1, 900));
    assert_eq!(bench.way(NET), Some(2), "it stays what it was");
    assert_eq!(bench.requests(2), [(2, 64)]);
    bench
}

#[test]
fn something_newer_ends_the_doubt() {
    let mut bench = longer();
    bench.wait(Duration::from_secs(7));
    bench.tell(2, NET, (5, 2, 900));
    bench.wait(Duration::from_secs(20));
    assert_eq!(bench.way(NET), Some(2));
    assert!(
        bench
            .ways
            .iter()
            .all(|(_, way)| *way != Some(Way::Unreachable))
    );
}

#[test]
fn without_that_it_is_believed() {
    let mut bench = longer();
    bench.wait(Duration::from_millis(7_900));
    bench.tell(2, NET, (5, 1, 950));
    assert_eq!(bench.way(NET), Some(2));
    bench.wait(Duration::from_millis(200));
    assert_eq!(bench.way(NET), None);
    bench.tell(12, NET, (5, 2, 300));
    assert_eq!(bench.way(NET), Some(12));
}

#[test]
fn what_is_gone_is_not_doubted() {
    let mut bench = longer();
    bench.retract(2, Some(NET));
    bench.tell(12, NET, (5, 2, 300));
    bench.wait(Duration::from_secs(20));
    assert_eq!(bench.way(NET), Some(12));
}
