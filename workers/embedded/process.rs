//! The system calls std has no safe wrapper for. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::process::Command;

/// What we tell a server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// "Fast" shutdown: end sessions, write a checkpoint, exit.
    Interrupt,
    /// "Immediate" shutdown: exit now, recover at the next start.
    Quit,
    /// Not catchable: for children that are not servers.
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Quit => libc::SIGQUIT,
            Self::Kill => libc::SIGKILL,
        }
    }
}

/// A user of this system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user this process acts as.
pub(crate) fn effective_account() -> Account {
    // SAFETY: neither call has preconditions, and neither can fail.
    unsafe { Account { uid: libc::geteuid(), gid: libc::getegid() } }
}

/// Looks a user up by name.
pub(crate) fn account(name: &CStr) -> Option<Account> {
    // Room for the entry's strings; the reentrant call fails with ERANGE rather than overrun it.
    let mut strings = [0; 16 * 1024];
    // SAFETY: an all-zero `passwd` is valid (null pointers and zero ids); it is only read after
    // the call says that it filled it in.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live local of the stated size, and `name` ends in NUL.
    let status =
        unsafe { libc::getpwnam_r(name.as_ptr(), &mut entry, strings.as_mut_ptr(), strings.len(), &mut found) };
    (status == 0 && !found.is_null()).then_some(Account { uid: entry.pw_uid, gid: entry.pw_gid })
}

/// Sends a signal. The caller makes sure that `pid` is the process it means.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    kill(pid, signal.number())
}

/// Whether a process with this id exists, be it a zombie or somebody else's.
pub(crate) fn exists(pid: u32) -> bool {
    match kill(pid, 0) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // Zero and negative ids address process groups, which is never meant here.
    let pid = libc::pid_t::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: takes integers only.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives a folder to a user. A symbolic link is changed itself, never followed.
pub(crate) fn give(path: &std::path::Path, to: Account) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a live string that ends in NUL.
    if unsafe { libc::lchown(path.as_ptr(), to.uid, to.gid) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel send `signal` to the child when the *thread* that spawns it ends, so that a
/// killed parent leaves no server behind. Linux only; elsewhere an orphan is stopped by the next
/// start.
pub(crate) fn die_with_parent(command: &mut Command, signal: Signal) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let parent = std::process::id();
        let request = move || {
            // SAFETY: takes integers only.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number()) } == -1 {
                return Err(io::Error::last_os_error());
            }
            // A parent that died before the line above will never cause a signal.
            // SAFETY: no preconditions.
            if unsafe { libc::getppid() }.cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure makes
        // two plain system calls and allocates nothing. std runs it after it changed uid and gid,
        // which matters because a change of credentials clears the request.
        unsafe { command.pre_exec(request) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (command, signal);
}
