//! API processes without the rest of the shop, several of them on one database.

use adapters::redis::Redis;
use api::{ApiConfig, AppState, AuthKeys};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows::{Rules, Shop};

use super::{Door, JWT_SECRET, listen};
use crate::patience::in_time;

/// One API process, as far as its clients can tell.
pub struct Front {
    pub door: Door,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Front {
    pub async fn open(pool: &PgPool, config: ApiConfig, redis: Option<Redis>) -> Front {
        let keys = AuthKeys::new(&JWT_SECRET.into()).expect("a secret");
        Front::open_with(pool, keys, config, redis).await
    }

    pub async fn open_with(pool: &PgPool, keys: AuthKeys, config: ApiConfig, redis: Option<Redis>) -> Front {
        let (listener, base) = listen().await;
        let mut state = AppState::new(pool.clone(), Shop::new(Rules::default(), Vec::new(), None), keys, config);
        if let Some(redis) = redis {
            state = state.with_redis(redis);
        }
        let stop = CancellationToken::new();
        let serving = tokio::spawn(api::serve(listener, state, stop.clone().cancelled_owned()));
        // A client of its own, so that each caller's connections are their own.
        Front { door: Door::new(super::client(), base), stop, serving }
    }

    pub async fn close(self) {
        self.stop.cancel();
        in_time("the API stops", self.serving).await.expect("no panic").expect("a graceful end");
    }
}
