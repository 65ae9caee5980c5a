//! Small calls into the operating system.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program; its error output when it fails.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    run_with(program, args, "")
}

/// Runs a program with this on its standard input.
pub fn run_with(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    use std::io::Write;
    let what = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", what()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child
        .wait_with_output()
        .map_err(|e| format!("{}: {e}", what()))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        Err(format!("{}: {}", what(), said.trim()))
    }
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let found = |dir: std::path::PathBuf| dir.join(program).is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(found)
        || ["/usr/sbin", "/sbin"]
            .iter()
            .any(|d| found(Path::new(d).to_owned()))
}

/// Whether this is the superuser.
pub fn root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The monotonic clock.
pub fn monotonic_ns() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Sends a signal to a process.
pub fn signal(pid: u32, number: i32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        if pid > 1 {
            // SAFETY: plain system call without pointers.
            unsafe { libc::kill(pid, number) };
        }
    }
}

/// Moves this thread, and what it starts from now on, into a network namespace.
pub fn enter(space: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call.
    match unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The calling process gets SIGKILL when the thread that started it ends.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: plain system call without pointers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The calling process takes the content of a file for the machine's boot id, in a mount namespace
/// of its own that does not keep the file systems in `leave`. No allocation.
pub fn other_boot_id(file: &CStr, leave: &[CString]) -> io::Result<()> {
    let check = |done: libc::c_int| match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let id = c"/proc/sys/kernel/random/boot_id".as_ptr();
    let none = std::ptr::null();
    // SAFETY: all strings end with NUL and live through the calls.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let slave = libc::MS_REC | libc::MS_SLAVE;
        check(libc::mount(
            none,
            c"/".as_ptr(),
            none,
            slave,
            std::ptr::null(),
        ))?;
        for mount in leave {
            libc::umount2(mount.as_ptr(), libc::MNT_DETACH);
        }
        check(libc::mount(
            file.as_ptr(),
            id,
            none,
            libc::MS_BIND,
            std::ptr::null(),
        ))
    }
}

/// Turns a mounted file system off without writing anything more, as a power cut would.
pub fn shut_down_fs(mount: &Path) -> io::Result<()> {
    /// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
    const SHUTDOWN: u64 = 0x8004_587D;
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
    const NO_LOG_FLUSH: u32 = 2;
    let dir = File::open(mount)?;
    let flags = NO_LOG_FLUSH;
    // SAFETY: the kernel reads one u32 from the pointer, which lives through the call.
    match unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN as _, &flags as *const u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
