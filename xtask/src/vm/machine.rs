//! One boot of one kernel.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::console::Console;
use super::kernel::Kernel;
use crate::run::Error;

const QEMU: &str = "qemu-system-x86_64";
/// Longer than the limits in init.sh together.
const DEADLINE: Duration = Duration::from_secs(45 * 60);

/// The emulator, which does not outlive this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the machine until it powers itself off; shows its console and keeps it in `RELEASE.log` of `folder`.
///
/// # Errors
/// When the emulator cannot be run. What went wrong inside is in `console`.
pub fn boot(kernel: &Kernel, initramfs: &Path, folder: &Path, console: &mut Console) -> Result<(), Error> {
    let path = folder.join(format!("{}.log", kernel.release));
    let failed = |source| Error::File { operation: "write", path: path.clone(), source };
    let mut log = File::create(&path).map_err(failed)?;
    let mut command = Command::new(QEMU);
    // One thread for both CPUs: with more, one of them may go on executing what the kernel has patched meanwhile (static
    // keys, as programs are attached amid traffic), and the kernel stops at that. It takes no longer.
    command
        .args(["-accel", "tcg,thread=single", "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start { program: QEMU.to_owned(), source })?;
    let output = child.stdout.take();
    let machine = Machine(child);

    println!("booting {}", kernel.release);
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let Some(output) = output else { return };
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    // Until it powers itself off, crashes or hangs; the console tells them apart.
    while let Ok(line) = lines.recv_timeout(DEADLINE.saturating_sub(started.elapsed())) {
        writeln!(log, "{line}").map_err(failed)?;
        if console.add_line(&line) {
            println!("{line}");
        }
    }
    drop(machine);
    // Ends with the pipe, which the emulator has closed.
    let _ = reader.join();
    Ok(())
}
