use proptest::prelude::*;

use super::*;

const UDP: [Path; 4] = [Path::DirectIpv4, Path::DirectIpv6, Path::PeerRelayIpv4, Path::PeerRelayIpv6];

/// A history and the moment that it began; times are milliseconds after it.
struct Scene {
    start: Instant,
    history: PathHistory,
}

impl Scene {
    fn new() -> Self {
        Self { start: Instant::now(), history: PathHistory::default() }
    }

    fn after(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    /// tailscaled says so when it is asked.
    fn hear(&mut self, at: u64, said: Option<Path>) -> (Path, u64) {
        self.hear_late(at, at, said)
    }

    /// tailscaled said so when it was asked some time ago.
    fn hear_late(&mut self, asked: u64, at: u64, said: Option<Path>) -> (Path, u64) {
        let asked = self.after(asked);
        self.history.hear(said.map(|path| (path, asked)), self.after(at));
        (self.history.current(), self.history.changes())
    }

    fn see(&mut self, at: u64, path: Path) -> (Path, u64) {
        self.history.see(path, self.after(at));
        (self.history.current(), self.history.changes())
    }

    /// Sees data once a second from `from` to `to`.
    fn see_all(&mut self, from: u64, to: u64, path: Path) -> (Path, u64) {
        (from..=to).step_by(1000).map(|at| self.see(at, path)).last().unwrap()
    }

    /// Milliseconds on each path that the peer had, in the order of export.
    fn spent(&self, at: u64) -> Vec<(&'static str, u64)> {
        let now = self.after(at);
        let spent = |path: Path| Some((path.as_str(), self.history.spent(path, now)?.as_millis() as u64));
        Path::ALL.into_iter().filter_map(spent).collect()
    }
}

#[test]
fn time_goes_to_the_path_that_the_peer_is_on() {
    let mut scene = Scene::new();
    assert_eq!(scene.spent(5_000), []);
    for (at, path) in [
        (0, Path::DirectIpv4),
        (10_000, Path::DirectIpv4),
        (30_000, Path::Derp),
        (50_000, Path::PeerRelayIpv6),
        (55_000, Path::DirectIpv4),
    ] {
        scene.hear(at, Some(path));
    }
    let expected = [("direct_ipv4", 45_000), ("derp", 20_000), ("peer_relay_ipv6", 5_000)];
    assert_eq!(scene.spent(70_000), expected);
    assert_eq!(scene.spent(70_000), expected, "reading changes nothing");
    assert_eq!((scene.history.current(), scene.history.changes()), (Path::DirectIpv4, 3));
}

#[test]
fn idle_between_is_no_change_but_has_its_time() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::Idle));
    scene.hear(10_000, Some(Path::DirectIpv4));
    scene.hear(20_000, Some(Path::Idle));
    assert_eq!(scene.hear(30_000, Some(Path::DirectIpv4)), (Path::DirectIpv4, 0));
    assert_eq!(scene.spent(40_000), [("direct_ipv4", 20_000), ("idle", 20_000)]);
    scene.hear(50_000, Some(Path::Idle));
    assert_eq!(scene.hear(60_000, Some(Path::Derp)), (Path::Derp, 1), "another one than before the rest");
}

#[test]
fn unknown_time_belongs_to_no_path() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::Derp));
    scene.hear(10_000, None);
    assert_eq!(scene.hear(60_000, None), (Path::Derp, 0), "the last known one");
    assert_eq!(scene.spent(100_000), [("derp", 10_000)]);
    scene.hear(100_000, Some(Path::Derp));
    assert_eq!(scene.spent(103_000), [("derp", 13_000)]);
    scene.history.leave(scene.after(104_000));
    assert_eq!(scene.spent(200_000), [("derp", 14_000)]);
    assert_eq!(scene.history.changes(), 0);
}

#[test]
fn moments_out_of_order_are_never_counted_twice() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::Derp));
    scene.see(20_000, Path::DirectIpv4);
    scene.see(15_000, Path::DirectIpv6);
    let before = [("direct_ipv4", 0), ("direct_ipv6", 0), ("derp", 20_000)];
    assert_eq!(scene.spent(18_000), before);
    assert_eq!(scene.spent(21_000), [("direct_ipv4", 0), ("direct_ipv6", 1_000), ("derp", 20_000)]);
}

#[test]
fn what_the_underlay_shows_counts_at_once_and_an_older_word_changes_nothing() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::Derp));
    assert_eq!(scene.see(4_000, Path::DirectIpv4), (Path::DirectIpv4, 1));
    for at in [4_500, 60_000] {
        assert_eq!(scene.hear_late(0, at, Some(Path::Derp)), (Path::DirectIpv4, 1), "the old word again");
    }
    assert_eq!(scene.hear_late(3_000, 60_000, Some(Path::Idle)), (Path::DirectIpv4, 1), "an older one");
    assert_eq!(scene.hear(70_000, Some(Path::DirectIpv4)), (Path::DirectIpv4, 1), "counted already");
    assert_eq!(scene.spent(80_000), [("direct_ipv4", 76_000), ("derp", 4_000)]);
}

#[test]
fn a_word_to_the_contrary_counts_when_it_was_asked_for_after_the_data_had_ended() {
    for said in [Path::Idle, Path::DirectIpv6, Path::Derp] {
        let mut scene = Scene::new();
        scene.hear(0, Some(said));
        scene.see(5_000, Path::DirectIpv4);
        assert_eq!(scene.hear(7_900, Some(said)).0, Path::DirectIpv4, "{said:?}");
        assert_eq!(scene.hear(8_000, Some(said)).0, said);
        assert_eq!(scene.see(9_000, Path::DirectIpv4).0, Path::DirectIpv4, "new data");
    }
}

#[test]
fn roaming_is_one_change_whoever_notices_it_first() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::DirectIpv4));
    scene.see_all(1_000, 9_000, Path::DirectIpv4);
    assert_eq!(scene.hear(9_500, Some(Path::DirectIpv6)), (Path::DirectIpv4, 0));
    assert_eq!(scene.see(10_000, Path::DirectIpv6), (Path::DirectIpv6, 1));
    scene.see_all(11_000, 19_000, Path::DirectIpv6);
    assert_eq!(scene.hear(19_500, Some(Path::DirectIpv6)), (Path::DirectIpv6, 1));
}

/// From a direct path to DERP and back, as tailscaled does it; the source passes on DERP when it was said twice.
#[test]
fn derp_follows_within_fifteen_seconds_and_the_way_back_at_once() {
    // Whenever `/status` is read, and whether or not data goes on over UDP for a second and a half.
    for phase in (0..10_000).step_by(500) {
        for both in [0, 1_500] {
            let mut scene = Scene::new();
            scene.hear(0, Some(Path::DirectIpv4));
            let lost_trust = 60_000;
            scene.see_all(500, lost_trust + both, Path::DirectIpv4);
            let asked = lost_trust + phase + 3_500;
            assert_eq!(scene.hear(asked, Some(Path::Derp)), (Path::Derp, 1), "{phase} {both}");
            assert!(asked <= lost_trust + 15_000);
            let back = asked + 20_000;
            scene.hear(back - 5_000, Some(Path::Derp));
            let (path, changes) = scene.see_all(back, back + 5_000, Path::DirectIpv4);
            // DERP that was believed beside data waits for tailscaled's word.
            assert_eq!(path == Path::Derp, both > 0 && phase < 1_000, "{phase} {both}");
            assert_eq!(scene.hear(back + 5_000, Some(Path::DirectIpv4)), (Path::DirectIpv4, 2));
            assert!(changes <= 2);
        }
    }
}

/// tailscaled before 1.98 sends everything both ways for ever.
#[test]
fn derp_beside_data_that_never_ends_is_believed_once_and_for_all() {
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::DirectIpv4));
    scene.see_all(1_000, 20_000, Path::DirectIpv4);
    assert_eq!(scene.hear(20_500, Some(Path::Derp)), (Path::Derp, 1));
    assert_eq!(scene.see_all(21_000, 40_000, Path::DirectIpv4), (Path::Derp, 1));
    assert_eq!(scene.see_all(60_000, 70_000, Path::DirectIpv4), (Path::Derp, 1), "after a rest, too");
    assert_eq!(scene.hear(70_500, Some(Path::DirectIpv4)), (Path::DirectIpv4, 2));
    // From DERP to a path that fails before tailscaled says anything else.
    let mut scene = Scene::new();
    scene.hear(0, Some(Path::Derp));
    scene.see_all(1_000, 9_000, Path::DirectIpv4);
    assert_eq!(scene.hear(10_000, Some(Path::Derp)), (Path::DirectIpv4, 1), "may be a late pong");
    scene.see_all(10_000, 19_000, Path::DirectIpv4);
    assert_eq!(scene.hear(13_400, Some(Path::Derp)), (Path::DirectIpv4, 1));
    assert_eq!(scene.hear(20_000, Some(Path::Derp)), (Path::Derp, 2));
    assert_eq!(scene.see(20_500, Path::DirectIpv6), (Path::DirectIpv6, 3), "another path is news");
}

#[test]
fn without_tailscaled_the_path_is_known_while_data_flows() {
    let mut scene = Scene::new();
    scene.see_all(0, 10_000, Path::DirectIpv4);
    assert_eq!(scene.spent(11_000), [("direct_ipv4", 11_000)]);
    assert_eq!(scene.spent(60_000), [("direct_ipv4", 13_000)]);
    scene.see(60_000, Path::DirectIpv4);
    assert_eq!(scene.spent(61_000), [("direct_ipv4", 14_000)]);
    scene.hear(62_000, Some(Path::DirectIpv4));
    scene.hear(72_000, None);
    assert_eq!(scene.spent(90_000), [("direct_ipv4", 25_000)], "the data ended long ago");
    scene.hear(90_000, Some(Path::DirectIpv4));
    scene.see(94_000, Path::DirectIpv4);
    scene.hear(95_000, None);
    assert_eq!(scene.spent(200_000), [("direct_ipv4", 32_000)]);
    scene.see(96_000, Path::DirectIpv4);
    scene.history.leave(scene.after(96_500));
    assert_eq!(scene.spent(200_000), [("direct_ipv4", 31_500)], "gone is gone");
}

#[derive(Clone, Debug)]
enum Step {
    /// A word, and how long ago it was asked for.
    Hear(Option<Path>, u64),
    See(Path),
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop::option::weighted(0.9, prop::sample::select(Path::ALL.as_slice()));
    prop_oneof![
        8 => (word, 0_u64..12_000).prop_map(|(said, ago)| Step::Hear(said, ago)),
        8 => prop::sample::select(UDP.as_slice()).prop_map(Step::See),
        1 => Just(Step::Leave),
    ]
}

proptest! {
    /// Whatever is said and seen, the seconds of all paths are those in which the path was known, and none falls.
    #[test]
    fn seconds_add_up_to_the_time_known(
        steps in prop::collection::vec((0_u64..6_000, step()), 0..80), knows in any::<bool>(),
    ) {
        let mut scene = Scene::new();
        let (mut at, mut said, mut surely) = (20_000, false, 0);
        let mut before = [Duration::ZERO; Path::ALL.len()];
        let mut changes = 0;
        if knows {
            scene.hear(at, Some(Path::Idle));
            said = true;
        }
        let start = at;
        for (pause, step) in steps {
            at += pause;
            surely += if said { pause } else { 0 };
            match step {
                Step::Hear(None, _) | Step::Leave if knows => continue,
                Step::Hear(word, ago) => {
                    scene.hear_late(at - ago, at, word);
                    said = word.is_some();
                }
                Step::See(path) => {
                    scene.see(at, path);
                }
                Step::Leave => {
                    scene.history.leave(scene.after(at));
                    said = false;
                }
            }
            for now in [at, at + 2_500] {
                let spent = Path::ALL.map(|path| scene.history.spent(path, scene.after(now)).unwrap_or_default());
                let sum = spent.iter().sum::<Duration>().as_millis() as u64;
                let later = now - at;
                let certain = surely + if said { later } else { 0 };
                prop_assert!(certain <= sum && sum <= now - start, "{certain} <= {sum} <= {}", now - start);
                if knows {
                    prop_assert_eq!(sum, now - start);
                }
                if later == 0 {
                    prop_assert!(spent.iter().zip(before).all(|(now, before)| *now >= before));
                    before = spent;
                }
            }
            prop_assert!(scene.history.changes() >= changes);
            changes = scene.history.changes();
        }
    }

    /// Without the underlay, each new word counts at once, whenever it was asked for.
    #[test]
    fn tailscaled_alone_is_believed(
        words in prop::collection::vec((0_u64..30_000, prop::sample::select(Path::ALL.as_slice()), 0_u64..12_000), 0..50),
    ) {
        let mut scene = Scene::new();
        let mut at = 20_000;
        for (pause, word, ago) in words {
            at += pause;
            prop_assert_eq!(scene.hear_late(at - ago, at, Some(word)).0, word);
        }
    }
}
