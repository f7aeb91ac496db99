//! Pairs disco pings with their pongs. The transaction is sealed, so only order tells: a pong answers the ping before
//! it, if that is the only one.

use crate::layout::Exchange;

/// A ping without a pong for this long is given up; tailscaled sends the next one after 3 s (`heartbeatInterval`,
/// wgengine/magicsock/endpoint.go). Round trips up to this can be measured. Nanoseconds.
pub const GIVE_UP: u64 = 2_500_000_000;

/// What a pong is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// It answers a ping sent this many nanoseconds ago.
    After(u64),
    /// It may answer either of two pings.
    Ambiguous,
    /// No ping is known that it could answer.
    Unasked,
}

impl Exchange {
    /// A ping passed at `now`, nanoseconds of CLOCK_MONOTONIC.
    #[inline(always)]
    pub const fn ping(&mut self, now: u64) {
        let given_up = now.wrapping_sub(self.pinged_at) >= GIVE_UP;
        self.ambiguous = (self.outstanding != 0) as u32;
        self.outstanding = if given_up { 1 } else { self.outstanding + 1 };
        self.pinged_at = now;
    }

    /// A pong passed at `now`.
    #[inline(always)]
    pub const fn pong(&mut self, now: u64) -> Pong {
        if self.outstanding == 0 {
            return Pong::Unasked;
        }
        self.outstanding -= 1;
        let after = now.wrapping_sub(self.pinged_at);
        if self.ambiguous != 0 || after >= GIVE_UP { Pong::Ambiguous } else { Pong::After(after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Plays pings and pongs at the given milliseconds.
    fn play(events: &[(bool, u64)]) -> Vec<Pong> {
        let mut exchange = Exchange::default();
        let mut pongs = Vec::new();
        for &(is_ping, at) in events {
            let now = 10 * SECOND + at * 1_000_000;
            if is_ping { exchange.ping(now) } else { pongs.push(exchange.pong(now)) }
        }
        pongs
    }

    #[test]
    fn each_pong_answers_the_ping_before_it() {
        let pongs = play(&[(true, 0), (false, 40), (true, 3000), (false, 3050)]);
        assert_eq!(pongs, [Pong::After(40_000_000), Pong::After(50_000_000)]);
    }

    #[test]
    fn two_pings_at_a_time_yield_nothing_and_the_next_one_does() {
        let pongs = play(&[(true, 0), (true, 10), (false, 40), (false, 50), (true, 3000), (false, 3050)]);
        assert_eq!(pongs, [Pong::Ambiguous, Pong::Ambiguous, Pong::After(50_000_000)]);
    }

    #[test]
    fn after_a_lost_pong_one_more_round_is_not_believed() {
        let pongs = play(&[(true, 0), (true, 3000), (false, 3050), (true, 6000), (false, 6050)]);
        assert_eq!(pongs, [Pong::Ambiguous, Pong::After(50_000_000)]);
    }

    #[test]
    fn a_pong_that_nobody_asked_for_or_that_is_too_late_is_no_sample() {
        assert_eq!(play(&[(false, 0)]), [Pong::Unasked]);
        assert_eq!(play(&[(true, 0), (false, 2500), (false, 2501)]), [Pong::Ambiguous, Pong::Unasked]);
    }
}
