//! What a reader must know of the machine that figures come from.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The machine, in sentences.
pub(crate) fn facts(folder: &Path) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism()?;
    let processor = processor().map(|name| format!(" ({name})")).unwrap_or_default();
    let load = load().map(|load| format!("; load average {load} before the run")).unwrap_or_default();
    Ok(vec![
        format!("{cores} cores{processor}, {}{load}", system()),
        format!("writing 4 KiB and fsync: {:.0} µs", fsync(folder)?.as_secs_f64() * 1e6),
    ])
}

fn processor() -> Option<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system() -> String {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => format!("Linux {}", release.split('-').next().unwrap_or_default().trim()),
        Err(_) => std::env::consts::OS.to_owned(),
    }
}

/// How many processes wanted to run in the last minute, on average: on an idle machine, about none.
fn load() -> Option<String> {
    Some(fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.to_owned())
}

/// How long a small write takes until it is on the disk: the floor for a durable commit.
fn fsync(folder: &Path) -> Result<Duration> {
    let mut file = File::create(folder.join("fsync"))?;
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < Duration::from_millis(300) {
        let written = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(written.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// The most memory that a process had in RAM so far, in MB, where the system tells (Linux).
pub(crate) fn peak_memory_of(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0 / 1e6)
}

/// The memory of a process that is in RAM, in MB.
pub(crate) fn memory_of(process: u32) -> Result<f64> {
    let kilobytes = match fs::read_to_string(format!("/proc/{process}/status")) {
        Ok(status) => {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.context("the process has no memory any more")?.trim_end_matches("kB").trim().to_owned()
        }
        Err(_) => {
            let output = Command::new("ps").args(["-o", "rss=", "-p", &process.to_string()]).output()?;
            ensure!(output.status.success(), "ps does not know process {process}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
    };
    Ok(kilobytes.parse::<f64>().with_context(|| format!("memory of {kilobytes} kB"))? * 1024.0 / 1e6)
}

/// The processor time that a process has used so far, of all its threads, where the system tells (Linux).
pub(crate) fn processor_time_of(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the program's name, which may contain anything, in parentheses; counted from the third field (proc(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    // In hundredths of a second (USER_HZ), whatever the kernel's own clock does.
    Some(Duration::from_millis((user + system) * 10))
}
