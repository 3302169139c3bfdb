//! A headless Chromium of one's own, driven over the DevTools protocol through a pipe.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A running browser; it is ended when this is dropped, and its profile removed.
pub struct Chromium {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    /// What happened since it was last taken.
    events: Vec<Value>,
    _profile: TempDir,
}

/// A tab.
#[derive(Clone)]
pub struct Tab {
    session: String,
}

impl Chromium {
    /// Starts the browser that `PORTCULLIS_TEST_CHROMIUM` names, or says that there is none.
    pub fn start() -> Option<Self> {
        Self::start_trusting("")
    }

    /// The same, which takes certificates with a key of this digest (SHA-256, in base64) for good.
    pub fn start_trusting(spki: &str) -> Option<Self> {
        let Some(binary) = std::env::var_os("PORTCULLIS_TEST_CHROMIUM") else {
            eprintln!("skipped: PORTCULLIS_TEST_CHROMIUM names no browser");
            return None;
        };
        let profile = TempDir::new().unwrap();
        let mut data_dir = std::ffi::OsString::from("--user-data-dir=");
        data_dir.push(profile.path());
        // The protocol is spoken on descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                "sh",
            ])
            .arg(binary)
            .args(FLAGS)
            .arg(format!("--ignore-certificate-errors-spki-list={spki}"))
            .arg(data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        Some(Self {
            child,
            commands,
            messages,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        })
    }

    /// Opens an empty tab.
    pub fn tab(&mut self) -> Tab {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let tab = Tab { session };
        for domain in ["Page", "Network", "Runtime"] {
            self.call(Some(&tab), &format!("{domain}.enable"), json!({}));
        }
        tab
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&mut self, tab: &Tab, url: &str) {
        self.events.clear();
        self.call(Some(tab), "Page.navigate", json!({"url": url}));
        self.wait_for(|event| event["method"] == "Page.loadEventFired");
    }

    /// What a script in the page comes to; promises are awaited.
    pub fn run(&mut self, tab: &Tab, script: &str) -> Value {
        let params = json!({
            "expression": script,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let answer = self.call(Some(tab), "Runtime.evaluate", params);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{script}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Sends a command and takes its answer.
    pub fn call(&mut self, tab: Option<&Tab>, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(tab) = tab {
            command["sessionId"] = json!(tab.session);
        }
        let mut command = command.to_string().into_bytes();
        command.push(0);
        self.commands.write_all(&command).unwrap();
        loop {
            let message = self.next_message(method);
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The first event for which this holds, of those that came and those that come.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                return self.events.remove(at);
            }
            let message = self.next_message("an event");
            self.events.push(message);
        }
    }

    /// The status of every answer to a request for an address that starts so, whether or not the
    /// page may see it. The page may hear of an answer before this program does.
    pub fn statuses(&mut self, url: &str) -> Vec<u64> {
        loop {
            let (sent, statuses) = self.told(url);
            if statuses.len() >= sent {
                return statuses;
            }
            let event = self.next_message("statuses");
            self.events.push(event);
        }
    }

    fn told(&self, url: &str) -> (usize, Vec<u64>) {
        let sent: Vec<_> = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent")
            .filter(|event| {
                let own = event["params"]["request"]["url"].as_str();
                own.is_some_and(|own| own.starts_with(url))
            })
            .map(|event| event["params"]["requestId"].clone())
            .collect();
        let statuses = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.responseReceivedExtraInfo")
            .filter(|event| sent.contains(&event["params"]["requestId"]))
            .filter_map(|event| event["params"]["statusCode"].as_u64());
        (sent.len(), statuses.collect())
    }

    fn next_message(&self, wanted: &str) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        message.unwrap_or_else(|_| panic!("the browser does not answer: {wanted}"))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It ends its helper processes itself when it is asked to.
        let _ = self
            .commands
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    // Reports are sent at once, not once a minute.
    "--short-reporting-delay",
    "--remote-debugging-pipe",
];
const PATIENCE: Duration = Duration::from_secs(60);
