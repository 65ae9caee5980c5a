//! The client against a server made of bytes.

use super::*;
use crate::wire::message::record::RecordInput;
use crate::wire::remoting::code::request;
use crate::wire::remoting::{
    encode_response, split_frame, Command, FrameLimits, ResponseHeader, Val,
};
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const WAIT: Duration = Duration::from_secs(5);

fn run<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A server on a free port; `answer` writes what it likes to each request. `false` closes.
async fn server(mut answer: impl FnMut(Command, &mut BytesMut) -> bool + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buf = BytesMut::new();
            let mut open = true;
            while open {
                let mut out = BytesMut::new();
                while let Some(frame) = split_frame(&mut buf, &FrameLimits::default()).unwrap() {
                    open &= answer(Command::decode(frame).unwrap(), &mut out);
                }
                if stream.write_all(&out).await.is_err() {
                    break;
                }
                open &= open && stream.read_buf(&mut buf).await.unwrap_or(0) > 0;
            }
        }
    });
    addr
}

fn ok(out: &mut BytesMut, opaque: i32, ext: &[(&str, Val<'_>)], body: &[u8]) {
    encode_response(
        out,
        &ResponseHeader {
            code: 0,
            opaque,
            remark: None,
            ext,
        },
        &[body],
    );
}

fn client(addr: &str) -> Client {
    Client::new(vec![addr.to_owned()], WAIT)
}

#[test]
fn answers_find_their_requests_in_any_order() {
    run(async {
        let mut held: Vec<Command> = Vec::new();
        let addr = server(move |command, out| {
            held.push(command);
            if held.len() == 100 {
                // A stray answer first, then all in reverse.
                ok(out, 1_000_000, &[], b"stray");
                for c in held.drain(..).rev() {
                    ok(out, c.opaque, &[("code", c.code.into())], &c.body);
                }
            }
            true
        })
        .await;
        let connection = Connection::connect(&addr, WAIT).await.unwrap();
        let replies: Vec<_> = (0..100)
            .map(|i| {
                connection
                    .begin(i, &[], format!("body {i}").as_bytes())
                    .unwrap()
            })
            .collect();
        for (i, reply) in replies.into_iter().enumerate() {
            let answer = reply.answer(WAIT).await.unwrap();
            assert_eq!(answer.req_i32("code").unwrap(), i as i32);
            assert_eq!(answer.body, format!("body {i}"));
        }
    });
}

#[test]
fn strange_bytes_close_the_connection_with_a_reason() {
    for garbage in [
        &b"\x00\x00\x00\x00\x00\x00\x00\x00"[..],
        &b"\x7f\xff\xff\xff\x00\x00\x00\x02{}"[..],
        &b"\x00\x00\x00\x06\x00\x00\x00\x02{["[..],
        &b"\x00\x00\x00\x07\x00\x00\x00\x03\xff\xfe{"[..],
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
    ] {
        run(async move {
            let addr = server(move |_, out| {
                out.extend_from_slice(garbage);
                true
            })
            .await;
            let error = inner(client(&addr).route("T").await.unwrap_err());
            assert!(matches!(error, ClientError::Closed { .. }), "{error}");
            let http = garbage.starts_with(b"HTTP");
            assert_eq!(
                error.to_string().ends_with("it speaks HTTP"),
                http,
                "{error}"
            );
        });
    }
}

/// Why no name server answered.
fn inner(error: ClientError) -> ClientError {
    match error {
        ClientError::NameServer(why) => *why,
        other => panic!("{other}"),
    }
}

#[test]
fn end_of_the_connection_and_silence_are_told_apart() {
    run(async {
        let addr = server(|_, _| false).await;
        let error = inner(client(&addr).topics().await.unwrap_err());
        assert!(matches!(error, ClientError::Closed { .. }), "{error}");
        let silent = server(|_, _| true).await;
        let impatient = Client::new(vec![silent], Duration::from_millis(50));
        let error = inner(impatient.topics().await.unwrap_err());
        assert!(
            matches!(
                error,
                ClientError::Timeout {
                    request: 206,
                    ms: 50,
                    ..
                }
            ),
            "{error}"
        );
        let unused = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let error = inner(client(&unused).topics().await.unwrap_err());
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
        assert_eq!(
            Client::new(vec![], WAIT).topics().await,
            Err(ClientError::NoNameServer)
        );
    });
}

#[test]
fn a_dead_name_server_is_passed_over_and_refusals_are_named() {
    run(async {
        let unused = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let alive = server(|c, out| {
            if c.code == request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER {
                ok(out, c.opaque, &[], br#"{"topicList":["B","A"]}"#);
            } else {
                let remark = Some("No topic route");
                let header = ResponseHeader {
                    code: 17,
                    opaque: c.opaque,
                    remark,
                    ext: &[],
                };
                encode_response(out, &header, &[]);
            }
            true
        })
        .await;
        let client = Client::new(vec![unused, alive.clone()], WAIT);
        assert_eq!(client.topics().await.unwrap(), ["A", "B"]);
        let error = client.route("T").await.unwrap_err();
        assert_eq!(error.code(), Some(17));
        assert_eq!(
            error.to_string(),
            format!(
                "{alive} refused GET_ROUTEINFO_BY_TOPIC: code 17 TOPIC_NOT_EXIST: No topic route"
            )
        );
        // Neither the topic nor the template is known.
        assert_eq!(client.place("T", 0).await.unwrap_err().code(), Some(17));
    });
}

#[test]
fn send_and_pull_read_their_answers() {
    run(async {
        let addr = server(|c, out| {
            match c.code {
                request::SEND_MESSAGE_V2 => {
                    assert_eq!(c.ext("b"), Some("T"));
                    assert!(c.ext("i").unwrap().contains("TAGS\u{1}A\u{2}UNIQ_KEY\u{1}"));
                    let ext = [
                        ("msgId", Val::Str("X")),
                        ("queueId", Val::Int(3)),
                        ("queueOffset", Val::Int(42)),
                    ];
                    ok(out, c.opaque, &ext, &[]);
                }
                _ => {
                    let mut body = BytesMut::new();
                    for (i, text) in [&b"one"[..], b"two"].into_iter().enumerate() {
                        let properties = b"TAGS\x01A\x02KEYS\x01k\x02";
                        record(&mut body, 42 + i as i64, 0, text, properties);
                    }
                    let ext = [("nextBeginOffset", Val::Int(44))];
                    ok(out, c.opaque, &ext, &body);
                }
            }
            true
        })
        .await;
        let client = client(&addr);
        let message = Outgoing {
            topic: "T",
            body: b"x",
            properties: &[("TAGS", "A")],
        };
        let sent = client.send(&addr, 3, message).await.unwrap();
        assert_eq!(
            (sent.queue_id, sent.queue_offset, sent.msg_id.as_str()),
            (3, 42, "X")
        );
        assert_eq!(sent.unique_key.len(), 32);
        let pulled = client
            .pull(&addr, "G", ("T", 3, 42), "*", Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(
            (pulled.next, pulled.offset_moved, pulled.messages.len()),
            (44, false, 2)
        );
        assert_eq!(pulled.messages[1].body, "two");
        assert_eq!(pulled.messages[1].queue_offset, 43);
        assert_eq!(pulled.messages[0].property("KEYS"), Some("k"));
    });
}

fn record(out: &mut BytesMut, queue_offset: i64, sys_flag: i32, body: &[u8], properties: &[u8]) {
    let host = "127.0.0.1:1".parse().unwrap();
    let input = RecordInput {
        topic: "T",
        body,
        queue_id: 3,
        flag: 0,
        queue_offset,
        phys_offset: 7,
        sys_flag,
        born_ts: 1,
        born_host: host,
        store_ts: 2,
        store_host: host,
        reconsume_times: 0,
        prepared_txn_offset: 0,
        properties,
    };
    input.encode(out).unwrap();
}

#[test]
fn answers_without_their_fields_or_with_broken_records_are_errors() {
    run(async {
        let addr = server(|c, out| {
            match c.code {
                request::PULL_MESSAGE if c.ext("queueId") == Some("1") => {
                    ok(
                        out,
                        c.opaque,
                        &[("nextBeginOffset", Val::Int(1))],
                        b"\x7f\xff\xff\xff rubbish",
                    );
                }
                request::GET_MAX_OFFSET => ok(out, c.opaque, &[("offset", Val::Str("many"))], &[]),
                request::GET_ROUTEINFO_BY_TOPIC => ok(out, c.opaque, &[], b"{\"brokerDatas\":7}"),
                request::GET_BROKER_CLUSTER_INFO => ok(out, c.opaque, &[], b""),
                _ => ok(out, c.opaque, &[], &[]),
            }
            true
        })
        .await;
        let client = client(&addr);
        let message = Outgoing {
            topic: "T",
            body: b"x",
            properties: &[],
        };
        let errors = [
            client.send(&addr, 0, message).await.unwrap_err(),
            client
                .pull(&addr, "G", ("T", 0, 0), "*", Duration::ZERO)
                .await
                .unwrap_err(),
            client
                .pull(&addr, "G", ("T", 1, 0), "*", Duration::ZERO)
                .await
                .unwrap_err(),
            client.max_offset(&addr, "T", 0).await.unwrap_err(),
            client.route("T").await.unwrap_err(),
            client.cluster_info().await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, ClientError::Strange { .. }), "{error}");
        }
    });
}

#[test]
fn compressed_bodies_are_inflated_or_named() {
    use flate2::{write::ZlibEncoder, Compression};
    use std::io::Write;
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&[b'x'; 10_000]).unwrap();
    let zlib = zlib.finish().unwrap();
    let mut bomb = ZlibEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..65 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    for (sys_flag, body, wanted) in [
        (0, &zlib, None),
        (1, &zlib, None),
        (1 | 3 << 8, &zlib, None),
        (1 | 1 << 8, &zlib, Some("LZ4")),
        (1 | 2 << 8, &zlib, Some("ZSTD")),
        (1, &b"broken".to_vec(), Some("zlib")),
        (1, &bomb, Some("zlib")),
    ] {
        let mut bytes = BytesMut::new();
        record(&mut bytes, 0, sys_flag, body, b"");
        let view = crate::wire::message::record::RecordView::parse(&bytes).unwrap();
        let received = Received::from_record(&view);
        assert_eq!(received.still_compressed, wanted);
        let inflated = sys_flag != 0 && wanted.is_none();
        assert_eq!(
            received.body.len(),
            if inflated { 10_000 } else { body.len() }
        );
    }
}

#[test]
fn requests_from_the_server_are_handed_on_and_answered() {
    run(async {
        let addr = server(|c, out| {
            if c.is_response() {
                assert_eq!((c.opaque, c.code, &c.body[..]), (77, 0, &b"info"[..]));
                ok(out, 0, &[], b"thanks");
            } else {
                use crate::wire::remoting::{encode_request, HeaderFormat, RequestHeader};
                let header = RequestHeader {
                    code: 307,
                    opaque: 77,
                    oneway: false,
                    remark: None,
                    ext: &[],
                };
                encode_request(out, HeaderFormat::Json, &header, &[]);
            }
            true
        })
        .await;
        let connection = Connection::connect(&addr, WAIT).await.unwrap();
        let reply = connection.begin(34, &[], b"").unwrap();
        let asked = connection.server_request().await.unwrap();
        assert_eq!((asked.code, asked.opaque), (307, 77));
        connection.respond(asked.opaque, 0, &[], b"info").unwrap();
        assert_eq!(reply.answer(WAIT).await.unwrap().body, "thanks");
    });
}
