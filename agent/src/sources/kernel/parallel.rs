//! Work that waits for the kernel, shared out to threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, scope};

/// Does something with each of `items`, on a thread each as far as the system has them: what no thread takes, the caller
/// does. Results are in the order of the items.
pub(super) fn in_parallel<T: Send, R: Send>(items: Vec<T>, act: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = items.len().saturating_sub(1);
    share(items, threads, Builder::new, act)
}

/// As [`in_parallel`], on so many threads beside the caller's.
fn share<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    thread: impl Fn() -> Builder,
    act: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = lock(&items).next();
            let Some((index, item)) = next else { return };
            let result = act(item);
            lock(&done).push((index, result));
        }
    };
    scope(|scope| {
        for _ in 0..threads {
            if let Err(error) = thread().spawn_scoped(scope, work) {
                tracing::debug!(%error, "no thread to be had: what it would do waits for others");
                break;
            }
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Nobody panics while they hold one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn each_item_is_on_a_thread_of_its_own() {
        // Nobody passes before all are there.
        let barrier = Barrier::new(4);
        let done = in_parallel(vec![1, 2, 3, 4], |item| {
            barrier.wait();
            item * 10
        });
        assert_eq!(done, [10, 20, 30, 40]);
        assert!(in_parallel(Vec::<u8>::new(), |item| item).is_empty());
    }

    #[test]
    fn without_threads_the_caller_does_it_all() {
        // More than the address space has.
        let impossible = || Builder::new().stack_size(1 << 50);
        assert!(impossible().spawn(|| ()).is_err());
        let caller = thread::current().id();
        let done = share(vec![1, 2, 3], 2, impossible, |item| (item, thread::current().id() == caller));
        assert_eq!(done, [(1, true), (2, true), (3, true)]);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_reaches_the_caller() {
        let caller = thread::current().id();
        let barrier = Barrier::new(2);
        in_parallel(vec![1, 2], |_| {
            barrier.wait();
            assert_eq!(thread::current().id(), caller);
        });
    }
}
