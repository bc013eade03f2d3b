//! Where the processors' time goes: this process, the server, others, nothing. From `/proc`, so on Linux only.

use std::collections::BTreeMap;
use std::fs;

/// Seconds of processor time so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    pub(crate) client: f64,
    pub(crate) server: f64,
    /// Of the server, by process: those that live.
    pub(crate) sessions: BTreeMap<u32, f64>,
    pub(crate) busy: f64,
    pub(crate) idle: f64,
}

/// What the kernel counts in for everybody, whatever its own clock.
const TICKS_PER_S: f64 = 100.0;

impl Cpu {
    /// `None` where there is no `/proc`.
    pub(crate) fn now(server: u32) -> Option<Self> {
        let all = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<f64> = all.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        let [user, nice, system, idle, waiting, interrupts, soft, stolen, ..] = ticks[..] else { return None };
        let (server, sessions) = family(server)?;
        Some(Self {
            client: process(std::process::id())?.own,
            server,
            sessions,
            busy: (user + nice + system + interrupts + soft + stolen) / TICKS_PER_S,
            idle: (idle + waiting) / TICKS_PER_S,
        })
    }

    /// What went by since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |pid: &u32| before.sessions.get(pid).copied().unwrap_or_default();
        Self {
            sessions: self.sessions.iter().map(|(pid, seconds)| (*pid, seconds - earlier(pid))).collect(),
            client: self.client - before.client,
            server: self.server - before.server,
            busy: self.busy - before.busy,
            idle: self.idle - before.idle,
        }
    }
}

struct Process {
    parent: u32,
    own: f64,
    /// Of its children that have ended.
    ended: f64,
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS_PER_S,
        ended: (ticks(13)? + ticks(14)?) / TICKS_PER_S,
    })
}

/// The server with its sessions, also those that have ended; and each that lives.
fn family(server: u32) -> Option<(f64, BTreeMap<u32, f64>)> {
    let parent = process(server)?;
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let processes = pids.filter_map(|pid| Some((pid, process(pid)?)));
    let children: BTreeMap<u32, f64> =
        processes.filter(|(_, process)| process.parent == server).map(|(pid, process)| (pid, process.own)).collect();
    Some((parent.own + parent.ended + children.values().sum::<f64>(), children))
}
