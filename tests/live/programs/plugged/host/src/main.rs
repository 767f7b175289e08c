//! Loads a library and asks it each line of its input.

use std::ffi::{CStr, CString, c_char, c_void};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: i32) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

type Plugged = extern "C" fn(u64) -> *const c_char;

fn load(path: &str) -> Plugged {
    let path = CString::new(path).unwrap();
    unsafe {
        let library = dlopen(path.as_ptr(), 2);
        assert!(!library.is_null());
        std::mem::transmute::<*mut c_void, Plugged>(dlsym(library, c"plugged".as_ptr()))
    }
}

fn answer(plugged: Plugged, number: u64) -> String {
    let said = unsafe { CStr::from_ptr(plugged(number)) };
    format!("{} {}", said.to_str().unwrap(), shared::weighed(number))
}

fn main() {
    let plugged = load(&std::env::args().nth(1).unwrap());
    for line in std::io::stdin().lines() {
        println!("{}", answer(plugged, line.unwrap().parse().unwrap()));
    }
}
