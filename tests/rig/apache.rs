//! Debian's apache2 with its PHP, in a directory of its own; its workers are nobody's.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};
use relevo::lab::directory::Directory;
use relevo::lab::node::send;

use super::place::free_port;
use super::wait_until;

const MODULES: &str = "/usr/lib/apache2/modules";

/// apache2 on the loopback; its processes and files go away with the value.
pub(crate) struct Apache {
    pub(crate) address: SocketAddr,
    directory: Directory,
    process: Child,
}

impl Apache {
    /// Serves these files, by name; those that end in `.php` are run.
    #[track_caller]
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Self {
        let (address, directory) = (free_port(), Directory::new().unwrap());
        let path = directory.path();
        for (name, mode) in [("", 0o755), ("htdocs", 0o755), ("sessions", 0o777)] {
            std::fs::create_dir_all(path.join(name)).unwrap();
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, content) in files {
            std::fs::write(path.join("htdocs").join(name), content).unwrap();
        }
        let file = path.join("apache2.conf");
        std::fs::write(&file, configuration(path, address)).unwrap();

        let mut command = Command::new("/usr/sbin/apache2");
        command.arg("-DFOREGROUND").arg("-d").arg(path).arg("-f").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It ends its whole group, in which the test is not to be.
        command.process_group(0);
        let process = command.spawn().expect("apache2 has to be installed: tests/run does that");
        let apache = Self { address, directory, process };
        wait_until("apache2 listens", || TcpStream::connect(address).is_ok(), || apache.errors());
        apache
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

/// Its first process alone knows how to end the others.
impl Drop for Apache {
    fn drop(&mut self) {
        let _ = send(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn configuration(directory: &Path, address: SocketAddr) -> String {
    let (directory, php) = (directory.display(), php().display().to_string());
    let unprivileged = match geteuid().is_root() {
        true => "User nobody\nGroup nogroup\n",
        false => "",
    };
    format!(
        r#"ServerName localhost
Listen {address}
DefaultRuntimeDir "{directory}"
PidFile "{directory}/apache2.pid"
ErrorLog "{directory}/error.log"
LoadModule mpm_prefork_module {MODULES}/mod_mpm_prefork.so
LoadModule authz_core_module {MODULES}/mod_authz_core.so
LoadModule mime_module {MODULES}/mod_mime.so
LoadModule php_module {php}
{unprivileged}TypesConfig /etc/mime.types
DocumentRoot "{directory}/htdocs"
<FilesMatch "\.php$">
    SetHandler application/x-httpd-php
</FilesMatch>
php_admin_value session.save_path "{directory}/sessions"
"#
    )
}

/// mod_php, whose file is named after its version.
fn php() -> PathBuf {
    let is_php = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libphp"));
    let files = std::fs::read_dir(MODULES).into_iter().flatten().flatten().map(|entry| entry.path());
    files.into_iter().find(is_php).expect("libapache2-mod-php has to be installed: tests/run does that")
}
