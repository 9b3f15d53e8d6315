//! vagrant/Vagrantfile, as far as it can be tried without machines; tests/vagrant/run tries it with them.

use std::path::Path;
use std::process::Command;

use crate::containers::succeed;

#[test]
fn the_vagrantfile_is_right_for_libvirt_and_virtualbox() {
    let installed = Command::new("vagrant").arg("--version").output().is_ok();
    assert!(installed, "there is no vagrant: apt-get install vagrant vagrant-libvirt (tests/run does it)");
    let verdict = succeed(&mut Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vagrant/validate")));
    assert_eq!(verdict.matches("Vagrantfile validated successfully.").count(), 2, "{verdict}");
}
