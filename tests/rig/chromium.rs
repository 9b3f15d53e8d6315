//! Chromium without a window, told what to do through its debugging pipe: what a person would see, in figures.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use relevo::lab::directory::Directory;
use serde_json::{Value, json};

use super::PATIENCE;

/// A running browser with one page; both end with the value.
pub(crate) struct Chromium {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    count: u64,
    session: Option<String>,
    _profile: Directory,
}

impl Chromium {
    /// Whatever is a page's own script does not run in it.
    pub(crate) fn without_scripts() -> Self {
        let profile = Directory::new().unwrap();
        // Its pipe is descriptors 3 and 4, and ends it when closed.
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 >/dev/null", "chromium"]);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("--remote-debugging-pipe");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut browser = Self { process, orders, answers, count: 0, session: None, _profile: profile };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.order("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.order("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
        browser
    }

    /// Loads this page in a window of so many CSS pixels, as somebody who prefers `light` or `dark`.
    /// What it says where it cannot is the error.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) -> Result<(), String> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.order("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.order("Emulation.setEmulatedMedia", features);
        let loaded = self.order("Page.navigate", json!({ "url": url }));
        if let Some(error) = loaded["errorText"].as_str() {
            return Err(error.to_owned());
        }
        self.wait_for("document.readyState === 'complete'");
        Ok(())
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until an expression in the page is true; the page may be loaded meanwhile.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        while last != Some(Ok(json!(true))) {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {expression}: {last:?}");
            std::thread::sleep(Duration::from_millis(20));
            last = Some(self.try_evaluate(expression));
        }
    }

    /// A picture of the window, as PNG in Base64.
    pub(crate) fn picture(&mut self) -> String {
        self.order("Page.captureScreenshot", json!({}))["data"].as_str().unwrap().to_owned()
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.try_order("Runtime.evaluate", parameters)?;
        match result.get("exceptionDetails") {
            Some(exception) => Err(exception.clone()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    #[track_caller]
    fn order(&mut self, method: &str, parameters: Value) -> Value {
        self.try_order(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// One order in JSON with a zero behind it, and the answer with its number; what comes between is news.
    fn try_order(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.count += 1;
        let mut order = json!({ "id": self.count, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).expect(MISSING);
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "{MISSING}");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.count {
                return answer.get("error").map_or_else(|| Ok(answer["result"].clone()), |error| Err(error.clone()));
            }
        }
    }
}

const MISSING: &str = "chromium ended, or is not installed: tests/run does that";

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
