//! Clock and chance, from outside, so that tests repeat.

use std::io::Read;
use std::time::{Duration, SystemTime};

/// Where times, UIDs and generated names come from.
pub trait Source {
    /// Now.
    fn now(&mut self) -> SystemTime;
    /// 128 bits that have not been given before.
    fn random(&mut self) -> u128;
}

/// The machine's clock and its random device.
#[derive(Debug)]
pub struct System {
    device: std::fs::File,
}

impl System {
    /// Opens `/dev/urandom`.
    pub fn open() -> std::io::Result<System> {
        let device = std::fs::File::open("/dev/urandom")?;
        Ok(System { device })
    }
}

impl Source for System {
    fn now(&mut self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&mut self) -> u128 {
        let mut bytes = [0; 16];
        match self.device.read_exact(&mut bytes) {
            Ok(()) => u128::from_ne_bytes(bytes),
            // The device cannot fail once it is open (random(4)); were it to, the clock still
            // gives what was not given before.
            Err(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_nanos()),
        }
    }
}

/// The same times and numbers in every run: for tests and offline use.
#[derive(Clone, Debug)]
pub struct Seeded {
    state: u64,
    /// What [`Source::now`] gives.
    pub now: SystemTime,
}

impl Seeded {
    /// Numbers that follow from `seed`; the clock stands at 2025-01-01 00:00:00 UTC.
    pub fn new(seed: u64) -> Seeded {
        Seeded {
            state: seed,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600),
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Source for Seeded {
    fn now(&mut self) -> SystemTime {
        self.now
    }

    fn random(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}
