//! Futures that wait while the program is patched.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Ready when it is asked for the second time.
struct Step {
    value: u64,
    asked: bool,
}

impl Future for Step {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<u64> {
        if self.asked {
            return Poll::Ready(self.value);
        }
        self.asked = true;
        Poll::Pending
    }
}

fn step(value: u64) -> Step {
    Step { value, asked: false }
}

async fn walk(start: u64) -> u64 {
    let first = step(start).await;
    let second = first + 1;
    second * 10
}

async fn rounds(log: &'static std::sync::Mutex<String>) -> u64 {
    log.lock().unwrap().push('<');
    step(1).await;
    log.lock().unwrap().push('-');
    step(2).await;
    log.lock().unwrap().push('>');
    3
}

static LOG: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

pub struct Waiting(Vec<Pin<Box<dyn Future<Output = u64>>>>);

pub fn begin() -> Waiting {
    let block = async {
        let found = step(5).await;
        found + 2
    };
    let closure = async |more: u64| step(20).await + more;
    Waiting(vec![
        Box::pin(walk(3)),
        Box::pin(rounds(&LOG)),
        Box::pin(block),
        Box::pin(async move { closure(4).await }),
    ])
}

/// Asks each of them once, and begins anew when all are done.
pub fn turn(waiting: &mut Waiting) -> String {
    let mut context = Context::from_waker(Waker::noop());
    let mut said = Vec::new();
    waiting.0.retain_mut(|future| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => {
            said.push(value.to_string());
            false
        }
        Poll::Pending => {
            said.push(String::from("."));
            true
        }
    });
    if waiting.0.is_empty() {
        *waiting = begin();
    }
    format!("{} {}", said.join(" "), LOG.lock().unwrap())
}
