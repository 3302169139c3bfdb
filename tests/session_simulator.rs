#![cfg(feature = "refresh-token")]
//! Browsers of eight tabs over seven virtual days, with and without a thief, beside two other
//! policies: strict single use, and a grace window in which every caller gets a token of his own.
//!
//! Every page load refreshes, and so does every tab whose access token is over; after a night all
//! of them do at once. One request in fifty is lost, one answer in fifty too. The tabs share a
//! cookie; their answers come in the order in which they were given, as on one connection of
//! HTTP/2, or overtake each other, as on several. Each use replaces the token, or a young one stays.
//!
//! `cargo nextest run --features refresh-token --test session_simulator --no-capture` prints the
//! figures.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use portcullis::{
    Context,
    event::{EventKind, SecurityEvent},
    refresh_token::{Device, MemoryStore, RefreshError, RefreshTokens},
    secret::Secret,
    time::{Clock as _, ManualClock, UnixMillis},
};
use tokio_test::block_on;

/// What a server does with refresh tokens, for one session.
trait Policy {
    fn login(&mut self) -> String;
    fn refresh(&mut self, now: Millis, token: &str, from: IpAddr) -> Answer;
}

/// A token to set the cookie to; `None` where it stays.
type Answer = Result<Option<String>, Refused>;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Refused {
    /// 401, and the cookie stays.
    Late,
    /// 401, and the session is over.
    Over,
}

type Millis = u64;

/// The crate's, with a grace window or without one.
struct Rotation {
    tokens: RefreshTokens,
    clock: ManualClock,
    start: UnixMillis,
    alarms: Arc<AtomicUsize>,
    keeps_young: bool,
}

impl Rotation {
    fn with_grace(grace: Millis) -> Self {
        let clock = ManualClock::new();
        let alarms = Arc::<AtomicUsize>::default();
        let seen = alarms.clone();
        let context = Context::new().with_clock(clock.clone()).with_events_inline(
            move |event: &SecurityEvent| {
                let alarm = event.kind() == EventKind::AuthnTokenReuse;
                seen.fetch_add(usize::from(alarm), Ordering::Relaxed);
            },
        );
        let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate())
            .with_context(context)
            .with_grace(Duration::from_millis(grace))
            .unwrap();
        Self {
            tokens,
            start: clock.wall(),
            clock,
            alarms,
            keeps_young: false,
        }
    }
}

impl Policy for Rotation {
    fn login(&mut self) -> String {
        let granted = block_on(async {
            let login = self.tokens.begin("owner").await?;
            self.tokens.start(login, Device::new()).await
        });
        granted.unwrap().token.expose().to_owned()
    }

    fn refresh(&mut self, now: Millis, token: &str, from: IpAddr) -> Answer {
        let wall = self.start.saturating_add(Duration::from_millis(now));
        self.clock.set_wall(wall);
        let granted = match self.keeps_young {
            true => block_on(self.tokens.refresh_by_cookie(token, Some(from))),
            false => block_on(self.tokens.refresh(token, Some(from))),
        };
        match granted {
            Ok(granted) => Ok((!granted.kept).then(|| granted.token.expose().to_owned())),
            Err(RefreshError::Late(_)) => Err(Refused::Late),
            Err(_) => Err(Refused::Over),
        }
    }
}

/// What many products do: inside the window every use makes one more token of the family.
#[derive(Default)]
struct Forking {
    tokens: HashMap<String, (usize, Option<Millis>)>,
    over: Vec<bool>,
}

impl Forking {
    fn make(&mut self, family: usize) -> String {
        let token = self.tokens.len().to_string();
        self.tokens.insert(token.clone(), (family, None));
        token
    }
}

impl Policy for Forking {
    fn login(&mut self) -> String {
        self.over.push(false);
        self.make(self.over.len() - 1)
    }

    fn refresh(&mut self, now: Millis, token: &str, _: IpAddr) -> Answer {
        let (family, used) = self.tokens.get_mut(token).unwrap();
        let family = *family;
        if self.over[family] || now - *used.get_or_insert(now) >= GRACE {
            self.over[family] = true;
            return Err(Refused::Over);
        }
        Ok(Some(self.make(family)))
    }
}

/// What happens, and when.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// The user opens a page in some tab.
    PageLoad,
    /// A tab finds that its access token is over.
    Expired(Turn),
    /// A request comes to the server.
    Request(Turn, String),
    /// Its answer comes to the browser.
    Answer(Turn, Answer),
    /// Nothing came for a while.
    TimeOut(Turn),
    /// Somebody copies the browser's token.
    Theft,
    /// The thief uses what he has.
    Thief,
}

/// What a tab waits for; void when it waits for something later.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Turn {
    tab: usize,
    number: u64,
}

/// How often a thief acts inside the window of its owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Inside {
    /// He acts when he likes.
    ByChance,
    /// Once, then when he likes.
    Once,
    EveryTime,
}

struct Thief {
    inside: Inside,
    token: Option<String>,
    stolen_at: Millis,
}

/// One user's browser, the network, perhaps a thief, and a server.
struct World<P> {
    policy: P,
    random: Random,
    now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    number: u64,
    /// When the last request and the last answer on the connection arrive.
    arrivals: [Millis; 2],
    ordered: bool,
    jar: String,
    tabs: [u64; TABS],
    thief: Option<Thief>,
    truth: Truth,
    over: usize,
    over_at: Option<Millis>,
    refreshes: usize,
    /// The mean time between two.
    page_loads: Millis,
}

/// What the server must know of its tokens, kept apart from it.
#[derive(Default)]
struct Truth {
    generations: HashMap<String, usize>,
    newest: usize,
    rotated_at: Millis,
    unnoticed: usize,
}

impl Truth {
    /// A token that was replaced a window ago must end the session, whoever comes with it.
    fn note(&mut self, now: Millis, token: &str, answer: &Answer) {
        let generation = self.generations.get(token).copied().unwrap_or_default();
        let outdated = generation < self.newest && now - self.rotated_at >= GRACE;
        if outdated && *answer != Err(Refused::Over) {
            self.unnoticed += 1;
        }
        if let Ok(Some(next)) = answer
            && !self.generations.contains_key(next)
        {
            self.newest += 1;
            self.rotated_at = now;
            self.generations.insert(next.clone(), self.newest);
        }
    }
}

impl<P: Policy> World<P> {
    fn new(mut policy: P, seed: u64) -> Self {
        let jar = policy.login();
        let mut world = Self {
            policy,
            random: Random(seed),
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            arrivals: [0; 2],
            ordered: true,
            jar,
            tabs: [0; TABS],
            thief: None,
            truth: Truth::default(),
            over: 0,
            over_at: None,
            refreshes: 0,
            page_loads: PAGE_LOADS,
        };
        world.after(0, Event::PageLoad);
        (0..TABS).for_each(|tab| world.send(tab));
        world
    }

    /// Lets answers overtake each other, as on several connections.
    fn unordered(mut self) -> Self {
        self.ordered = false;
        self
    }

    fn with_thief(mut self, inside: Inside, at: Millis) -> Self {
        self.thief = Some(Thief {
            inside,
            token: None,
            stolen_at: at,
        });
        self.after(at, Event::Theft);
        self
    }

    fn run(mut self, until: Millis) -> Self {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            let caught = self.thief.is_some() && self.over_at.is_some();
            if at > until || caught {
                break;
            }
            self.now = at;
            self.happen(event);
        }
        self
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::PageLoad => {
                let pause = self.random.below(2 * self.page_loads);
                self.after(pause, Event::PageLoad);
                if self.is_awake() {
                    let tab = self.random.below(TABS as u64) as usize;
                    self.send(tab);
                }
            }
            Event::Expired(turn) if self.is_of(turn) => {
                if self.is_awake() {
                    self.send(turn.tab);
                } else {
                    let morning = DAY - self.now % DAY;
                    let jitter = self.random.below(JITTER);
                    self.after(morning + jitter, Event::Expired(turn));
                }
            }
            Event::TimeOut(turn) if self.is_of(turn) => self.send(turn.tab),
            Event::Expired(_) | Event::TimeOut(_) => {}
            Event::Request(turn, token) => {
                let answer = match self.refresh(&token, HOME) {
                    Err(Refused::Over) => Ok(Some(self.policy.login())),
                    answer => answer,
                };
                if !self.random.one_in(LOST) {
                    let arrival = self.travel(1);
                    self.at(arrival, Event::Answer(turn, answer));
                }
            }
            Event::Answer(turn, answer) => {
                let late = answer.is_err();
                if let Ok(Some(token)) = answer {
                    self.jar = token;
                }
                if self.is_of(turn) && late {
                    self.send(turn.tab);
                } else if self.is_of(turn) {
                    let next = self.turn(turn.tab);
                    let jitter = self.random.below(JITTER);
                    self.after(ACCESS + jitter, Event::Expired(next));
                }
            }
            Event::Theft => {
                let jar = self.jar.clone();
                let thief = self.thief.as_mut().unwrap();
                thief.token = Some(jar);
                if thief.inside == Inside::ByChance {
                    let pause = self.random.below(ACCESS);
                    self.after(pause, Event::Thief);
                }
            }
            Event::Thief => {
                let token = self.thief.as_ref().and_then(|thief| thief.token.clone());
                if let Ok(Some(next)) = self.refresh(&token.unwrap(), AWAY) {
                    self.thief.as_mut().unwrap().token = Some(next);
                }
                if self.thief.as_ref().unwrap().inside != Inside::EveryTime {
                    let jitter = self.random.below(JITTER);
                    self.after(ACCESS + jitter, Event::Thief);
                }
            }
        }
    }

    fn refresh(&mut self, token: &str, from: IpAddr) -> Answer {
        self.refreshes += 1;
        let newest = self.truth.newest;
        let answer = self.policy.refresh(self.now, token, from);
        self.truth.note(self.now, token, &answer);
        if answer == Err(Refused::Over) {
            self.over += 1;
            self.over_at = Some(self.now);
        }
        let rotated = from == HOME && self.truth.newest > newest;
        if let Some(thief) = &mut self.thief
            && rotated
            && thief.token.as_deref() == Some(token)
            && thief.inside != Inside::ByChance
        {
            if thief.inside == Inside::Once {
                thief.inside = Inside::ByChance;
            }
            self.after(1, Event::Thief);
        }
        answer
    }

    fn send(&mut self, tab: usize) {
        let turn = self.turn(tab);
        self.after(TIME_OUT, Event::TimeOut(turn));
        if !self.random.one_in(LOST) {
            let arrival = self.travel(0);
            self.at(arrival, Event::Request(turn, self.jar.clone()));
        }
    }

    /// When what is sent now arrives.
    fn travel(&mut self, direction: usize) -> Millis {
        let arrival = self.now + self.random.below(TRAVEL);
        let last = &mut self.arrivals[direction];
        *last = (*last).max(arrival);
        if self.ordered { *last } else { arrival }
    }

    fn turn(&mut self, tab: usize) -> Turn {
        self.number += 1;
        self.tabs[tab] = self.number;
        Turn {
            tab,
            number: self.number,
        }
    }

    fn is_of(&self, turn: Turn) -> bool {
        self.tabs[turn.tab] == turn.number
    }

    fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, event)));
    }

    fn is_awake(&self) -> bool {
        self.now % DAY < WAKING
    }

    /// How long the thief had the session.
    fn lifetime(&self) -> Option<Millis> {
        let thief = self.thief.as_ref()?;
        self.over_at.map(|at| at.saturating_sub(thief.stolen_at))
    }
}

/// SplitMix64: the same run for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Logouts without a thief, and refreshes, of some browsers in seven days.
fn weeks<P: Policy>(policy: impl Fn() -> P, ordered: bool) -> (usize, usize) {
    let worlds = (0..BROWSERS).map(|seed| {
        let world = World::new(policy(), seed);
        let world = if ordered { world } else { world.unordered() };
        world.run(7 * DAY)
    });
    worlds.fold((0, 0), |(over, refreshes), world| {
        (over + world.over, refreshes + world.refreshes)
    })
}

/// What became of thieves within seven days.
fn thefts<P: Policy>(policy: impl Fn() -> P, inside: Inside) -> Thefts {
    let mut thefts = Thefts::default();
    for seed in 0..THEFTS {
        let at = Random(seed).below(WAKING);
        let world = World::new(policy(), seed).with_thief(inside, at);
        let world = world.run(at + 7 * DAY);
        thefts.lifetimes.extend(world.lifetime());
        thefts.unnoticed += world.truth.unnoticed;
    }
    thefts.lifetimes.sort_unstable();
    thefts
}

#[derive(Default)]
struct Thefts {
    /// Of thieves that were found, the shortest first.
    lifetimes: Vec<Millis>,
    /// How many uses of an outdated token ended no session.
    unnoticed: usize,
}

impl fmt::Display for Thefts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(longest) = self.lifetimes.last() else {
            return f.write_str("none");
        };
        let (found, median) = (
            self.lifetimes.len(),
            self.lifetimes[self.lifetimes.len() / 2],
        );
        let (median, longest) = (median / MINUTE, longest / MINUTE);
        write!(
            f,
            "{found}, after {median} min (median), {longest} min (most)"
        )
    }
}

#[test]
fn nobody_is_logged_out_but_by_a_thief() {
    let (ours, refreshes) = weeks(|| Rotation::with_grace(GRACE), true);
    let (strict, _) = weeks(|| Rotation::with_grace(0), true);
    let (forking, _) = weeks(Forking::default, true);
    println!("{BROWSERS} browsers, {TABS} tabs, 7 days, {refreshes} refreshes; false logouts:");
    println!("  this crate {ours}, strict {strict}, forking {forking}");
    assert_eq!(ours, 0);
    assert!(refreshes > 4_000 * BROWSERS as usize);
    assert!(strict > 100 * BROWSERS as usize);
}

/// What the one connection is worth: on several, an answer that was overtaken puts an older token
/// back into the cookie jar, unless a young one stays.
#[test]
fn answers_that_overtake_each_other_are_rarely_a_logout() {
    for keeps_young in [false, true] {
        let rotation = || Rotation {
            keeps_young,
            ..Rotation::with_grace(GRACE)
        };
        let (over, refreshes) = weeks(rotation, false);
        let how = if keeps_young {
            "a young token stays"
        } else {
            "each use replaces"
        };
        println!("answers overtake, {how}: {over} false logouts in {refreshes} refreshes");
        assert!(over * 5_000 < refreshes);
        assert!(over == 0 || !keeps_young);
    }
}

/// Tabs that load pages all the time: what rarely goes wrong does here, when each use of the cookie
/// replaces its token.
#[test]
fn answers_that_overtake_each_other_put_no_older_token_back() {
    let busy = |keeps_young| {
        let mut sum = (0, 0);
        for seed in 0..BUSY {
            let policy = Rotation {
                keeps_young,
                ..Rotation::with_grace(GRACE)
            };
            let mut world = World::new(policy, seed).unordered();
            world.page_loads = SECOND / 4;
            let world = world.run(HOUR / 4);
            sum = (sum.0 + world.over, sum.1 + world.refreshes);
        }
        sum
    };
    let (kept, refreshes) = busy(true);
    let (each_use, _) = busy(false);
    println!(
        "{BUSY} busy browsers, {refreshes} refreshes that overtake each other; false logouts:"
    );
    println!("  a young token stays {kept}, each use replaces {each_use}");
    assert_eq!(kept, 0);
    assert!(each_use > 0);
}

#[test]
fn every_theft_is_found_at_the_next_rotation_outside_the_window() {
    for inside in [Inside::ByChance, Inside::Once] {
        let ours = thefts(|| Rotation::with_grace(GRACE), inside);
        let strict = thefts(|| Rotation::with_grace(0), inside);
        let forking = thefts(Forking::default, inside);
        println!("thief inside the window {inside:?}; found of {THEFTS}:");
        println!("  this crate {ours}\n  strict {strict}\n  forking {forking}");
        assert_eq!((ours.lifetimes.len() as u64, ours.unnoticed), (THEFTS, 0));
        assert!(inside == Inside::ByChance || forking.lifetimes.is_empty());
    }
}

/// The thief that rotation cannot see lives as long as the session, but is told of.
#[test]
fn a_thief_in_lockstep_ends_with_the_session_and_raises_the_alarm() {
    let world = World::new(Rotation::with_grace(GRACE), 1).with_thief(Inside::EveryTime, MINUTE);
    let alarms = world.policy.alarms.clone();
    let world = world.run(2 * HOUR);
    let alarmed = alarms.load(Ordering::Relaxed);
    assert!(world.over_at.is_none() && alarmed > 0);
    let world = world.run(31 * DAY);
    let lifetime = world.lifetime().unwrap();
    println!(
        "a thief inside the window every time lives {:.2} days, with {alarmed} alarms in two hours",
        lifetime as f64 / DAY as f64,
    );
    assert!(lifetime + MINUTE <= 30 * DAY + HOUR);
    assert!(lifetime > 29 * DAY);
}

const BROWSERS: u64 = 4;
const THEFTS: u64 = 50;
const TABS: usize = 8;
const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
const WAKING: Millis = 16 * HOUR;
const ACCESS: Millis = 15 * MINUTE;
const GRACE: Millis = 30 * SECOND;
const BUSY: u64 = 8;
/// The mean time between two.
const PAGE_LOADS: Millis = 5 * MINUTE;
const TIME_OUT: Millis = 5 * SECOND;
/// The longest way there, and back.
const TRAVEL: Millis = 400;
const JITTER: Millis = 2 * SECOND;
const LOST: u64 = 50;
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
