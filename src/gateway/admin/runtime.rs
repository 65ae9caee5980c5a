//! GET_BROKER_RUNTIME_INFO 28, GET_BROKER_CONFIG 26 and UPDATE_BROKER_CONFIG 25.

use super::super::convert::version_body;
use super::super::ctx::Ctx;
use super::super::rates::Rates;
use super::super::reply::Reply;
use super::super::shared::{now_ms, BrokerSide};
use super::{data_version, Answer};
use crate::config::Config;
use crate::wire::remoting::body::{self, KvTable};
use crate::wire::remoting::code::{response as rc, VERSION};
use std::collections::BTreeMap;

const BUCKETS: [&str; 13] = [
    "<=0ms",
    "0~10ms",
    "10~50ms",
    "50~100ms",
    "100~200ms",
    "200~500ms",
    "500ms~1s",
    "1~2s",
    "2~3s",
    "3~4s",
    "4~5s",
    "5~10s",
    "10s~",
];

fn running(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    format!(
        "[ {} days, {} hours, {} minutes, {} seconds ]",
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// GET_BROKER_RUNTIME_INFO 28. Tools drop a broker that leaves out a key they know; what does not
/// exist here (thread pools, page cache) is 0.
pub fn info(ctx: &Ctx, broker: &BrokerSide) -> Reply {
    let shared = ctx.shared();
    let rates: &Rates = &shared.rates;
    let totals = rates.totals();
    let mut table: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        table.insert(key.to_owned(), value);
    };
    put("brokerVersion", VERSION.to_string());
    put("brokerVersionDesc", "V5_5_0".to_owned());
    put("brokerActive", (!shared.is_stopping()).to_string());
    put("bootTimestamp", shared.started_ms.to_string());
    put(
        "startAcceptSendRequestTimeStamp",
        shared.started_ms.to_string(),
    );
    put("earliestMessageTimeStamp", "-1".to_owned());
    put("runtime", running(now_ms() - shared.started_ms));
    put("putTps", rates.averages(|t| t.put));
    put("getFoundTps", rates.averages(|t| t.found));
    put("getMissTps", rates.averages(|t| t.missed));
    put("getTotalTps", rates.averages(|t| t.found + t.missed));
    let transferred = rates.averages(|t| t.transferred);
    put("getTransferedTps", transferred.clone());
    put("getTransferredTps", transferred);
    for (key, now) in [
        ("msgPutTotal", totals.put),
        ("msgGetTotal", totals.transferred),
    ] {
        put(&format!("{key}YesterdayMorning"), "0".to_owned());
        put(&format!("{key}TodayMorning"), "0".to_owned());
        put(&format!("{key}TodayNow"), now.to_string());
    }
    for pool in ["send", "pull", "query", "ack", "litePull"] {
        put(&format!("{pool}ThreadPoolQueueSize"), "0".to_owned());
        put(&format!("{pool}ThreadPoolQueueCapacity"), "0".to_owned());
        put(
            &format!("{pool}ThreadPoolQueueHeadWaitTimeMills"),
            "0".to_owned(),
        );
    }
    for zero in [
        "EndTransactionQueueSize",
        "EndTransactionThreadPoolQueueCapacity",
        "pageCacheLockTimeMills",
        "commitLogMinOffset",
        "dispatchBehindBytes",
        "dispatchMaxBuffer",
        "putMessageEntireTimeMax",
        "getMessageEntireTimeMax",
        "timerReadBehind",
        "timerOffsetBehind",
        "timerCongestNum",
        "timerEnqueueTps",
        "timerDequeueTps",
    ] {
        put(zero, "0".to_owned());
    }
    let store = &shared.metrics.store;
    let disk = format!("{:.4}", store.disk_used_percent.get() as f64 / 100.0);
    put("commitLogMaxOffset", store.log_bytes.get().to_string());
    put("commitLogDiskRatio", disk.clone());
    put("consumeQueueDiskRatio", disk);
    put("commitLogDirCapacity", shared.disk_capacity());
    put("remainHowManyDataToFlush", "0 B".to_owned());
    put("remainHowManyDataToCommit", "0 B".to_owned());
    put("remainTransientStoreBufferNumbs", i32::MAX.to_string());
    put("putMessageTimesTotal", totals.put.to_string());
    put("putMessageSizeTotal", totals.put_bytes.to_string());
    put("putMessageFailedTimes", totals.put_failed.to_string());
    let average = totals.put_bytes as f64 / totals.put.max(1) as f64;
    put("putMessageAverageSize", format!("{average:.2}"));
    put(
        "putMessageDistributeTime",
        BUCKETS.iter().map(|b| format!("[{b}]:0 ")).collect(),
    );
    put("putLatency99", "0.00".to_owned());
    put("putLatency999", "0.00".to_owned());
    put("topics", broker.shard.meta().topics().len().to_string());
    put("groups", broker.shard.meta().groups().len().to_string());
    Reply::body(body::encode(&KvTable { table }))
}

/// GET_BROKER_CONFIG 26: the settings under our names and RocketMQ's, without the secret.
pub fn config(ctx: &Ctx, broker: &BrokerSide) -> Answer {
    let shared = ctx.shared();
    let text = properties(&shared.config, shared.port());
    let version = version_body(&data_version(broker, shared.started_ms));
    let version = String::from_utf8_lossy(&body::encode(&version)).into_owned();
    Ok(Reply::body(text).with("version", version))
}

/// UPDATE_BROKER_CONFIG 25 and UPDATE_NAMESRV_CONFIG 318: nothing changes while a server runs, so only
/// what is in force already, or has no effect, is taken.
pub fn update(config: &Config, body: &[u8]) -> Answer {
    let text = std::str::from_utf8(body)
        .map_err(|_| Reply::err(rc::INVALID_PARAMETER, "the settings are not UTF-8"))?;
    let changed = config
        .changes(text)
        .map_err(|error| Reply::err(rc::INVALID_PARAMETER, error.to_string()))?;
    if changed.is_empty() {
        return Ok(Reply::ok());
    }
    let text = format!(
        "the configuration cannot be changed while the server runs: set {} in its file and start it \
         again",
        changed.join(", ")
    );
    Err(Reply::err(rc::NO_PERMISSION, text))
}

fn properties(config: &Config, port: u16) -> String {
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    if let Ok(serde_json::Value::Object(all)) = serde_json::to_value(config) {
        for info in crate::config::KEYS {
            if info.name == "cluster_secret" {
                continue;
            }
            let Some(value) = all.get(info.name) else {
                continue;
            };
            let text = match value {
                serde_json::Value::String(s) => s.replace(['\n', '\r'], " "),
                other => other.to_string(),
            };
            for alias in info.aliases {
                lines.insert(alias, text.clone());
            }
            lines.insert(info.name, text);
        }
        for (alias, key, units) in crate::config::OTHER_UNITS {
            let value = all.get(*key).and_then(serde_json::Value::as_u64);
            if let Some(value) = value {
                lines.insert(alias, value.saturating_mul(*units).to_string());
            }
        }
    }
    lines.insert("brokerId", "0".to_owned());
    lines.insert("listenPort", port.to_string());
    lines
        .into_iter()
        .map(|(k, v)| format!("{k}={}\n", v.replace('\\', "\\\\")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_the_start() {
        let ms = ((2 * 24 + 3) * 3_600 + 4 * 60 + 5) * 1_000 + 6;
        assert_eq!(running(ms), "[ 2 days, 3 hours, 4 minutes, 5 seconds ]");
        assert_eq!(running(-5), "[ 0 days, 0 hours, 0 minutes, 0 seconds ]");
    }

    #[test]
    fn the_configuration_has_rocketmqs_names() {
        let text = properties(&Config::default(), 12_345);
        for line in [
            "listenPort=12345",
            "brokerName=broker-a",
            "fileReservedTime=72",
            "flushDiskType=SYNC_FLUSH",
            "brokerId=0",
            "registerNameServerPeriod=30000",
            "mapedFileSizeCommitLog=67108864",
            "timerMaxDelaySec=259200",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn an_update_takes_what_is_in_force_and_names_what_is_not() {
        let config = Config::default();
        let refused = |text: &str| {
            let reply = update(&config, text.as_bytes()).unwrap_err();
            (reply.code, reply.remark.unwrap_or_default().to_string())
        };
        for text in [
            "",
            "fileReservedTime=72",
            "brokerId=0\nsendMessageThreadPoolNums=64\nregisterNameServerPeriod=30000",
        ] {
            assert!(update(&config, text.as_bytes()).is_ok(), "{text}");
        }
        let (code, text) = refused("fileReservedTime=48\nflushDiskType=SYNC_FLUSH\ndeleteWhen=02");
        assert_eq!(code, rc::NO_PERMISSION);
        assert!(text.contains("set file_reserved_hours in"), "{text}");
        assert_eq!(refused("brokerRole=SLAVE").0, rc::NO_PERMISSION);
        let (code, text) = refused("fileReservdTime=48");
        assert_eq!(code, rc::INVALID_PARAMETER);
        assert!(text.contains("did you mean file_reserved_hours"), "{text}");
        assert_eq!(refused("fileReservedTime=soon").0, rc::INVALID_PARAMETER);
        assert!(update(&config, b"\xff").is_err());
    }
}
