//! Images made of files of this machine, for tests and benchmarks: nothing is fetched from elsewhere.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Runs the engine's command line; answers what it prints.
pub fn docker_at(address: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(["-H", address]).args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("the docker command is installed");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// One image at a time: two tests that both find one missing would make it twice, and its name would move under the first.
static MAKING: Mutex<()> = Mutex::new(());

/// The image of the app that the tests deploy; made once for an engine. It serves what lies in the app's directory.
pub fn app_image(address: &str, program: &Path) -> String {
    static FILES: OnceLock<tempfile::TempDir> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let app = directory.path().join("app");
        std::fs::create_dir_all(directory.path().join("tmp")).expect("made");
        std::fs::create_dir(&app).expect("made");
        std::fs::copy(program, app.join("test-app")).expect("copied");
        bring_libraries(program, directory.path());
        // For functions that are a shell command for each call.
        std::fs::create_dir(directory.path().join("bin")).expect("made");
        for tool in ["sh", "cat", "sleep", "tr"] {
            let tool = Path::new("/bin").join(tool);
            std::fs::copy(&tool, directory.path().join(tool.strip_prefix("/").expect("below"))).expect("copied");
            bring_libraries(&tool, directory.path());
        }
        directory
    });
    let name = format!("landfall-test/app:{}", std::process::id());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if docker_at(address, &["image", "inspect", &name]).is_err() {
        import(address, files.path(), &["."], &name, "[\"/app/test-app\", \"serve\"]");
    }
    name
}

/// An image with this machine's Python; `None`, said aloud, where there is none.
pub fn python_image(address: &str) -> Option<String> {
    let asked = "import sys, sysconfig; print(sys.executable); print(sysconfig.get_paths()['stdlib'])";
    let output = Command::new("python3").args(["-c", asked]).output().ok().filter(|output| output.status.success());
    let Some(output) = output else {
        println!("skipped: there is no python3");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let (program, library) = (lines.next().expect("a path"), lines.next().expect("a path"));
    let name = format!("landfall-test/python:{}", std::process::id());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if docker_at(address, &["image", "inspect", &name]).is_err() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("usr/bin")).expect("made");
        std::fs::create_dir_all(root.join("tmp")).expect("made");
        std::fs::copy(program, root.join("usr/bin/python3")).expect("copied");
        bring_libraries(Path::new(program), root);
        let target = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(&target).expect("made");
        // Without what only developers of Python need.
        let script = format!(
            "tar -C {library} --exclude=__pycache__ --exclude=test --exclude=dist-packages --exclude=config-* -c . | tar -C {} -x",
            target.display()
        );
        assert!(Command::new("sh").args(["-c", &script]).status().expect("runs").success(), "Python is copied");
        for extension in std::fs::read_dir(target.join("lib-dynload")).into_iter().flatten().flatten() {
            bring_libraries(&extension.path(), root);
        }
        import(address, root, &["."], &name, "[\"/usr/bin/python3\"]");
    }
    Some(name)
}

/// Copies the libraries that a program is linked with to the same place below `root`.
fn bring_libraries(program: &Path, root: &Path) {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(word.trim_start_matches('/'));
        if !target.exists() {
            std::fs::create_dir_all(target.parent().expect("a directory")).expect("made");
            std::fs::copy(word, &target).expect("copied");
        }
    }
}

fn import(address: &str, root: &Path, parts: &[&str], name: &str, command: &str) {
    let mut tar =
        Command::new("tar").arg("-C").arg(root).arg("-c").args(parts).stdout(Stdio::piped()).spawn().expect("tar runs");
    let status = Command::new("docker")
        .args(["-H", address, "import", "--change", &format!("CMD {command}"), "--change", "WORKDIR /landfall/app"])
        .args(["-", name])
        .stdin(tar.stdout.take().expect("its output"))
        .stdout(Stdio::null())
        .status()
        .expect("docker runs");
    assert!(status.success() && tar.wait().expect("its end").success(), "{name} is imported");
}
