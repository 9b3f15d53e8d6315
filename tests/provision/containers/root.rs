//! The disk that every container starts from: a Debian 12 with systemd, sshd and Python, made once and kept under target/.
//!
//! Containers have no way out. What the roles install comes from a package repository on the disk itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// There from the beginning, as on a host that an administrator has just been given.
const INSTALLED: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "libnss-systemd",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "procps",
    // PHP needs it, and procps recommends it: apt would keep it when PHP goes.
    "psmisc",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ca-certificates",
    "curl",
];

/// In the repository, with all that they need.
const AVAILABLE: &[&str] = &["apache2", "libapache2-mod-php", "chrony", "nftables"];

/// Run with the disk as its argument, after the packages are there.
const COMPLETE: &str = r#"set -e
apt-get clean
apt-get install -qq --no-install-recommends --download-only AVAILABLE
mkdir -p /srv/repository
mv /var/cache/apt/archives/*.deb /srv/repository
# Each machine gets its own.
rm -f /etc/machine-id /etc/hostname /etc/resolv.conf
: >/etc/fstab
# Nothing is to wake up while a test measures.
systemctl mask -q apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
useradd --create-home --shell /bin/bash admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
"#;

const REPOSITORY: &str = r#"set -e
(cd "$1/srv/repository" && dpkg-scanpackages --multiversion . 2>/dev/null >Packages)
rm -rf "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/repository ./' >"$1/etc/apt/sources.list"
chroot "$1" apt-get update -qq
"#;

/// Where it is; makes it if it is not there, which takes a minute or two.
pub(super) fn debian() -> PathBuf {
    let complete = COMPLETE.replace("AVAILABLE", &AVAILABLE.join(" "));
    let digest = Sha256::digest([&INSTALLED.join(" "), complete.as_str(), REPOSITORY].join("\0"));
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = place.join(format!("debian-12-{digest}"));
    // Of several tests that begin at once, one makes it.
    let lock = File::create(place.join("debian-12.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    if !root.exists() {
        eprintln!("making the containers' disk, a Debian 12 in {}", root.display());
        let unfinished = place.join("debian-12-unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        make(&unfinished, &complete);
        std::fs::rename(&unfinished, &root).unwrap();
    }
    root
}

fn make(root: &Path, complete: &str) {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--mode=root", "--variant=minbase"]);
    mmdebstrap.arg(format!("--include={}", INSTALLED.join(",")));
    mmdebstrap.arg(format!("--customize-hook=chroot \"$1\" sh -c '{}'", complete.replace('\'', r"'\''")));
    super::succeed(mmdebstrap.arg("bookworm").arg(root));
    super::succeed(Command::new("sh").args(["-c", REPOSITORY, "sh"]).arg(root));
}
