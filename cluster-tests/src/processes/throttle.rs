//! A slow disk: limits of the kernel's first control groups on a node's loop device.

use super::sys::run;
use std::path::PathBuf;
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup/blkio";

/// Slow while it lives.
#[derive(Debug)]
pub struct Throttle {
    group: PathBuf,
    pid: u32,
}

/// Why it cannot be had here.
pub fn impossible() -> Option<String> {
    let file = PathBuf::from(ROOT).join("blkio.throttle.write_bps_device");
    let here = file.exists() || PathBuf::from(ROOT).join("cgroup.procs").exists();
    (!here).then(|| "there is no blkio control group".into())
}

impl Throttle {
    /// Limits what a process writes to a device, as `7:3`, to these bytes and operations a second.
    pub fn new(name: &str, device: &str, pid: u32, bytes: u64, ops: u64) -> Result<Self, String> {
        let group = PathBuf::from(ROOT).join(name);
        let io = |e: std::io::Error| format!("{}: {e}", group.display());
        std::fs::create_dir_all(&group).map_err(io)?;
        let put = |file: &str, text: String| std::fs::write(group.join(file), text).map_err(io);
        put(
            "blkio.throttle.write_bps_device",
            format!("{device} {bytes}"),
        )?;
        put(
            "blkio.throttle.write_iops_device",
            format!("{device} {ops}"),
        )?;
        put("cgroup.procs", pid.to_string())?;
        Ok(Self { group, pid })
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let _ = std::fs::write(
            PathBuf::from(ROOT).join("cgroup.procs"),
            self.pid.to_string(),
        );
        for _ in 0..50 {
            if std::fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes groups that a killed run left behind.
pub fn remove_groups(prefix: &str) {
    let Ok(entries) = std::fs::read_dir(ROOT) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = run("rmdir", &[&entry.path().to_string_lossy()]);
        }
    }
}
