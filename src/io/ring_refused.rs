//! The kernel refused a ring: which of the usual reasons it was, and what to change.

use std::fmt;
use std::fs;
use std::io;

/// The process ends with this status when it cannot have a ring (`EX_UNAVAILABLE`).
pub const EXIT_CODE: u8 = 69;

/// What is needed at least; what `uname -r` says is named beside it.
const KERNEL_NEEDED: &str = "6.1";

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Setup,
    Probe,
    Buffers,
}

/// Why there is no ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingRefused {
    /// `kernel.io_uring_disabled` is 1 (privileged processes only) or 2 (nobody).
    Disabled {
        sysctl: u8,
    },
    /// A seccomp filter, as container runtimes install it, answers for the kernel.
    Seccomp,
    /// `RLIMIT_MEMLOCK` is too small (kernels before 5.12 count rings against it; registered buffers always do).
    LockedMemory {
        limit: String,
    },
    /// Features that we need are missing.
    KernelTooOld {
        release: String,
    },
    /// Too many open files, in this process or in all.
    Descriptors,
    Other {
        step: Step,
        errno: i32,
    },
}

impl RingRefused {
    pub fn diagnose(step: Step, error: &io::Error) -> RingRefused {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let surroundings = Surroundings {
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled"),
            status: read("/proc/self/status"),
            limits: read("/proc/self/limits"),
            release: read("/proc/sys/kernel/osrelease"),
        };
        surroundings.judge(step, error.raw_os_error().unwrap_or(0))
    }

    pub fn too_old() -> RingRefused {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        RingRefused::KernelTooOld { release: release.trim().to_owned() }
    }
}

/// What Linux says about itself and us, as text.
struct Surroundings {
    io_uring_disabled: String,
    status: String,
    limits: String,
    release: String,
}

impl Surroundings {
    fn judge(&self, step: Step, errno: i32) -> RingRefused {
        let release = self.release.trim().to_owned();
        match errno {
            libc::EPERM | libc::EACCES => match self.io_uring_disabled.trim().parse() {
                Ok(sysctl @ 1..) => RingRefused::Disabled { sysctl },
                // Without a filter only a security module is left to say no; the advice is the same.
                _ => RingRefused::Seccomp,
            },
            // Some filters answer ENOSYS, as a kernel without io_uring does.
            libc::ENOSYS if self.filtered() && kernel_of(&release) >= (6, 1) => RingRefused::Seccomp,
            libc::ENOSYS | libc::EINVAL => RingRefused::KernelTooOld { release },
            libc::ENOMEM => RingRefused::LockedMemory { limit: self.locked_memory() },
            libc::EMFILE | libc::ENFILE => RingRefused::Descriptors,
            errno => RingRefused::Other { step, errno },
        }
    }

    fn filtered(&self) -> bool {
        self.status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    }

    /// The soft limit, as `/proc/self/limits` prints it.
    fn locked_memory(&self) -> String {
        let line = self.limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        line.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown").to_owned()
    }
}

/// `6.18.4-generic` → (6, 18); (0, 0) if it looks different.
fn kernel_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl fmt::Display for RingRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingRefused::Disabled { sysctl } => write!(
                f,
                "io_uring is switched off on this machine: the sysctl kernel.io_uring_disabled is {sysctl}. \
                 Set it to 0: sysctl -w kernel.io_uring_disabled=0 (and in /etc/sysctl.d/, to keep it)"
            ),
            RingRefused::Seccomp => write!(
                f,
                "io_uring is refused although the kernel has it: the seccomp profile of this container does not allow it. \
                 Allow io_uring_setup, io_uring_enter and io_uring_register in the profile \
                 (Docker: --security-opt seccomp=<profile>; Kubernetes: securityContext.seccompProfile)"
            ),
            RingRefused::LockedMemory { limit } => write!(
                f,
                "io_uring may not lock the memory that it needs: RLIMIT_MEMLOCK is {limit} bytes. Raise it to at least \
                 8 MiB per server (LimitMEMLOCK=8M in a systemd unit, memlock in /etc/security/limits.conf, \
                 docker run --ulimit memlock=-1)"
            ),
            RingRefused::KernelTooOld { release } => write!(
                f,
                "this kernel ({release}) lacks parts of io_uring that are needed: run Linux {KERNEL_NEEDED} or newer"
            ),
            RingRefused::Descriptors => write!(
                f,
                "no file descriptor is left for io_uring: raise RLIMIT_NOFILE (LimitNOFILE= in a systemd unit) or fs.file-max"
            ),
            RingRefused::Other { step, errno } => {
                let step = match step {
                    Step::Setup => "set-up",
                    Step::Probe => "probe",
                    Step::Buffers => "registration of buffers",
                };
                write!(f, "io_uring {step} failed: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for RingRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(sysctl: &str, seccomp: &str, release: &str) -> Surroundings {
        Surroundings {
            io_uring_disabled: sysctl.to_owned(),
            status: format!("Name:\toxkeeper\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n"),
            limits: "Max locked memory         65536                65536                bytes     \n".to_owned(),
            release: release.to_owned(),
        }
    }

    #[test]
    fn each_reason_is_told_from_the_others() {
        let check = |sysctl, seccomp, release, errno, expected| {
            assert_eq!(surroundings(sysctl, seccomp, release).judge(Step::Setup, errno), expected);
        };
        check("2\n", "0", "6.8.0", libc::EPERM, RingRefused::Disabled { sysctl: 2 });
        check("1\n", "2", "6.8.0", libc::EPERM, RingRefused::Disabled { sysctl: 1 });
        check("0\n", "2", "6.8.0", libc::EPERM, RingRefused::Seccomp);
        check("", "2", "6.1.0-18-amd64", libc::ENOSYS, RingRefused::Seccomp);
        check("", "0", "4.19.0\n", libc::ENOSYS, RingRefused::KernelTooOld { release: "4.19.0".to_owned() });
        check("", "0", "5.15.0", libc::EINVAL, RingRefused::KernelTooOld { release: "5.15.0".to_owned() });
        check("0", "0", "6.8.0", libc::ENOMEM, RingRefused::LockedMemory { limit: "65536".to_owned() });
        check("0", "0", "6.8.0", libc::EMFILE, RingRefused::Descriptors);
        check("0", "0", "6.8.0", libc::EFAULT, RingRefused::Other { step: Step::Setup, errno: libc::EFAULT });
    }

    #[test]
    fn each_reason_names_what_to_change() {
        for (refused, words) in [
            (RingRefused::Disabled { sysctl: 2 }, "sysctl -w kernel.io_uring_disabled=0"),
            (RingRefused::Seccomp, "seccomp"),
            (RingRefused::LockedMemory { limit: "65536".to_owned() }, "LimitMEMLOCK"),
            (RingRefused::KernelTooOld { release: "5.10".to_owned() }, "Linux 6.1"),
        ] {
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }
}
