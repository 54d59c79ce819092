//! Drives quinn's tasks: what many streams have to say leaves together, and soon.
//!
//! ```text
//!  a stream's task ──wakes──▶ driver: rested? ──yes──▶ runs now
//!                                        └─no──▶ behind all that are ready ──▶ runs
//!  a stream's task ──the twelfth that wrote since──▶ runs the driver itself
//! ```
//!
//! 64 busy connections have a quarter to a half more requests a second by it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::burst::{self, Unsent};

/// After so long without work nothing is gained by waiting for company.
const QUIET: Duration = Duration::from_micros(50);
/// Streams that have something to say: so many together are worth a system call.
const ENOUGH: u32 = 12;

thread_local! {
    /// The task that quinn began last on this thread, for whoever had it begun.
    static BEGUN: RefCell<Option<Option<Arc<Driver>>>> = const { RefCell::new(None) };
}

/// Makes a connection, and gives the task of it that quinn began meanwhile.
pub(super) fn begun<T>(make: impl FnOnce() -> T) -> (T, Option<Arc<Driver>>) {
    BEGUN.set(Some(None));
    let made = make();
    (made, BEGUN.take().flatten())
}

/// Makes the driver of a task that quinn begins.
pub(super) fn begin(task: Task) -> Arc<Driver> {
    let driver = Arc::new(Driver::new(task));
    BEGUN.with_borrow_mut(|begun| {
        if let Some(begun) = begun {
            *begun = Some(driver.clone());
        }
    });
    driver
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One of quinn's tasks. Whoever writes to a stream wakes it, and tokio runs next what was woken last: with many busy
/// streams each of them would have a packet, and a system call, of its own. So it goes behind all tasks that are ready,
/// unless it has rested for a while, or enough has gathered: then whoever wrote last runs it at once, since the peer's core
/// waits meanwhile.
pub(super) struct Driver {
    turns: Mutex<Turns>,
    /// Writes to streams since it last ran.
    written: AtomicU32,
}

struct Turns {
    task: Option<Task>,
    waker: Option<Waker>,
    behind: bool,
    ran: Option<Instant>,
    /// What it sent and the socket did not take.
    unsent: Option<Unsent>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    fn new(task: Task) -> Self {
        Self {
            turns: Mutex::new(Turns {
                task: Some(task),
                waker: None,
                behind: false,
                ran: None,
                unsent: None,
            }),
            written: AtomicU32::new(0),
        }
    }

    /// A stream of its connection has something to say.
    pub(super) fn wrote(&self) {
        if self.written.fetch_add(1, Ordering::Relaxed) + 1 < ENOUGH {
            return;
        }
        // Whoever runs it just now sees what was written, or is woken once more.
        let Ok(mut turns) = self.turns.try_lock() else {
            return;
        };
        let Some(waker) = turns.waker.clone() else { return };
        self.written.store(0, Ordering::Relaxed);
        turns.ran = Some(Instant::now());
        if turns.run(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut turns = self.turns.lock().expect("nothing panics while it is held");
        if !turns
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            turns.waker = Some(context.waker().clone());
        }
        let now = Instant::now();
        let busy = turns.ran.is_some_and(|ran| now.duration_since(ran) < QUIET);
        if turns.task.is_some() && busy && !std::mem::replace(&mut turns.behind, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        turns.behind = false;
        turns.ran = Some(now);
        self.written.store(0, Ordering::Relaxed);
        turns.run(context)
    }
}

impl Turns {
    /// Runs the task, and sends what it has to say in as few bursts as can be.
    fn run(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_unsent(context));
        let Some(task) = &mut self.task else {
            return Poll::Ready(());
        };
        burst::begin();
        let mut polled = task.as_mut().poll(context);
        if polled.is_pending() && burst::is_hungry() {
            polled = task.as_mut().poll(context);
        }
        if polled.is_ready() {
            self.task = None;
        }
        self.unsent = burst::end();
        // For it to be woken; a task that is over leaves nobody who could wait.
        let _ = self.poll_unsent(context);
        polled
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(unsent) = &mut self.unsent {
            ready!(unsent.poll_send(context));
            self.unsent = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_rested_task_runs_at_once_and_a_busy_one_behind_the_others() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let ran = Arc::new(AtomicU32::new(0));
        let driver = Driver::new(Box::pin(poll_fn({
            let ran = ran.clone();
            move |_| match ran.fetch_add(1, Ordering::Relaxed) {
                0..=2 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })));
        // As if it had run just now, however slow this machine is; or never.
        let runs = |busy: bool| {
            let now = Instant::now() + Duration::from_secs(3600);
            driver.turns.lock().unwrap().ran = busy.then_some(now);
        };
        let (ran, woken) = (|| ran.load(Ordering::Relaxed), || wakes.0.load(Ordering::Relaxed));
        assert_eq!(driver.poll(&mut context), Poll::Pending);
        assert_eq!(ran(), 1, "rested: it runs");
        runs(true);
        assert_eq!(driver.poll(&mut context), Poll::Pending);
        assert_eq!((ran(), woken()), (1, 1), "it goes behind");
        assert_eq!(driver.poll(&mut context), Poll::Pending);
        assert_eq!((ran(), woken()), (2, 1), "it runs");
        (1..ENOUGH).for_each(|_| driver.wrote());
        assert_eq!(ran(), 2);
        driver.wrote();
        assert_eq!(ran(), 3, "enough has gathered");
        runs(false);
        (1..ENOUGH).for_each(|_| driver.wrote());
        assert_eq!((ran(), woken()), (3, 1));
        driver.wrote();
        assert_eq!(
            (ran(), woken()),
            (4, 2),
            "it is over, as its own task has to learn"
        );
        assert_eq!(driver.poll(&mut context), Poll::Ready(()));
    }
}
