//! Asking file systems for their space: those that may hang by a thread each, which hangs in our place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::io::Errno;

use crate::model::node::Space;

/// How long all of them together may hold a scrape up.
const PATIENCE: Duration = Duration::from_millis(100);
/// Threads that may hang at the same time.
const MOST: usize = 32;
/// node_exporter's words for a server that does not answer.
pub(super) const HANGS: &str = "mountpoint timeout";

/// How a file system is asked.
type Ask = fn(&Path) -> Result<Space, Errno>;

/// Questions without an answer yet.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pending: HashMap<PathBuf, Receiver<Result<Space, Errno>>>,
    deadline: Option<Instant>,
}

impl Remote {
    /// A new scrape begins.
    pub(super) fn begin(&mut self) {
        self.deadline = Some(Instant::now() + PATIENCE);
        // An answer that came after all is old by now; the next question will get one.
        self.pending.retain(|_, answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
    }

    /// Space of the file system at `place`, or why there is none.
    pub(super) fn space(&mut self, place: &Path, may_hang: bool) -> Result<Space, String> {
        match may_hang {
            true => self.ask(place, space),
            false => space(place).map_err(reason),
        }
    }

    fn ask(&mut self, place: &Path, ask: Ask) -> Result<Space, String> {
        if self.pending.contains_key(place) || self.pending.len() >= MOST {
            return Err(HANGS.to_owned());
        }
        let (sender, answer) = sync_channel(1);
        let question = place.to_owned();
        thread::Builder::new()
            .name("statvfs".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                // Nobody listens any more when the mount or the agent is gone.
                let _ = sender.send(ask(&question));
            })
            .map_err(|error| error.to_string())?;
        let patience = self.deadline.map_or(PATIENCE, |end| end.saturating_duration_since(Instant::now()));
        match answer.recv_timeout(patience) {
            Ok(outcome) => outcome.map_err(reason),
            Err(_) => {
                self.pending.insert(place.to_owned(), answer);
                Err(HANGS.to_owned())
            }
        }
    }
}

/// Blocks are counted in `f_frsize`, as statvfs(3) says; node_exporter takes `f_bsize`, which is another size on some file
/// systems in user space.
fn space(place: &Path) -> Result<Space, Errno> {
    let stat = statvfs(place)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space {
        size: bytes(stat.f_blocks),
        free: bytes(stat.f_bfree),
        available: bytes(stat.f_bavail),
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

/// The C library's words for an error, begun as node_exporter writes them: in lower case.
fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    static ANSWERS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    /// Hangs until the server comes back.
    fn hanging(_: &Path) -> Result<Space, Errno> {
        let (back, changed) = &ANSWERS;
        drop(changed.wait_while(back.lock().unwrap(), |back| !*back).unwrap());
        Ok(with_size(1))
    }

    fn with_size(size: u64) -> Space {
        Space { size, ..Space::default() }
    }

    /// Asks until there is an answer: a thread may be late on a busy machine.
    fn answer(remote: &mut Remote, place: &Path, ask: Ask) -> Result<Space, String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            remote.begin();
            match remote.ask(place, ask) {
                Err(_) if Instant::now() < end => thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    #[test]
    fn a_server_that_hangs_holds_nobody_up_and_is_asked_again_when_it_is_back() {
        let (mut remote, place) = (Remote::default(), Path::new("/far"));
        remote.begin();
        assert_eq!(remote.ask(place, hanging), Err(HANGS.to_owned()));
        remote.begin();
        let (started, long) = (Instant::now(), Duration::from_secs(60));
        remote.deadline = Some(started + long);
        assert_eq!(remote.ask(place, hanging), Err(HANGS.to_owned()));
        assert!(started.elapsed() < long, "it is known to hang");
        assert_eq!(answer(&mut remote, Path::new("/near"), |_| Ok(with_size(2))), Ok(with_size(2)));
        *ANSWERS.0.lock().unwrap() = true;
        ANSWERS.1.notify_all();
        assert_eq!(answer(&mut remote, place, hanging), Ok(with_size(1)));
        assert!(remote.pending.is_empty());
    }

    #[test]
    fn reasons_are_in_lower_case() {
        assert_eq!(reason(Errno::ACCESS), "permission denied");
        assert_eq!(reason(Errno::IO), "input/output error");
    }
}
