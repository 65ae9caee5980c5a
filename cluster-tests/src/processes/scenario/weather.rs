//! A bad network between everybody, 13: loss, delay, duplicates and changed bytes.

use super::{Needs, Scenario, NETWORK};
use crate::processes::stage::Stage;
use crate::processes::tunnel::Weather;
use std::time::Duration;

const TUNNEL: Needs = Needs {
    tunnel: true,
    ..NETWORK
};

pub(super) const SCENARIOS: [Scenario; 5] = [
    scenario("13a", "packets lost", lost),
    scenario("13b", "packets late", late),
    scenario("13c", "packets doubled and overtaken", doubled),
    scenario("13d", "packets corrupted", corrupted),
    scenario("13e", "bytes forged between nodes", forged),
];

const fn scenario(
    number: &'static str,
    name: &'static str,
    work: fn(&mut Stage) -> Result<(), String>,
) -> Scenario {
    super::scenario(number, name, TUNNEL, work)
}

/// Nothing is asked of the time during such a fault; after it all is well within 10 s.
fn under(stage: &mut Stage, what: &str, weather: Weather) -> Result<(), String> {
    stage.sends_may_fail = true;
    while stage.more() {
        stage.fault(what.to_owned(), &[0, 1, 2], None);
        stage.weather(weather)?;
        stage.sleep(8.0);
        stage.measured();
        stage.weather(Weather::default())?;
        stage.fault("healed".into(), &[0, 1, 2], Some(Duration::from_secs(10)));
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn lost(stage: &mut Stage) -> Result<(), String> {
    let percent = [5, 20][stage.rng.below(2)];
    let weather = Weather {
        lost: percent * 10,
        ..Weather::default()
    };
    under(stage, &format!("{percent} % lost"), weather)
}

fn late(stage: &mut Stage) -> Result<(), String> {
    let weather = Weather {
        delay: Duration::from_millis(50),
        ..Weather::default()
    };
    under(stage, "100 ms there and back", weather)
}

fn doubled(stage: &mut Stage) -> Result<(), String> {
    let weather = Weather {
        doubled: 100,
        jitter: Duration::from_millis(20),
        ..Weather::default()
    };
    under(stage, "10 % doubled, up to 20 ms late", weather)
}

fn corrupted(stage: &mut Stage) -> Result<(), String> {
    let weather = Weather {
        corrupted: 10,
        ..Weather::default()
    };
    under(stage, "1 % corrupted", weather)
}

/// What TCP's check sum lets through is found by the nodes' own.
fn forged(stage: &mut Stage) -> Result<(), String> {
    let weather = Weather {
        forged: 5,
        ..Weather::default()
    };
    under(stage, "0.5 % forged", weather)?;
    let count = stage.forged();
    stage.note(&format!("{count} packets forged"));
    if count == 0 {
        stage.problem("no packet was forged");
    }
    Ok(())
}
