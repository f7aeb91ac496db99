//! Tasks that go on for as long as the agent does. One that ends, by a panic for the most part, must not be missed: the
//! rest would go on as if nothing were missing.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::task::{JoinError, JoinHandle, spawn_local};

/// A task ended, which none should.
#[derive(Debug, thiserror::Error)]
#[error("what is to {task} has ended")]
pub struct Ended {
    /// What it does.
    pub task: &'static str,
    /// The panic, if it was one.
    #[source]
    pub panic: Option<JoinError>,
}

/// Tasks on the current `LocalSet`; dropped, they end.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    /// Starts one that does what `task` says.
    pub(crate) fn start(&mut self, task: &'static str, future: impl Future<Output = ()> + 'static) {
        self.0.push((task, spawn_local(future)));
    }

    /// Waits for the first to end. May be dropped and called again.
    pub(crate) async fn end(&mut self) -> Ended {
        poll_fn(|context| {
            let ended = self.0.iter_mut().enumerate().find_map(|(index, (_, handle))| {
                match Pin::new(handle).poll(context) {
                    Poll::Ready(outcome) => Some((index, outcome)),
                    Poll::Pending => None,
                }
            });
            let Some((index, outcome)) = ended else { return Poll::Pending };
            let (task, _) = self.0.swap_remove(index);
            Poll::Ready(Ended { task, panic: outcome.err() })
        })
        .await
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::future::pending;
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    fn on_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn the_one_that_ends_is_named_with_its_panic() {
        on_runtime(async {
            let mut tasks = Tasks::default();
            tasks.start("go on", pending());
            tasks.start("fail", async { panic!("no thread to be had") });
            let ended = tasks.end().await;
            assert_eq!(ended.to_string(), "what is to fail has ended");
            let cause = ended.source().unwrap().to_string();
            assert!(cause.contains("no thread to be had"), "{cause}");
        });
    }

    #[test]
    fn an_end_without_a_panic_is_an_end_too_and_the_others_can_be_waited_for() {
        on_runtime(async {
            let mut tasks = Tasks::default();
            tasks.start("go on", pending());
            tasks.start("end", async {});
            tasks.start("end later", yield_now());
            for task in ["end", "end later"] {
                let ended = tasks.end().await;
                assert_eq!((ended.task, ended.panic.is_none()), (task, true));
            }
            tokio::select! {
                biased;
                ended = tasks.end() => panic!("{ended}"),
                () = yield_now() => {}
            }
        });
    }

    #[test]
    fn dropped_they_let_go_of_what_they_hold() {
        on_runtime(async {
            let held = Rc::new(());
            let mut tasks = Tasks::default();
            let holds = Rc::clone(&held);
            tasks.start("hold", async move {
                let _holds = holds;
                pending::<()>().await;
            });
            yield_now().await;
            assert_eq!(Rc::strong_count(&held), 2);
            drop(tasks);
            yield_now().await;
            assert_eq!(Rc::strong_count(&held), 1);
        });
    }
}
