//! What a result must be read with: the machine and the build.

use serde::Serialize;

/// The machine and the build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's name, as the kernel has it.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// The version of Weir.
    pub weir: &'static str,
    /// How this program was built.
    pub profile: &'static str,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            cpu: cpu_model(&cpuinfo).unwrap_or("unknown CPU").to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            weir: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) {
                "dev"
            } else {
                "release"
            },
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{} cores, {}, Linux {}, weir {}, {} build",
            self.cores, self.cpu, self.kernel, self.weir, self.profile
        )
    }

    /// What is wrong with numbers from this build, if something is.
    pub fn warning(&self) -> Option<&'static str> {
        (self.profile != "release").then_some(
            "this is no release build and its numbers mean nothing: cargo build --release -p weir-bench",
        )
    }
}

/// The first processor's name in `/proc/cpuinfo`.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let names = ["model name", "Model", "cpu model", "Processor"];
    names.iter().find_map(|name| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == *name).then(|| value.trim())
        })
    })
}

/// Cycles of the time-stamp counter in a nanosecond, as the kernel found them.
pub fn cycles_per_ns() -> f64 {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mhz = |line: &str| {
        line.strip_prefix("cpu MHz")?
            .rsplit(':')
            .next()?
            .trim()
            .parse()
            .ok()
    };
    cpuinfo
        .lines()
        .find_map(mhz)
        .map_or(1.0, |mhz: f64| mhz / 1e3)
}

#[cfg(test)]
mod tests {
    use super::cpu_model;

    #[test]
    fn the_cpu_is_named_as_the_kernel_names_it() {
        let text = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.7GHz\n\
                    processor\t: 1\nmodel name\t: Other\n";
        assert_eq!(cpu_model(text), Some("Some CPU @ 2.7GHz"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }
}
