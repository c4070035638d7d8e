//! A new migration file must rebuild the embedded set.
fn main() {
    println!("cargo:rerun-if-changed=.");
}
