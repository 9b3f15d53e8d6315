//! Slow start: a server that was down gets its weight back bit by bit, so that it can warm up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::WHOLE;
use crate::balancer::state::Shared;
use crate::config::model::BackendIndex;

/// Raise the weights of servers that came back, on the control thread; never ends.
pub async fn watch(shared: Arc<Shared>) {
    let mut rising = JoinSet::new();
    for (backend, config) in shared.config.backends.iter().enumerate() {
        if let Some(slow_start) = config.slow_start {
            rising.spawn(keep_raising(shared.clone(), BackendIndex(backend), slow_start));
        }
    }
    while rising.join_next().await.is_some() {}
    std::future::pending().await
}

async fn keep_raising(shared: Arc<Shared>, backend: BackendIndex, slow_start: Duration) {
    let Some(state) = shared.backends.get(backend.0) else { return };
    loop {
        state.came_back.notified().await;
        while shared.raise(backend, slow_start, Instant::now()) {
            sleep((slow_start / WHOLE).max(Duration::from_millis(1))).await;
        }
    }
}

/// What of its weight a server has so long after it came back: a tenth at once, all of it at the end.
pub fn tenths(since: Duration, slow_start: Duration) -> u32 {
    let passed = since.as_micros() * u128::from(WHOLE) / slow_start.as_micros().max(1);
    u32::try_from(passed).unwrap_or(WHOLE).clamp(1, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::balance::Chooser;
    use crate::balancer::state::Health;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::config::model::{Balance, HashKey, HashMethod};

    const APP: BackendIndex = BackendIndex(0);
    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn the_weight_grows_evenly_from_a_tenth() {
        let expected = [(0, 1), (500, 1), (1_000, 1), (2_000, 2), (5_500, 5), (9_999, 9), (10_000, 10), (60_000, 10)];
        for (millis, tenth) in expected {
            assert_eq!(tenths(Duration::from_millis(millis), TEN), tenth, "{millis}");
        }
    }

    fn shared(balance: Balance) -> Arc<Shared> {
        let mut config = one_backend(balance, vec![server("a", 2), server("b", 2)]);
        config.backends[0].slow_start = Some(TEN);
        Shared::new(config)
    }

    /// Of 1100 choices, those of server 1.
    fn share(shared: &Arc<Shared>) -> usize {
        let mut worker = Chooser::new(shared.clone());
        (0..1100_u64)
            .filter(|number| {
                worker.choose(APP, Some(super::super::key::of_bytes(&number.to_be_bytes())), &[]) == Some(1)
            })
            .count()
    }

    #[test]
    fn who_comes_back_rises_from_a_tenth_and_who_starts_has_all_at_once() {
        let shared = shared(Balance::RoundRobin);
        shared.set_health(APP, 1, Health::Starting, "its address changed");
        shared.set_health(APP, 1, Health::Up, "connection accepted");
        assert_eq!(share(&shared), 550);
        shared.set_health(APP, 1, Health::Down, "connection refused");
        let began = Instant::now();
        shared.set_health(APP, 1, Health::Up, "connection accepted");
        assert_eq!(share(&shared), 100);
        assert!(shared.raise(APP, TEN, began + Duration::from_millis(5_500)));
        assert_eq!((share(&shared) as i64 - 1100 / 3).abs() / 10, 0);
        assert!(!shared.raise(APP, TEN, began + 2 * TEN));
        assert_eq!(share(&shared), 550);
        assert!(!shared.raise(APP, TEN, began + 3 * TEN));
    }

    #[test]
    fn a_ring_gives_it_its_own_keys_bit_by_bit_and_a_map_all_at_once() {
        for (method, expected) in [(HashMethod::MapBased, 450..650), (HashMethod::Consistent, 50..160)] {
            let shared = shared(Balance::Hash { key: HashKey::Source, method });
            shared.set_health(APP, 1, Health::Down, "connection refused");
            shared.set_health(APP, 1, Health::Up, "connection accepted");
            assert!(expected.contains(&share(&shared)), "{method:?} {}", share(&shared));
        }
    }
}
