//! Whatever dies, only what was in flight on it is lost.

use std::time::Duration;

use crate::support::chaos;

#[test]
fn whatever_dies_in_whatever_order_only_what_was_in_flight_on_it_is_lost() {
    let seed = std::env::var("HOTCTL_CHAOS_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..100_000), |seed| seed.parse().unwrap());
    println!("to see it again: HOTCTL_CHAOS_SEED={seed}");
    let story = chaos::run(seed, Duration::from_secs(30));
    println!("{story}");
    assert!(story.wrong.is_empty(), "{:#?}", story.wrong);
    assert!(story.killed > 0 && story.answered > 100, "{story}");
}
