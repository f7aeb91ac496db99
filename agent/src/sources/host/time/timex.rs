//! adjtimex(2): how the wall clock is kept right (kernel/time/ntp.c).

use std::io;

use crate::model::host::Discipline;
use crate::sources::host::HostError;

/// Parts per million in 16 bits behind the point.
const FREQUENCY_UNIT: f64 = 65_536.0 * 1e6;

/// `None` where a sandbox forbids to ask: seccomp profiles do not tell reading from setting.
pub(super) fn read() -> Result<Option<Discipline>, HostError> {
    match adjtimex() {
        Ok((state, timex)) => Ok(Some(discipline(state, &timex))),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(None),
        Err(source) => Err(HostError::Call { operation: "read the state of the clock (adjtimex)", source }),
    }
}

fn discipline(state: i32, timex: &libc::timex) -> Discipline {
    let offset_unit = if timex.status & libc::STA_NANO == 0 { 1e6 } else { 1e9 };
    Discipline {
        synchronized: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        offset_seconds: timex.offset as f64 / offset_unit,
        max_error_seconds: timex.maxerror as f64 / 1e6,
        estimated_error_seconds: timex.esterror as f64 / 1e6,
        frequency_ratio: 1.0 + timex.freq as f64 / FREQUENCY_UNIT,
    }
}

/// Changes nothing: `modes` is 0. Needs no right.
#[expect(unsafe_code, reason = "no safe wrapper of adjtimex")]
fn adjtimex() -> io::Result<(i32, libc::timex)> {
    // SAFETY: a timex is made of integers only, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for reads and writes.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok((state, timex)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_states() {
        let (_, mut timex) = adjtimex().unwrap();
        timex.status = libc::STA_PLL;
        (timex.offset, timex.maxerror, timex.esterror, timex.freq) = (-1_500, 16_000_000, 250, 65_536 * 25);
        let expected = Discipline {
            synchronized: true,
            offset_seconds: -0.0015,
            max_error_seconds: 16.0,
            estimated_error_seconds: 0.00025,
            frequency_ratio: 1.000_025,
        };
        assert_eq!(discipline(libc::TIME_OK, &timex), expected);
        timex.status |= libc::STA_NANO;
        assert_eq!(discipline(libc::TIME_OK, &timex).offset_seconds, -0.000_001_5);
        assert!(!discipline(libc::TIME_ERROR, &timex).synchronized);
        timex.status |= libc::STA_UNSYNC;
        assert!(!discipline(libc::TIME_OK, &timex).synchronized);
    }

    #[test]
    fn the_clock_of_this_host_runs_at_about_its_speed() {
        let Some(discipline) = read().unwrap() else {
            eprintln!("skipped: a sandbox forbids adjtimex");
            return;
        };
        assert!(
            (discipline.frequency_ratio - 1.0).abs() < 0.001 && discipline.max_error_seconds >= 0.0,
            "{discipline:?}"
        );
    }
}
