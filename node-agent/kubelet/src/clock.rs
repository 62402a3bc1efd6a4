//! Where time and chance come from: arguments of the whole crate, so that tests decide both.

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Wall-clock time. Durations are waited for with `tokio::time`, which tests pause.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A source of chance, used for jitter and unique names only, never for secrets.
pub trait Chance: Send + Sync + 'static {
    /// A number in `0.0..1.0`.
    fn fraction(&self) -> f64;
    /// Any 64 bits.
    fn bits(&self) -> u64;
}

/// A seeded generator.
#[derive(Debug)]
pub struct SeededChance(Mutex<StdRng>);

impl SeededChance {
    /// Equal seeds give equal sequences.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Seeded by the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }
}

impl Chance for SeededChance {
    fn fraction(&self) -> f64 {
        self.0.lock().random::<f64>()
    }

    fn bits(&self) -> u64 {
        self.0.lock().random::<u64>()
    }
}
