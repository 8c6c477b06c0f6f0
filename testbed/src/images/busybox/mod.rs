//! Programs of busybox whose options and words Debian's do not have: written anew, from what
//! busybox prints.

mod carry;
pub mod nc;
pub mod nslookup;
mod progress;
pub mod sh;
pub mod wget;
mod wget_words;
