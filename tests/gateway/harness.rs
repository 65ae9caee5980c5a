//! A real node in this process, and a client that says whatever a test wants.

use serde_json::{json, Map, Value};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use troupemq::config::Config;
use troupemq::node::Broker;

/// A node on free ports of loopback; stops when dropped.
pub struct Node {
    pub broker: SocketAddr,
    pub registry: SocketAddr,
    pub http: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Starts with the defaults, changed by `change`.
    pub fn start(change: impl FnOnce(&mut Config)) -> Node {
        let dir = tempfile::tempdir().expect("directory");
        let mut config = Config {
            data_dir: dir.path().to_string_lossy().into_owned(),
            listen_port: 0,
            vip_enable: false,
            namesrv_listen_port: 0,
            http_listen_port: 0,
            disk_min_free_bytes: 0,
            disk_space_warning_level_ratio: 99,
            ..Config::default()
        };
        change(&mut config);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let node = Broker::builder()
                    .config(config)
                    .start()
                    .await
                    .expect("node starts");
                ready.send(node.listening()).expect("test waits");
                let _ = stopped.await;
                node.stop().await;
            });
        });
        let at = started
            .recv_timeout(Duration::from_secs(60))
            .expect("node is ready");
        Node {
            broker: at.broker.expect("broker"),
            registry: at.registry.expect("registry"),
            http: at.http.expect("http"),
            stop: Some(stop),
            thread: Some(thread),
            _dir: dir,
        }
    }

    /// A connection to the broker.
    pub fn client(&self) -> Client {
        Client::open(self.broker)
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.page("/metrics")
    }

    /// An HTTP page, head and body.
    pub fn page(&self, path: &str) -> String {
        let mut s = TcpStream::connect(self.http).expect("http");
        s.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        s.write_all(ask.as_bytes()).expect("send");
        let mut text = String::new();
        s.read_to_string(&mut text).expect("page");
        text
    }

    /// The value of a metric line that starts with `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.rsplit(' ').next())
            .and_then(|v| v.parse().ok())
            .unwrap_or(0.0)
    }

    /// Messages in all queues of a topic; 0 when it does not exist.
    pub fn stored(&self, topic: &str, queues: u32) -> i64 {
        let mut c = self.client();
        (0..queues)
            .map(|q| {
                let ext = [("topic", topic.to_owned()), ("queueId", q.to_string())];
                let (head, _) = c.call(30, &ext, b"");
                head["extFields"]["offset"]
                    .as_str()
                    .map_or(0, |o| o.parse().expect("offset"))
            })
            .sum()
    }

    /// Creates a topic and says that the node still works.
    pub fn topic(&self, name: &str, queues: u32) {
        let (head, _) = self.client().call(17, &topic_ext(name, queues, 6), b"");
        assert_eq!(head["code"], 0, "{head}");
    }

    /// A normal message goes through: the node is up and in order.
    pub fn assert_alive(&self, topic: &str) {
        let (head, _) = self.client().call(310, &send_ext(topic, 0, ""), b"alive");
        assert_eq!(head["code"], 0, "{head}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Header fields of 17.
pub fn topic_ext(name: &str, queues: u32, perm: u32) -> Vec<(&'static str, String)> {
    vec![
        ("topic", name.to_owned()),
        ("defaultTopic", "TBW102".to_owned()),
        ("readQueueNums", queues.to_string()),
        ("writeQueueNums", queues.to_string()),
        ("perm", perm.to_string()),
        ("topicFilterType", "SINGLE_TAG".to_owned()),
        ("order", "false".to_owned()),
    ]
}

/// Header fields of 310.
pub fn send_ext(topic: &str, queue: i32, properties: &str) -> Vec<(&'static str, String)> {
    vec![
        ("a", "PG".to_owned()),
        ("b", topic.to_owned()),
        ("c", "TBW102".to_owned()),
        ("d", "4".to_owned()),
        ("e", queue.to_string()),
        ("f", "0".to_owned()),
        ("g", "1700000000000".to_owned()),
        ("h", "0".to_owned()),
        ("i", properties.to_owned()),
        ("j", "0".to_owned()),
        ("k", "false".to_owned()),
        ("m", "false".to_owned()),
    ]
}

/// Replaces a header field.
pub fn with(
    mut ext: Vec<(&'static str, String)>,
    key: &'static str,
    value: impl ToString,
) -> Vec<(&'static str, String)> {
    ext.retain(|(k, _)| *k != key);
    ext.push((key, value.to_string()));
    ext
}

/// Header fields of 11.
pub fn pull_ext(
    group: &str,
    topic: &str,
    offset: i64,
    hold_ms: i64,
) -> Vec<(&'static str, String)> {
    let flag = if hold_ms > 0 { 2 | 4 } else { 4 };
    vec![
        ("consumerGroup", group.to_owned()),
        ("topic", topic.to_owned()),
        ("queueId", "0".to_owned()),
        ("queueOffset", offset.to_string()),
        ("maxMsgNums", "32".to_owned()),
        ("sysFlag", flag.to_string()),
        ("commitOffset", "0".to_owned()),
        ("suspendTimeoutMillis", hold_ms.to_string()),
        ("subscription", "*".to_owned()),
        ("subVersion", "0".to_owned()),
    ]
}

/// A frame with a JSON header made of `head` as it is.
pub fn raw_frame(kind: u8, head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + head.len() + body.len());
    out.extend(((4 + head.len() + body.len()) as u32).to_be_bytes());
    out.extend((u32::from(kind) << 24 | head.len() as u32).to_be_bytes());
    out.extend(head);
    out.extend(body);
    out
}

/// A request frame.
pub fn request(code: i32, opaque: i32, flag: i32, ext: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let fields: Map<String, Value> = ext
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Value::String(v.clone())))
        .collect();
    let head = json!({
        "code": code, "language": "JAVA", "version": 513, "opaque": opaque, "flag": flag,
        "extFields": fields,
    });
    raw_frame(0, head.to_string().as_bytes(), body)
}

/// A blocking connection.
pub struct Client {
    pub stream: TcpStream,
    buf: Vec<u8>,
    opaque: i32,
}

impl Client {
    pub fn open(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        Client {
            stream,
            buf: Vec::new(),
            opaque: 0,
        }
    }

    /// Writes bytes; a node that closes meanwhile is no error.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Next frame: header and body; `None` when the node closed the connection.
    pub fn read(&mut self) -> Option<(Value, Vec<u8>)> {
        loop {
            if self.buf.len() >= 8 {
                let len = u32::from_be_bytes(self.buf[..4].try_into().expect("4")) as usize;
                if self.buf.len() >= 4 + len {
                    let head = u32::from_be_bytes(self.buf[4..8].try_into().expect("4")) as usize
                        & 0xFF_FFFF;
                    let frame: Vec<u8> = self.buf.drain(..4 + len).collect();
                    let json = serde_json::from_slice(&frame[8..8 + head]).expect("JSON header");
                    return Some((json, frame[8 + head..].to_vec()));
                }
            }
            let mut chunk = [0u8; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buf.extend(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no answer: {e}"),
            }
        }
    }

    /// Sends a request and waits for its answer; skips what the node says by itself.
    pub fn call(&mut self, code: i32, ext: &[(&str, String)], body: &[u8]) -> (Value, Vec<u8>) {
        self.opaque += 1;
        let frame = request(code, self.opaque, 0, ext, body);
        self.stream.write_all(&frame).expect("send");
        loop {
            let (head, body) = self.read().expect("an answer");
            if head["opaque"] == self.opaque && head["flag"] == 1 {
                return (head, body);
            }
        }
    }

    /// The answer's code.
    pub fn code(&mut self, code: i32, ext: &[(&str, String)], body: &[u8]) -> i64 {
        self.call(code, ext, body).0["code"].as_i64().expect("code")
    }

    /// Asserts that the node closes this connection without another frame.
    pub fn assert_closed(&mut self, why: &str) {
        if let Some((head, _)) = self.read() {
            panic!("{why}: answered {head}");
        }
    }
}
