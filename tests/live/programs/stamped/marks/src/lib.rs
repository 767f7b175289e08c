//! A macro that writes a function.

use proc_macro::TokenStream;

#[proc_macro]
pub fn stamp(_input: TokenStream) -> TokenStream {
    "fn stamp() -> u64 { 41 }".parse().unwrap()
}
