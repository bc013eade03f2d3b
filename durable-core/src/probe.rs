//! Places where a test may kill the process, or one worker in it. Outside the feature `testing` this is nothing.
//!
//! The process dies by `abort`. A worker dies by never going on: whatever of it comes to a crash point from then on waits
//! there for ever, until its runtime is dropped (`testing::world`). Each database call has a crash point before it, so a
//! dead worker begins no more of them.

/// Pass a crash point. The second argument says before or after what.
#[cfg(not(feature = "testing"))]
macro_rules! probe {
    ($place:literal, $what:expr) => {};
}

/// Pass a crash point, or wait at it for ever. The second argument says before or after what.
#[cfg(feature = "testing")]
macro_rules! probe {
    ($place:literal, $what:expr) => {
        $crate::probe::pass($place, $what).await
    };
}

pub(crate) use probe;

#[cfg(feature = "testing")]
pub(crate) use crash_points::{Life, Point, crash_at, pass, passed};

#[cfg(feature = "testing")]
mod crash_points {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use tokio::sync::Notify;

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static CRASH_AT: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        /// The life that this thread's tasks are part of, if a test looks at it.
        static LIFE: RefCell<Option<Arc<Life>>> = const { RefCell::new(None) };
    }

    pub(crate) async fn pass(place: &'static str, what: &str) {
        let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if passed == CRASH_AT.load(Ordering::SeqCst) {
            eprintln!("crash point {passed}: {place}");
            std::process::abort();
        }
        let alive = LIFE.with_borrow(|life| life.as_ref().is_none_or(|life| life.pass(place, what)));
        if !alive {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn crash_at(n: u64) {
        PASSED.store(0, Ordering::SeqCst);
        CRASH_AT.store(n, Ordering::SeqCst);
    }

    pub(crate) fn passed() -> u64 {
        PASSED.load(Ordering::SeqCst)
    }

    /// A crash point by what it is, and not by its place among all: what goes on side by side comes in any order.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub(crate) struct Point {
        /// Where it is.
        pub(crate) name: String,
        /// Which of those of its name, from 1.
        pub(crate) nth: usize,
    }

    /// The life of one worker, on threads of its own, and the crash point at which it ends.
    pub(crate) struct Life {
        /// `None` for never.
        ends_at: Option<Point>,
        inner: Mutex<Inner>,
        ended: Notify,
    }

    #[derive(Default)]
    struct Inner {
        /// Points count from here on.
        begun: bool,
        points: Vec<Point>,
        is_over: bool,
    }

    impl Life {
        pub(crate) fn new(ends_at: Option<Point>) -> Arc<Self> {
            Arc::new(Self { ends_at, inner: Mutex::default(), ended: Notify::new() })
        }

        /// The tasks of the calling thread are part of this life.
        pub(crate) fn take_thread(self: &Arc<Self>) {
            LIFE.set(Some(self.clone()));
        }

        /// Count crash points from here on.
        pub(crate) fn begin(&self) {
            self.inner().begun = true;
        }

        /// Wait until it has come to its end. For one waiter.
        pub(crate) async fn ended(&self) {
            self.ended.notified().await;
        }

        /// The crash point at which it ended, if it has.
        pub(crate) fn end(&self) -> Option<Point> {
            let inner = self.inner();
            if inner.is_over { inner.points.last().cloned() } else { None }
        }

        /// The crash points that it has passed.
        pub(crate) fn points(&self) -> Vec<Point> {
            self.inner().points.clone()
        }

        /// Whether it goes on.
        fn pass(&self, place: &str, what: &str) -> bool {
            let mut inner = self.inner();
            if !inner.begun || inner.is_over {
                return !inner.is_over;
            }
            let name = format!("{place}: {what}");
            let nth = inner.points.iter().filter(|point| point.name == name).count() + 1;
            let point = Point { name, nth };
            inner.is_over = self.ends_at.as_ref() == Some(&point);
            inner.points.push(point);
            if inner.is_over {
                self.ended.notify_one();
            }
            !inner.is_over
        }

        fn inner(&self) -> MutexGuard<'_, Inner> {
            self.inner.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
