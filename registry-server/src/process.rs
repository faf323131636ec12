//! Prometheus's usual metrics of a process, as far as Linux tells them in `/proc`; elsewhere there are none.

/// The metrics, in Prometheus's text format.
#[cfg(target_os = "linux")]
pub(crate) fn render() -> String {
    linux::render().unwrap_or_default()
}

/// The metrics, in Prometheus's text format.
#[cfg(not(target_os = "linux"))]
pub(crate) fn render() -> String {
    String::new()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt::Write;
    use std::fs;

    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};

    /// What the fields of `/proc/self/stat` are, counted from the one after the command's name (proc(5): `state`, the third).
    const USER_TICKS: usize = 11;
    const SYSTEM_TICKS: usize = 12;
    const THREADS: usize = 17;
    const STARTED_TICKS: usize = 19;
    const VIRTUAL_BYTES: usize = 20;
    const RESIDENT_PAGES: usize = 21;

    pub(super) fn render() -> Option<String> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the command is in parentheses, and may have some itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number)?.parse::<f64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        let booted = fs::read_to_string("/proc/stat").ok();
        let booted = booted.as_deref().and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("btime ")));
        let started = booted.and_then(|seconds| Some(seconds.parse::<f64>().ok()? + field(STARTED_TICKS)? / ticks));
        let cpu = field(USER_TICKS).and_then(|user| Some((user + field(SYSTEM_TICKS)?) / ticks));
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        let most = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
        let mut text = String::new();
        for (name, kind, help, value) in [
            ("cpu_seconds_total", "counter", "User and system processor time, in seconds", cpu),
            (
                "resident_memory_bytes",
                "gauge",
                "Resident memory, in bytes",
                field(RESIDENT_PAGES).map(|pages| pages * page_size() as f64),
            ),
            ("virtual_memory_bytes", "gauge", "Virtual memory, in bytes", field(VIRTUAL_BYTES)),
            ("start_time_seconds", "gauge", "When the process was started, in seconds since 1970 (UTC)", started),
            ("open_fds", "gauge", "Open files", open),
            ("max_fds", "gauge", "The most files that the process may have open", most),
            ("threads", "gauge", "Threads", field(THREADS)),
        ] {
            if let Some(value) = value {
                // A string takes all that is written to it.
                let _ = writeln!(
                    text,
                    "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
                );
            }
        }
        Some(text)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn what_the_process_is_can_be_read_from_its_metrics() {
        let text = super::render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - 3600.0..=now + 2.0).contains(&value("start_time_seconds")), "{text}");
        assert!(value("resident_memory_bytes") > 1e6 && value("virtual_memory_bytes") > value("resident_memory_bytes"));
        assert!(value("open_fds") >= 3.0 && value("max_fds") >= value("open_fds"));
        assert!(value("threads") >= 1.0 && value("cpu_seconds_total") >= 0.0);
    }
}
