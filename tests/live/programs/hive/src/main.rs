//! prefork.c in Rust: what answers is behind a trait, and panics.
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::process::{exit, id, Command};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

extern "C" {
    fn fork() -> i32;
    fn signal(number: i32, handler: usize) -> usize;
}

const SIGCHLD: i32 = 17;
const IGNORED: usize = 1;

trait Rule: Sync {
    fn apply(&self, x: i32) -> i32;
}

struct More;

impl Rule for More {
    fn apply(&self, x: i32) -> i32 {
        if x < 0 {
            std::panic::panic_any(format!("too few: {x}"));
        }
        x + 1
    }
}

static RULE: &dyn Rule = &More;
static ANSWERED: AtomicI32 = AtomicI32::new(0);
static FIRST: AtomicI32 = AtomicI32::new(0);

fn answer(x: i32) -> i32 {
    catch_unwind(|| RULE.apply(x)).unwrap_or(-1)
}

fn listen_as(folder: &str, name: &str) -> UnixListener {
    let path = format!("{folder}/{name}");
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(path).unwrap_or_else(|_| exit(3))
}

fn work(folder: &str) -> ! {
    serve(folder, &listen_as(folder, &id().to_string()), false)
}

fn start_worker(folder: &str) {
    if unsafe { fork() } == 0 {
        work(folder);
    }
}

fn start_by_exec(folder: &str) {
    if unsafe { fork() } == 0 {
        let _ = Command::new("/proc/self/exe").args([folder, "worker"]).exec();
        exit(4);
    }
}

fn serve(folder: &str, listener: &UnixListener, is_master: bool) -> ! {
    loop {
        let Ok((mut peer, _)) = listener.accept() else { continue };
        let mut content = [0; 64];
        let length = peer.read(&mut content).unwrap_or(0);
        if length > 0 {
            let line = String::from_utf8_lossy(&content[..length]).to_string();
            match line.as_str() {
                "fork" if is_master => start_worker(folder),
                "exec" if is_master => start_by_exec(folder),
                _ => _ = ANSWERED.fetch_add(1, Relaxed),
            }
            let said = if line == "first" { FIRST.load(Relaxed) } else { answer(line.parse().unwrap_or(0)) };
            let _ = write!(peer, "{said} {}", ANSWERED.load(Relaxed));
        }
        let _ = peer.shutdown(Shutdown::Both);
    }
}

fn main() {
    FIRST.store(answer(0), Relaxed);
    std::panic::set_hook(Box::new(|_| ()));
    let words: Vec<String> = std::env::args().collect();
    let folder = &words[1];
    if words[2] == "worker" {
        work(folder);
    }
    unsafe { signal(SIGCHLD, IGNORED) };
    for _ in 0..words[2].parse().unwrap() {
        start_worker(folder);
    }
    serve(folder, &listen_as(folder, "master"), true)
}
