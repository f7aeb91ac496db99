//! A process that is tailscaled to whoever asks the kernel who listens on the LocalAPI socket. It answers there, and
//! does on request what tailscaled does under load. Its threads stay, as Go's do. A second argument names a file with
//! what it says on `/status`; without one it has one peer.
//!
//! A line on stdin is a request, a line on stdout says that it was done:
//!
//! ```text
//! burn THREADS MICROSECONDS    keeps so many threads busy for so long
//! hold BYTES                   takes memory, and keeps it to the end
//! ```

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tailgauge_testbed::scripted::{Script, Scripted, peer, status};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until the end of stdin.
fn serve() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let socket = arguments.next().ok_or("usage: standin SOCKET [FILE]")?;
    let document = arguments.next().map_or_else(|| Ok(status(&[peer(2)])), std::fs::read)?;
    let _api = Scripted::start(socket.as_ref(), Script::Status(document))?;
    let (done, finished) = mpsc::channel();
    let mut workers: Vec<Sender<Instant>> = Vec::new();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    say("serving")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["burn", threads, microseconds] => {
                let threads = threads.parse()?;
                while workers.len() < threads {
                    let ((worker, requests), done) = (mpsc::channel(), done.clone());
                    thread::Builder::new().spawn(move || work(&requests, &done))?;
                    workers.push(worker);
                }
                let until = Instant::now() + Duration::from_micros(microseconds.parse()?);
                for worker in &workers[..threads] {
                    worker.send(until)?;
                }
                for _ in 0..threads {
                    finished.recv()?;
                }
            }
            // Not zeroes, which the kernel need not give memory for.
            ["hold", bytes] => kept.push(vec![1; bytes.parse()?]),
            _ => return Err(format!("no such request: {line:?}").into()),
        }
        say("done")?;
    }
    Ok(())
}

/// Is busy until each of the moments that come, and says so.
fn work(requests: &Receiver<Instant>, done: &Sender<()>) {
    for until in requests {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

fn say(word: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{word}")?;
    stdout.flush()
}
