//! A file system of a node's own: ext4 in a file, mounted through a loop device.

use super::sys::{run, shut_down_fs};
use super::watchdog::unmount;
use std::path::{Path, PathBuf};

/// Mounted while it lives.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    frozen: bool,
}

impl Disk {
    /// Makes and mounts it.
    pub fn new(image: &Path, mount: &Path, mib: u64) -> Result<Self, String> {
        let io = |e: std::io::Error| format!("{}: {e}", image.display());
        let file = std::fs::File::create(image).map_err(io)?;
        file.set_len(mib << 20).map_err(io)?;
        std::fs::create_dir_all(mount).map_err(io)?;
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", &image.to_string_lossy()],
        )?;
        let disk = Self {
            image: image.to_owned(),
            mount: mount.to_owned(),
            frozen: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        run("mount", &["-o", "loop", &image, &mount]).map(|_| ())
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.mount
    }

    /// What was not synced is gone, and nothing can be written until [`Disk::again`].
    pub fn power_cut(&self) -> Result<(), String> {
        shut_down_fs(&self.mount).map_err(|e| format!("shutting the file system down: {e}"))
    }

    /// Unmounts and mounts; nothing may use it.
    pub fn again(&self) -> Result<(), String> {
        if !unmount(&self.mount) {
            let mount = self.mount.display();
            return Err(format!(
                "{mount} is in use: does another run go on beside this one?"
            ));
        }
        self.mount()
    }

    /// Whoever writes hangs, and cannot even be killed, until [`Disk::thaw`].
    pub fn freeze(&mut self) -> Result<(), String> {
        run("fsfreeze", &["--freeze", &self.mount.to_string_lossy()])?;
        self.frozen = true;
        Ok(())
    }

    /// The end of [`Disk::freeze`].
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            let _ = run("fsfreeze", &["--unfreeze", &self.mount.to_string_lossy()]);
        }
    }

    /// Takes all space but so much, in a file that [`Disk::deflate`] removes.
    pub fn fill(&self, leave_mib: u64) -> Result<(), String> {
        let text = run(
            "df",
            &["--output=avail", "-m", &self.mount.to_string_lossy()],
        )?;
        let free: u64 = text
            .lines()
            .nth(1)
            .and_then(|l| l.trim().parse().ok())
            .ok_or("df says nothing")?;
        let size = format!("{}M", free.saturating_sub(leave_mib).max(1));
        let balloon = self.balloon();
        run("fallocate", &["-l", &size, &balloon.to_string_lossy()]).map(|_| ())
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn deflate(&self) {
        let _ = std::fs::remove_file(self.balloon());
    }

    fn balloon(&self) -> PathBuf {
        self.mount.join("balloon")
    }

    /// Major and minor number of the loop device, as `7:3`.
    pub fn device(&self) -> Result<String, String> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(&self.mount).map_err(|e| e.to_string())?;
        let dev = meta.dev();
        Ok(format!("{}:{}", libc::major(dev), libc::minor(dev)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        unmount(&self.mount);
    }
}
