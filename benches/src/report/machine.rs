//! What it ran on.

use std::fs;

/// Processors and memory, as far as the system says.
pub(crate) fn describe() -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
    let mut about = vec![
        ("system".to_owned(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("cores".to_owned(), cores),
    ];
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    about.extend(line("/proc/cpuinfo", "model name").map(|model| ("processor".to_owned(), model)));
    about.extend(line("/proc/meminfo", "MemTotal").map(|memory| ("memory".to_owned(), memory)));
    about
}
